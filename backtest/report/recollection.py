"""What the memory was worth while a run traded: what followed its advice, and who was right when it and the model disagreed.

What followed a decision is the log return of its symbol over the memory's primary horizon, in bars received, which is what
the memory remembers of a moment.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Final

import numpy as np

from bot.journal.outlooks import Outlooks
from strategies.bars import BarSeries, FloatArray, IntArray

GROUPS: Final = 10
_FEWEST_PER_GROUP: Final = 20


@dataclass(frozen=True, slots=True)
class Agreement:
    """Decisions at which model and memory both named a side, and whose outcome is known."""

    count: int
    model_right: int
    memory_right: int
    independent: float
    """``count`` over the horizon, as outcomes of neighbouring bars overlap; at least 1 where there are any."""

    @property
    def model_share(self) -> float | None:
        """Share of them in which the model was right."""
        return self.model_right / self.count if self.count else None

    @property
    def memory_share(self) -> float | None:
        """Share of them in which the memory was right."""
        return self.memory_right / self.count if self.count else None

    @property
    def standard_error(self) -> float | None:
        """Of either share, were the chances even."""
        return 0.5 / sqrt(self.independent) if self.count else None


@dataclass(frozen=True, slots=True, eq=False)
class Recollection:
    """What became of the memory's advice."""

    outlooks: Outlooks
    followed: FloatArray
    """Log return that followed each decision, ``[n]``; NaN where it is not known."""
    agreed: Agreement
    disagreed: Agreement
    correlation: float | None
    """Of what the memory said and what followed; ``None`` for fewer than two or where either stands still."""
    correlation_error: float | None
    """Its standard error, were there no skill."""
    said: FloatArray
    """Mean of what the memory said in each of up to ``GROUPS`` groups of equal size, ``[g]`` log returns."""
    came: FloatArray
    """Mean of what followed them, ``[g]``."""
    came_error: FloatArray
    """Its standard error with overlapping outcomes counted once, ``[g]``."""

    @property
    def mean_gate(self) -> float | None:
        """The memory's mean share in the model's mixture."""
        gates = self.outlooks.gate[np.isfinite(self.outlooks.gate)]
        return float(gates.mean()) if len(gates) else None


def followed_by(outlooks: Outlooks, candles: dict[str, BarSeries]) -> FloatArray:
    """Log return of every decision's symbol over the horizon after its bar, ``[n]``; NaN where bars are missing."""
    followed = np.full(len(outlooks), np.nan)
    for number, symbol in enumerate(outlooks.symbols):
        series = candles.get(symbol)
        rows = np.flatnonzero(outlooks.symbol == number)
        if series is None or not len(series) or not len(rows):
            continue
        place = np.searchsorted(series.open_time, outlooks.open_time[rows])
        later = place + outlooks.horizon_bars
        known = later < len(series)
        known[known] = series.open_time[place[known]] == outlooks.open_time[rows[known]]
        followed[rows[known]] = np.log(series.close[later[known]] / series.close[place[known]])
    return followed


def recollect(outlooks: Outlooks, candles: dict[str, BarSeries]) -> Recollection:
    """Hold the memory's advice against what followed."""
    followed = followed_by(outlooks, candles)
    model, memory, outcome = np.sign(outlooks.prediction), np.sign(outlooks.memory_mean), np.sign(followed)
    sided = np.isfinite(model) & np.isfinite(memory) & np.isfinite(outcome) & (model != 0) & (memory != 0)
    said = outlooks.memory_mean
    known = np.isfinite(said) & np.isfinite(followed)
    correlation, error = _correlation(said[known], followed[known], outlooks.horizon_bars)
    return Recollection(
        outlooks,
        followed,
        _agreement(sided & (model == memory), model, memory, outcome, outlooks.horizon_bars),
        _agreement(sided & (model != memory), model, memory, outcome, outlooks.horizon_bars),
        correlation,
        error,
        *_grouped(said[known], followed[known], outlooks.horizon_bars),
    )


def telling_moments(recollection: Recollection, most: int = 8) -> IntArray:
    """Rows of decisions worth showing: those of the largest targets in stretches of equal length, in their order.

    One of each stretch, so that they do not all come from one day; only decisions that recalled something.
    """
    outlooks = recollection.outlooks
    recalled = np.flatnonzero((outlooks.neighbour_symbol[:, 0] >= 0) & np.isfinite(recollection.followed))
    size = np.nan_to_num(np.abs(outlooks.exposure[recalled]))
    stretches = np.array_split(np.arange(len(recalled)), min(most, len(recalled))) if len(recalled) else []
    return np.array([recalled[each[size[each].argmax()]] for each in stretches], dtype=np.int64)


def _agreement(
    rows: np.ndarray[tuple[int], np.dtype[np.bool_]],
    model: FloatArray,
    memory: FloatArray,
    outcome: FloatArray,
    horizon: int,
) -> Agreement:
    count = int(rows.sum())
    right = [int((side[rows] == outcome[rows]).sum()) for side in (model, memory)]
    return Agreement(count, right[0], right[1], max(1.0, count / horizon))


def _correlation(said: FloatArray, followed: FloatArray, horizon: int) -> tuple[float | None, float | None]:
    if len(said) < 2 or said.std() == 0.0 or followed.std() == 0.0:
        return None, None
    return float(np.corrcoef(said, followed)[0, 1]), 1.0 / sqrt(max(1.0, len(said) / horizon))


def _grouped(said: FloatArray, followed: FloatArray, horizon: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    groups = min(GROUPS, len(said) // _FEWEST_PER_GROUP)
    if groups < 2:
        return np.empty(0), np.empty(0), np.empty(0)
    parts = np.array_split(np.argsort(said, kind="stable"), groups)
    independent = [max(1.0, len(part) / horizon) for part in parts]
    errors = [followed[part].std() / sqrt(count) for part, count in zip(parts, independent, strict=True)]
    return (
        np.array([said[part].mean() for part in parts]),
        np.array([followed[part].mean() for part in parts]),
        np.array(errors),
    )
