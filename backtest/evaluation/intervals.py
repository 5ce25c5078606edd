"""Intervals of a metric from resampled blocks of time.

Outcomes that overlap are not independent, so whole stretches of rows are drawn and not single ones: the stationary
bootstrap (Politis and Romano, "The stationary bootstrap", 1994), whose stretches have geometric lengths. The library
``arch`` draws them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from strategies.memory_transformer.dataset import Floats

RESAMPLES: Final = 400
LEVEL: Final = 0.95


@dataclass(frozen=True, slots=True)
class Figure:
    """A metric and its interval; ``None`` where it is not defined."""

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Resamples:
    """How often every row is in every resample: drawn once, so that all metrics see the same ones and differences pair."""

    counts: Floats
    """``[B, n]``."""

    @classmethod
    def draw(cls, rows: int, block: int, *, resamples: int = RESAMPLES, seed: int = 0) -> Resamples:
        """Resamples of ``rows`` consecutive rows in stretches of mean length ``block`` rows."""
        # Imported here because it takes a second to load, which whoever only names a Figure need not pay.
        from arch.bootstrap import StationaryBootstrap

        drawer = StationaryBootstrap(min(max(1, block), rows), np.arange(rows), seed=seed)
        counts = [np.bincount(drawer.update_indices(), minlength=rows) for _ in range(resamples)]
        return cls(np.array(counts, dtype=np.float64))

    def figure(self, metric: Callable[[Floats], Floats], *, level: float = LEVEL) -> Figure:
        """A metric with its percentile interval.

        Args:
            metric: from weights ``[n]`` or ``[B, n]`` to a number or ``[B]``.
            level: share of resamples within the interval.
        """
        value = float(metric(np.ones(self.counts.shape[1])))
        if not np.isfinite(value):
            return Figure(None)
        drawn = metric(self.counts)
        tail = 0.5 * (1.0 - level)
        low, high = np.nanquantile(drawn, (tail, 1.0 - tail))
        return Figure(value, float(low), float(high))
