"""How well a model does on part of a span: with its memory, without it, and with outcomes that belong to others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from strategies.memory_transformer.config import ModelConfig
from strategies.memory_transformer.dataset import Floats, Integers, Moments
from strategies.memory_transformer.distribution import Distribution
from strategies.memory_transformer.losses import forecast_loss, forecast_losses, signed_view
from strategies.memory_transformer.model import Forecast, MemoryTransformer
from strategies.memory_transformer.span_memory import SpanMemory
from strategies.memory_transformer.targets import targets_of
from strategies.outcomes import NEVER
from strategies.stretches import FEWEST_STRETCHES, standard_error
from strategies.uncertainty.abstention import stretches_of

_BATCH: Final = 1024


@dataclass(frozen=True, slots=True)
class Metrics:
    """Figures over one set of bars. ``None`` where a figure is not defined."""

    loss: float
    direction_accuracy: float | None
    """Share of bars that moved the way the model leaned, of those that moved."""
    information_coefficient: float | None
    """Pearson correlation of forecast and scaled outcome."""
    volatility_r2: float | None
    """Share of the variance of log realised volatility over the primary horizon that the forecast explains."""
    mean_gate: float
    effective_neighbors: float | None
    """Mean effective number of neighbours: one over the sum of squares of their shares (Kish), the null entry left out."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """How much lower the loss with the memory is than that of a control, on the same bars."""

    gain: float
    standard_error: float | None
    """Over stretches of time that do not overlap; ``None`` where there are too few of them."""
    stretches: int

    @property
    def tells_apart(self) -> bool:
        """Whether the gain is more than two standard errors away from nothing."""
        return self.standard_error is not None and abs(self.gain) > 2.0 * self.standard_error

    @property
    def shows_skill(self) -> bool:
        """Whether the loss with the memory is lower by that much."""
        return self.tells_apart and self.gain > 0.0


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One model, with and without what its memory says. All on the same bars."""

    bars: int
    base_rate: float | None
    """Direction accuracy of always saying what happened more often."""
    with_memory: Metrics
    without_memory: Metrics
    """The gate forced shut."""
    shuffled_outcomes: Metrics
    """Every remembered outcome replaced by that of another moment: what remains is capacity, not memory."""
    over_none: Comparison
    """Against the gate forced shut."""
    over_shuffled: Comparison
    """Against shuffled outcomes: what the memory itself is worth."""
    direction: Comparison
    """The same by the head's loss alone, which is what positions follow: knowing how much a market moves does not count."""

    @property
    def verdict(self) -> str:
        """In words, whether the memory can be told from its controls."""
        found = self.over_shuffled
        if found.standard_error is None:
            return f"{found.stretches} stretches of time are too few to tell whether the memory is worth anything"
        figures = f"{abs(found.gain):.2g} ± {found.standard_error:.1g}"
        if not found.tells_apart:
            return (
                f"the memory cannot be told from one with shuffled outcomes: the loss differs by {figures} over "
                f"{found.stretches} stretches of time"
            )
        side = "lower" if found.gain > 0.0 else "higher"
        return f"what the memory remembers matters: the loss is {figures} {side} than with shuffled outcomes"

    @property
    def direction_verdict(self) -> str:
        """In words, whether what positions follow has shown skill."""
        if self.direction.shows_skill:
            return "what positions follow has shown skill: by its loss alone, too, the memory is better than a shuffled one"
        return (
            "what positions follow has shown no skill: by its loss alone the memory is not better than a shuffled one by more "
            "than chance"
        )


def evaluate(
    model: MemoryTransformer,
    memory: SpanMemory,
    rows: Integers,
    *,
    cost: float,
    seed: int,
    distribution_weight: float = 1.0,
) -> Evaluation | None:
    """All controls on some moments; ``None`` without any. The loss is that of training, all bars alike."""
    if not len(rows):
        return None
    shuffled = shuffle_outcomes(memory.moments, seed)
    forecasts = [
        forecast_rows(model, memory, rows),
        forecast_rows(model, memory, rows, force_gate=0.0),
        forecast_rows(model, memory, rows, outcomes=shuffled),
    ]
    targets = targets_of(memory.moments, model.config).of(torch.from_numpy(rows))
    losses, heads = (
        [
            forecast_losses(each, targets, model.config, cost=cost, distribution_weight=weight).double().numpy()
            for each in forecasts
        ]
        for weight in (distribution_weight, 0.0)
    )
    stretch_ms = (model.config.primary_horizon + model.config.embargo) * memory.interval_ms
    stretches = stretches_of(memory.moments.close_time[rows], stretch_ms)
    with_memory, without_memory, other = [
        _metrics(each, float(mine.mean()), memory, rows, model.config)
        for each, mine in zip(forecasts, losses, strict=True)
    ]
    over_none, over_shuffled = [_compare(losses[0], others, stretches) for others in losses[1:]]
    rate = base_rate(memory.moments.target[rows])
    direction = _compare(heads[0], heads[2], stretches)
    return Evaluation(len(rows), rate, with_memory, without_memory, other, over_none, over_shuffled, direction)


