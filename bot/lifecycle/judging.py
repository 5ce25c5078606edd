"""Which of two models forecasts better: both trade the same stretch of bars, which neither was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bot.market.batches import batches
from strategies.bars import BarSeries, FloatArray, IntArray, interval_ms
from strategies.stretches import FEWEST_STRETCHES, standard_error

if TYPE_CHECKING:
    from strategies.memory_transformer.strategy import MemoryTransformerStrategy


@dataclass(frozen=True, slots=True)
class Judgement:
    """Two models on the same forecasts. Losses are means; smaller is better."""

    candidate_loss: float
    running_loss: float
    standard_error: float
    """Of the difference, over stretches of time that do not overlap."""
    bars: int

    def is_not_worse(self, tolerance: float) -> bool:
        """Whether the candidate is behind by at most so many standard errors."""
        return self.candidate_loss - self.running_loss <= tolerance * self.standard_error


def span_losses(
    strategy: MemoryTransformerStrategy, series: Mapping[str, BarSeries], start: int, *, cost: float
) -> tuple[IntArray, FloatArray]:
    """Losses of a model that trades the end of some series, its memory growing as it goes, as in a run.

    Args:
        strategy: cold.
        series: its past, and the bars to decide on.
        start: open time of the first bar to decide on, milliseconds.
        cost: see ``MaturingForecasts``.

    Returns:
        Close times at which the losses became known, ``[n]``, and the losses, ``[n]``, in order of time.
    """
    # Imported here because it loads torch.
    from strategies.memory_transformer.forecast_loss import MaturingForecasts

    strategy.bank.stop_recording()
    strategy.warm({symbol: bars.span(None, start) for symbol, bars in series.items()})
    upcoming = {symbol: bars.span(start, None) for symbol, bars in series.items()}
    strategy.preview(upcoming)
    forecasts = MaturingForecasts(strategy.bundle.config, cost=cost)
    known: list[tuple[int, float]] = []
    for batch in batches(upcoming):
        strategy.settle(batch.bars)
        for bar in batch.bars:
            loss = forecasts.observe(bar, strategy.on_bar(bar))
            if loss is not None:
                known.append((bar.close_time, loss))
        strategy.remember(batch.bars)
    times = np.array([time for time, _ in known], dtype=np.int64)
    return times, np.array([loss for _, loss in known], dtype=np.float64)


def judge(
    candidate: MemoryTransformerStrategy,
    running: MemoryTransformerStrategy,
    series: Mapping[str, BarSeries],
    start: int,
    *,
    cost: float,
) -> Judgement | None:
    """Let two models, both cold, trade the same bars from ``start`` on; ``None`` where there are too few to compare them."""

    times, candidate_losses = span_losses(candidate, series, start, cost=cost)
    running_times, running_losses = span_losses(running, series, start, cost=cost)
    common = np.intersect1d(times, running_times)
    candidate_losses = candidate_losses[np.isin(times, common)]
    running_losses = running_losses[np.isin(running_times, common)]
    times = times[np.isin(times, common)]
    config = running.bundle.config
    # Outcomes of forecasts in different stretches hardly overlap, so that these depend on each other within stretches only.
    length = (config.primary_horizon + config.embargo) * interval_ms(running.bundle.interval)
    stretches = np.unique((times - times[:1]) // length, return_inverse=True)[1]
    if not len(times) or stretches[-1] + 1 < FEWEST_STRETCHES:
        return None
    return Judgement(
        float(candidate_losses.mean()),
        float(running_losses.mean()),
        standard_error(candidate_losses - running_losses, stretches),
        len(times),
    )
