"""Everything about one symbol that is a function of its bars alone: features, regime, encoder, and bars foreseen."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

from memory_store import MemoryBank, Proposal
from strategies.bars import Bar, BarSeries
from strategies.features import FeatureState, feature_matrix
from strategies.memory_transformer.streaming import BlockKernel, EncodedBar, StreamingEncoder
from strategies.regimes import RegimeState
from strategies.scaling import Scaler


@dataclass(frozen=True, slots=True, eq=False)
class ObservedBar:
    """What one bar looked like."""

    open_time: int
    features: tuple[float, ...]
    encoded: EncodedBar | None
    """``None`` for a bar too early to have a key."""
    regime: int


@dataclass(frozen=True, slots=True, eq=False)
class _Foreseen:
    """Keys of the bars of a block that were computed before the bars came."""

    first_ordinal: int
    queries: npt.NDArray[np.float32]


class SymbolState:
    """The path of one symbol through the encoder.

    Args:
        kernel: the model's block kernel.
        scaler: the model's scaler.
        first_ordinal: absolute number of the first bar.
    """

    def __init__(self, kernel: BlockKernel, scaler: Scaler, first_ordinal: int = 0) -> None:
        self._kernel = kernel
        self._scaler = scaler
        self._features = FeatureState()
        self._regime = RegimeState()
        self._encoder = StreamingEncoder(kernel, first_ordinal)
        self._seen = 0
        self._observed: ObservedBar | None = None
        self._upcoming: Iterator[Bar] | None = None
        self._upcoming_features = self._features
        self._foreseen: _Foreseen | None = None
        self._proposal: Proposal | None = None

    def catch_up(self, series: BarSeries, wanted: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Observe a whole history at once, from the beginning.

        Args:
            series: all past bars.
            wanted: keys that are of use; older bars are not encoded.

        Returns:
            Keys of its last bars, at most ``wanted``, and regimes of all bars.
        """
        matrix = feature_matrix(series)
        regimes = self._regime.update_many(matrix)
        self._features = FeatureState.after(series)
        config = self._kernel.config
        # A state depends on a finite number of bars, so those before it may be left out without a trace.
        start = max(0, len(series) - wanted - config.receptive_field)
        self._encoder = StreamingEncoder(self._kernel, series.first_ordinal + start)
        encoded = self._encoder.encode_series(self._scaler.transform(matrix[start:]))
        self._seen = len(series)
        with_key = max(0, min(wanted, len(series) - config.warmup + 1))
        return encoded.keys[len(encoded.keys) - with_key :], regimes

    def foresee(self, series: BarSeries) -> None:
        """Remember which bars a replay is going to show next."""
        self._upcoming = series.bars()
        self._upcoming_features = copy.deepcopy(self._features)

    def observe(self, bar: Bar) -> ObservedBar:
        """What a bar looks like; asking again about the same bar changes nothing."""
        if self._observed is not None and self._observed.open_time == bar.open_time:
            return self._observed
        features = self._features.update(bar)
        row = self._scaler.transform(features)
        if self._upcoming is not None:
            self._look_ahead(bar)
        encoded = self._encoder.push(row)
        self._seen += 1
        self._observed = ObservedBar(
            bar.open_time,
            features,
            encoded if self._seen >= self._kernel.config.warmup else None,
            self._regime.update(features),
        )
        return self._observed

    def proposal(self, bank: MemoryBank, bar: Bar, k: int, skip_oldest: int) -> tuple[Proposal | None, int]:
        """Neighbours proposed in bulk for the block of the bar just observed, and the bar's row there.

        The bank sets a proposal aside whose query is not the one it is then asked, so a wrong one costs time alone.
        """
        foreseen = self._foreseen
        if foreseen is None:
            return None, 0
        row = self._encoder.next_ordinal - 1 - foreseen.first_ordinal
        if row >= len(foreseen.queries):
            return None, 0
        if self._proposal is None:
            self._proposal = bank.propose(foreseen.queries, as_of=bar.close_time, k=k, skip_oldest=skip_oldest)
        return self._proposal, row

    def _look_ahead(self, bar: Bar) -> None:
        """Encode the rest of the block at once when the bars foreseen for it begin with this bar."""
        if self._encoder.rows_ahead:
            return
        self._foreseen = self._proposal = None
        assert self._upcoming is not None
        bars = list(islice(self._upcoming, self._encoder.rows_left))
        if not bars or bars[0] != bar:
            # Other bars come than were foreseen: from here on every bar is computed by itself.
            self._upcoming = None
            return
        features = np.array([self._upcoming_features.update(foreseen) for foreseen in bars])
        ordinal = self._encoder.next_ordinal
        encoded = self._encoder.look_ahead(self._scaler.transform(features))
        self._foreseen = _Foreseen(ordinal, encoded.keys)
