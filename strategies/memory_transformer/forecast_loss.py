"""How wrong forecasts were, each known only once its outcome is: for judging a model and for noticing that it ages."""

from __future__ import annotations

from collections import deque
from math import sqrt
from typing import NamedTuple

import numpy as np
import torch

from strategies.bars import Bar
from strategies.base import Signal
from strategies.memory_transformer.config import ModelConfig, OutputType
from strategies.memory_transformer.dataset import TARGET_LIMIT
from strategies.memory_transformer.losses import head_loss
from strategies.outcomes import outcome, trailing_volatility


class _Pending(NamedTuple):
    close: float
    prediction: float | None
    volatility: float


class MaturingForecasts:
    """The losses of a model's forecasts in the order in which their outcomes become known.

    A forecast is about the primary horizon, counted in received bars of its own symbol, as the memory counts.

    Args:
        config: of the model.
        cost: of one trade as a share of its value, for the portfolio head.
    """

    def __init__(self, config: ModelConfig, *, cost: float) -> None:
        self._config = config
        self._cost = cost
        self._pending: dict[str, deque[_Pending]] = {}

    def observe(self, bar: Bar, signal: Signal) -> float | None:
        """Take in a decided bar; the loss of the forecast that it settles, if it settles one."""
        pending = self._pending.setdefault(bar.symbol, deque(maxlen=self._config.primary_horizon))
        settled = pending[0] if len(pending) == self._config.primary_horizon else None
        pending.append(self._forecast(bar, signal))
        if settled is None or settled.prediction is None:
            return None
        return self._loss(settled.prediction, outcome(settled.close, bar.close), settled.volatility)

    def _forecast(self, bar: Bar, signal: Signal) -> _Pending:
        seen = signal.explanation
        if seen is None or seen.prediction is None:
            return _Pending(bar.close, None, 0.0)
        volatility = float(trailing_volatility(np.array(seen.features))) * sqrt(self._config.primary_horizon)
        return _Pending(bar.close, seen.prediction, volatility)

    def _loss(self, prediction: float, came: float, volatility: float) -> float:
        """The head's own loss; of a direction, of which only p(up) - p(down) is told, the squared distance to -1, 0 or 1.

        The mean of that distance is smallest for the true p(up) - p(down), so it is proper for it.
        """
        target = min(max(came / volatility, -TARGET_LIMIT), TARGET_LIMIT)
        config = self._config
        if config.output_type is OutputType.DIRECTION:
            moved = float(target > config.flat_threshold) - float(target < -config.flat_threshold)
            return (prediction - moved) ** 2
        loss = head_loss(
            torch.tensor([[prediction]]),
            torch.tensor([target], dtype=torch.float32),
            torch.tensor([volatility], dtype=torch.float32),
            config.output_type,
            flat=config.flat_threshold,
            cost=self._cost,
        )
        return float(loss)