def _compare(losses: Floats, others: Floats, stretches: Integers) -> Comparison:
    gains = others - losses
    count = len(np.unique(stretches))
    error = standard_error(gains, stretches) if count >= FEWEST_STRETCHES else None
    return Comparison(float(gains.mean()), error, count)


def measure(
    model: MemoryTransformer,
    memory: SpanMemory,
    rows: Integers,
    *,
    cost: float,
    distribution_weight: float = 1.0,
    precision: float = 0.0,
) -> Metrics:
    """Figures of a model in evaluation mode on some moments, one or more. The loss is that of training."""
    forecast = forecast_rows(model, memory, rows)
    targets = targets_of(memory.moments, model.config).of(torch.from_numpy(rows))
    loss = forecast_loss(
        forecast, targets, model.config, cost=cost, distribution_weight=distribution_weight, precision=precision
    )
    return _metrics(forecast, float(loss), memory, rows, model.config)


def _metrics(forecast: Forecast, loss: float, memory: SpanMemory, rows: Integers, config: ModelConfig) -> Metrics:
    """Figures of what a model said of some moments."""
    targets = targets_of(memory.moments, config).of(torch.from_numpy(rows))
    view = signed_view(forecast.prediction, config).numpy()
    expected = memory.moments.volatility[rows]
    log_volatility = forecast.distribution.log_volatility[:, config.primary].double().numpy() + np.log(expected)
    log_realised = targets.log_realised[:, config.primary].double().numpy() + np.log(expected)
    effective = _effective(forecast.weights)
    return Metrics(
        loss,
        _accuracy(view, targets.primary.numpy()),
        _correlation(view, targets.primary.numpy()),
        _r2(log_volatility, log_realised),
        float(forecast.gate.double().mean()),
        float(effective.mean()) if len(effective) else None,
    )


def forecast_rows(
    model: MemoryTransformer,
    memory: SpanMemory,
    rows: Integers,
    *,
    force_gate: float | None = None,
    outcomes: Floats | None = None,
) -> Forecast:
    """What a model in evaluation mode says of some moments, one or more.

    Args:
        model: the model whose states and keys the memory holds.
        memory: of a span; the rows are among those that ask.
        rows: ``[n]`` moments.
        force_gate: use this gate instead of the learned one.
        outcomes: ``[moments, horizons]`` remembered instead of the true ones.
    """
    parts = []
    model.eval()
    with torch.inference_mode():
        for start in range(0, len(rows), _BATCH):
            batch = rows[start : start + _BATCH]
            hidden, query = torch.from_numpy(memory.hidden[batch]), torch.from_numpy(memory.keys[batch])
            parts.append(model(hidden, query, memory.retrieve(batch, outcomes=outcomes), force_gate=force_gate))
        return joined(parts)


def joined(parts: Sequence[Forecast]) -> Forecast:
    """The forecasts of several batches, one or more, as those of one."""
    return Forecast(
        torch.cat([part.prediction for part in parts]),
        Distribution(*map(torch.cat, zip(*[part.distribution for part in parts], strict=True))),
        torch.cat([part.weights for part in parts]),
        torch.cat([part.gate for part in parts]),
    )


def base_rate(target: npt.NDArray[np.float32]) -> float | None:
    """Direction accuracy of always saying what happened more often, for scaled outcomes ``[n]``; ``None`` if none moved."""
    moved = target[target != 0.0]
    return max(float((moved > 0.0).mean()), float((moved < 0.0).mean())) if len(moved) else None


def shuffle_outcomes(moments: Moments, seed: int) -> Floats:
    """Outcomes dealt anew among the moments that have any: ``[n, horizons]``."""
    known = np.flatnonzero((moments.settled < NEVER).all(axis=1))
    dealt = moments.outcomes.copy()
    dealt[known] = moments.outcomes[np.random.default_rng(seed).permutation(known)]
    return dealt


def _effective(shares: Tensor) -> Tensor:
    """Kish's effective number of the shares ``[n, k]`` of every row that has any."""
    total = shares.double().sum(dim=1)
    squares = shares.double().square().sum(dim=1)
    return (total.square() / squares)[squares > 0.0]


def _accuracy(view: npt.NDArray[np.float32], target: npt.NDArray[np.float32]) -> float | None:
    moved = target != 0.0
    return float((np.sign(view[moved]) == np.sign(target[moved])).mean()) if moved.any() else None


def _correlation(view: npt.NDArray[np.float32], target: npt.NDArray[np.float32]) -> float | None:
    first, second = view.astype(np.float64), target.astype(np.float64)
    first, second = first - first.mean(), second - second.mean()
    scale = float(np.sqrt((first @ first) * (second @ second)))
    return float(first @ second) / scale if scale > 0.0 else None


def _r2(forecast: Floats, outcome: Floats) -> float | None:
    """One minus the squared error over that of the mean of what came."""
    spread = float(np.square(outcome - outcome.mean()).sum())
    return 1.0 - float(np.square(outcome - forecast).sum()) / spread if spread > 0.0 else None
