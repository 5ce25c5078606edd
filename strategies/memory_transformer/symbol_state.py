"""Everything about one symbol that is a function of its bars alone: features, regime, encoder, and bars foreseen."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from memory_store.second_thread import SecondThread
from strategies.admission import AdmissionState
from strategies.bars import Bar, BarSeries
from strategies.features import FEATURE_WARMUP, FeatureState, feature_matrix
from strategies.memory_transformer.bar_kernel import BarKernel
from strategies.memory_transformer.prospect import Prospect
from strategies.memory_transformer.streaming import EncodedBar, StreamingEncoder
from strategies.outcomes import trailing_volatility
from strategies.regimes import RegimeState
from strategies.scaling import Scaler

_TOGETHER: Final = 288
"""Bars that are encoded together: whole blocks of those whose neighbours are proposed together. They are begun with so long
before these are that a second thread is done with them by then."""

_AHEAD: Final = 2 * _TOGETHER


class ObservedBar(NamedTuple):
    """What one bar looked like."""

    open_time: int
    features: tuple[float, ...]
    encoded: EncodedBar | None
    """``None`` for a bar too early to have a key."""
    volatility: float
    """Trailing volatility per bar, the unit of forecasts."""
    regime: int
    admitted: bool
    """Whether it may be remembered."""


class SymbolState:
    """The path of one symbol through the encoder.

    Args:
        kernel: the model's kernel.
        scaler: the model's scaler.
        first_ordinal: absolute number of the first bar.
        glitch_wick: see ``strategies.admission``; 0 admits every bar.
    """

    def __init__(self, kernel: BarKernel, scaler: Scaler, first_ordinal: int = 0, *, glitch_wick: float = 0.0) -> None:
        self._kernel = kernel
        self._warmup = kernel.config.warmup
        self._scaler = scaler
        self._features = FeatureState()
        self._regime = RegimeState()
        self._admission = AdmissionState(glitch_wick)
        self._encoder = StreamingEncoder(kernel, first_ordinal)
        self._seen = 0
        self._observed: ObservedBar | None = None
        self._upcoming: Iterator[Bar] | None = None
        self._upcoming_features = self._features
        self._prospect: Prospect | None = None
        self._expected: deque[tuple[float, ...]] = deque()
        """Features of the bars of the prospect that did not come yet."""
        self._came_true: deque[Bar] = deque(maxlen=FEATURE_WARMUP)
        """Bars whose features were foreseen, so that ``_features`` has not seen them."""

    def catch_up(
        self, series: BarSeries, wanted: int
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """Observe a whole history at once, from the beginning.

        Args:
            series: all past bars.
            wanted: moments that are of use; older bars are not encoded.

        Returns:
            Keys of its last bars, of ``wanted`` that may be remembered or of all; regimes of all bars; and which of all bars
            may be remembered.
        """
        self._upcoming = self._prospect = None
        self._came_true.clear()
        matrix = feature_matrix(series)
        regimes = self._regime.update_many(matrix)
        self._features = FeatureState.after(series)
        admitted = self._admission.admit_many(series)
        if wanted:
            wanted += len(series) - int(np.count_nonzero(admitted))
        config = self._kernel.config
        # A state depends on a finite number of bars, so those before it may be left out without a trace.
        start = max(0, len(series) - wanted - config.receptive_field)
        self._encoder = StreamingEncoder(self._kernel, series.first_ordinal + start)
        encoded = self._encoder.encode_series(self._scaler.transform(matrix[start:]))
        self._seen = len(series)
        with_key = max(0, min(wanted, len(series) - config.warmup + 1))
        return encoded.keys[len(encoded.keys) - with_key :], regimes, admitted

    def foresee(self, series: BarSeries) -> None:
        """Remember which bars a replay is going to show next."""
        self._expect_nothing()
        self._upcoming = series.bars()
        self._upcoming_features = copy.deepcopy(self._features)

    def observe(self, bar: Bar, thread: SecondThread | None = None) -> ObservedBar:
        """What a bar looks like; asking again about the same bar changes nothing.

        Args:
            bar: the next one.
            thread: encodes bars to come, where there is a second one.
        """
        if self._observed is not None and self._observed.open_time == bar.open_time:
            return self._observed
        place = self._foreseen_place(bar, thread) if self._upcoming is not None else None
        if place is None:
            features = self._features.update(bar)
            encoded = self._encoder.push(self._scaler.transform(features))
            volatility = float(trailing_volatility(np.array(features)))
        else:
            assert self._prospect is not None
            features = self._expected.popleft()
            volatility = self._prospect.volatility[place]
            encoded = self._encoder.push_expected()
        self._seen += 1
        self._observed = ObservedBar(
            bar.open_time,
            features,
            encoded if self._seen >= self._warmup else None,
            volatility,
            self._regime.update(features),
            self._admission.admit(bar),
        )
        return self._observed

    @property
    def ordinal(self) -> int:
        """Absolute number of the bar observed last."""
        return self._encoder.next_ordinal - 1

    @property
    def prospect(self) -> Prospect | None:
        """The prospect that expected the bar observed last, if one did."""
        return self._prospect

    def _foreseen_place(self, bar: Bar, thread: SecondThread | None) -> int | None:
        """Place of the next bar in the prospect if it is the one that was expected."""
        prospect = self._prospect
        if prospect is None:
            prospect = self._prospect = Prospect(self._encoder.next_ordinal)
            self._look_ahead(prospect, _TOGETHER - prospect.first_ordinal % _TOGETHER, thread)
        place = self._encoder.next_ordinal - prospect.first_ordinal
        if prospect.is_open and len(prospect.bars) - place <= _AHEAD:
            self._look_ahead(prospect, _TOGETHER, thread)
        if place >= len(prospect.bars) or prospect.bars[place] != bar:
            # Other bars come than were shown: from here on every bar is computed by itself.
            self._expect_nothing()
            return None
        self._came_true.append(bar)
        return place

    def _look_ahead(self, prospect: Prospect, count: int, thread: SecondThread | None) -> None:
        """Expect so many more bars, or as many as are left, to be encoded together."""
        assert self._upcoming is not None
        bars = list(islice(self._upcoming, count))
        prospect.is_open = len(bars) == count
        if not bars:
            return
        expected = [self._upcoming_features.update(bar) for bar in bars]
        scaled = self._scaler.transform(expected)
        encoder = self._encoder
        encoded = encoder.look_further(scaled, thread) if prospect.bars else encoder.look_ahead(scaled, thread)
        prospect.extend(bars, encoded, trailing_volatility(np.array(expected)).tolist())
        self._expected += expected

    def _expect_nothing(self) -> None:
        """Forget what was foreseen, after taking in the features of the bars that came true."""
        if len(self._came_true) == FEATURE_WARMUP:
            self._features = FeatureState()  # so many bars determine the state
        for bar in self._came_true:
            self._features.update(bar)
        self._came_true.clear()
        self._expected.clear()
        self._upcoming = self._prospect = None
