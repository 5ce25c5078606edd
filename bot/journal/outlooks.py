"""What memory and model expected at every decision of a run, column by column.

A paper run keeps its decisions whole. A replay makes so many that it keeps these columns instead: some hundred bytes a bar,
packed into one row, from which a report tells what was remembered, when memory and model disagreed, and who was right.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import nan
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from strategies.bars import FloatArray, IntArray
from strategies.base import Signal
from strategies.neighbours import heaviest_of

NEIGHBOURS_KEPT: Final = 3
"""Of every decision, those with the largest share of the vote."""
_NOBODY: Final = (-1, 0, nan, nan, nan)

_TEXT: Final = "symbols"
_NUMBER: Final = "horizon_bars"

Labels = npt.NDArray[np.str_]


@dataclass(frozen=True, slots=True, eq=False)
class Outlooks:
    """One row per decision that explained itself, in the order in which they were made; NaN where there was nothing."""

    horizon_bars: int
    """Bars over which outcomes are remembered: the memory's primary horizon."""
    symbols: tuple[str, ...]
    """That the columns below number."""
    symbol: IntArray
    """``[n]``."""
    open_time: IntArray
    """Of the bar decided on, ``[n]`` milliseconds."""
    exposure: FloatArray
    """The target, ``[n]`` share of equity; NaN where it was unknown."""
    prediction: FloatArray
    """The model's forecast in its own units, ``[n]``; its sign is the side."""
    memory_mean: FloatArray
    """Weighted mean outcome of the neighbours, ``[n]`` log returns."""
    gate: FloatArray
    """The memory's share in the model's mixture, ``[n]``."""
    novelty: FloatArray
    """One minus the similarity of the closest moment, ``[n]``."""
    visible: IntArray
    """Moments that could be asked, ``[n]``."""
    neighbour_symbol: IntArray
    """``[n, NEIGHBOURS_KEPT]``, heaviest first; -1 where there were fewer."""
    neighbour_time: IntArray
    """Open time of the remembered bar, ``[n, NEIGHBOURS_KEPT]`` milliseconds."""
    similarity: FloatArray
    """``[n, NEIGHBOURS_KEPT]``."""
    weight: FloatArray
    """Share of the vote, ``[n, NEIGHBOURS_KEPT]``."""
    outcome: FloatArray
    """What followed it, ``[n, NEIGHBOURS_KEPT]`` log returns."""

    def __len__(self) -> int:
        return len(self.open_time)

    def to_bytes(self) -> bytes:
        """As one compressed NumPy archive, floats in single precision; equal outlooks give equal bytes."""
        columns: dict[str, npt.NDArray[np.generic]] = {
            _TEXT: np.array(self.symbols, dtype=np.str_),
            _NUMBER: np.array(self.horizon_bars),
        }
        for field in fields(self):
            if field.name not in columns:
                column = getattr(self, field.name)
                columns[field.name] = column.astype(np.float32) if column.dtype == np.float64 else column
        packed = io.BytesIO()
        np.savez_compressed(packed, allow_pickle=False, **columns)
        return packed.getvalue()

    @classmethod
    def from_bytes(cls, packed: bytes) -> Outlooks:
        """What ``to_bytes`` packed.

        Raises:
            ValueError: these are no such bytes.
        """
        try:
            with np.load(io.BytesIO(packed), allow_pickle=False) as archive:
                columns = {name: archive[name] for name in archive.files}
            text, number = columns.pop(_TEXT), columns.pop(_NUMBER)
            widened = {
                name: column.astype(np.float64 if column.dtype.kind == "f" else np.int64)
                for name, column in columns.items()
            }
            return cls(horizon_bars=int(number), symbols=tuple(map(str, text)), **widened)
        except (OSError, KeyError, TypeError, EOFError, ValueError) as problem:
            raise ValueError(f"they are no packed outlooks ({problem})") from None

    @classmethod
    def joined(cls, parts: Sequence[Outlooks]) -> Outlooks:
        """Those of several runs with one horizon, one after the other.

        Args:
            parts: at least one.
        """
        symbols = tuple(dict.fromkeys(symbol for part in parts for symbol in part.symbols))
        # The last place is for -1, nobody.
        numbers = [np.array([*(symbols.index(each) for each in part.symbols), -1], dtype=np.int64) for part in parts]
        columns: dict[str, Any] = {}
        for field in fields(cls):
            if field.name not in (_TEXT, _NUMBER):
                columns[field.name] = np.concatenate([getattr(part, field.name) for part in parts])
        for name in ("symbol", "neighbour_symbol"):
            columns[name] = np.concatenate(
                [places[getattr(part, name)] for places, part in zip(numbers, parts, strict=True)]
            )
        return cls(horizon_bars=parts[0].horizon_bars, symbols=symbols, **columns)


class OutlookRecorder:
    """Collects the outlooks of a run, signal by signal."""

    def __init__(self, horizon_bars: int) -> None:
        self._horizon_bars = horizon_bars
        self._numbers: dict[str, int] = {}
        self._rows: list[tuple[float | int, ...]] = []
        self._neighbours: list[float | int] = []
        """Number after number: as many for every row, which an array is made of faster than of what is nested."""

    def add(self, signal: Signal) -> None:
        """Take up a signal; one that explains nothing is left out."""
        seen = signal.explanation
        if seen is None:
            return
        self._rows.append(
            (
                self._number(signal.symbol),
                signal.bar_open_time,
                nan if signal.target_exposure is None else signal.target_exposure,
                nan if seen.prediction is None else seen.prediction,
                nan if seen.memory_mean is None else seen.memory_mean,
                nan if seen.gate is None else seen.gate,
                nan if seen.novelty is None else seen.novelty,
                seen.memory_size,
            )
        )
        heaviest = heaviest_of(seen.neighbours, NEIGHBOURS_KEPT)
        kept = self._neighbours
        for each in heaviest:
            kept += (self._number(each.symbol), *each[1:])
        for _ in range(NEIGHBOURS_KEPT - len(heaviest)):
            kept += _NOBODY

    def outlooks(self) -> Outlooks:
        """All that was taken up so far."""
        columns = list(zip(*self._rows, strict=True)) or [()] * 8
        around = np.array(self._neighbours, dtype=np.float64).reshape(len(self._rows), NEIGHBOURS_KEPT, len(_NOBODY))
        whole, real = np.int64, np.float64
        return Outlooks(
            horizon_bars=self._horizon_bars,
            symbols=tuple(self._numbers),
            symbol=np.array(columns[0], dtype=whole),
            open_time=np.array(columns[1], dtype=whole),
            exposure=np.array(columns[2], dtype=real),
            prediction=np.array(columns[3], dtype=real),
            memory_mean=np.array(columns[4], dtype=real),
            gate=np.array(columns[5], dtype=real),
            novelty=np.array(columns[6], dtype=real),
            visible=np.array(columns[7], dtype=whole),
            # Milliseconds since the epoch are whole numbers far below 2**53, so that float64 holds them exactly.
            neighbour_symbol=around[:, :, 0].astype(whole),
            neighbour_time=around[:, :, 1].astype(whole),
            similarity=around[:, :, 2],
            weight=around[:, :, 3],
            outcome=around[:, :, 4],
        )

    def _number(self, symbol: str) -> int:
        return self._numbers.setdefault(symbol, len(self._numbers))
