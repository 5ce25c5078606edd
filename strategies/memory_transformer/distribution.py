"""The distribution head: quantiles of the return and the volatility over every horizon, in units that the market sets.

Both are measured in what the trailing volatility would let expect over the horizon, ``sigma_t * sqrt(h)``, so that quiet
and wild times, and horizons of any length, are alike to the head.
"""

from __future__ import annotations

from itertools import pairwise
from math import exp, log
from statistics import NormalDist
from typing import Final, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from strategies.memory_transformer.config import ModelConfig
from strategies.readout import QUANTILES

SMALLEST_RATIO: Final = 0.05
"""Realised volatilities below this share of the expected one count as this much: the logarithm of nothing is endless."""
_MEDIAN: Final = QUANTILES.index(0.5)


class Distribution(NamedTuple):
    """What may come, for a batch of bars."""

    quantiles: Tensor
    """``[batch, horizons, len(QUANTILES)]`` of the log return over ``sigma_t * sqrt(h)``; never decreasing."""
    log_volatility: Tensor
    """``[batch, horizons]`` expected logarithm of realised volatility over ``sigma_t * sqrt(h)``."""


class DistributionHead(nn.Module):
    """From states to a distribution per horizon; it starts as the standard normal one, and the trailing volatility.

    Quantiles are the median and steps away from it that are never negative, so that they cannot cross.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.horizons = len(config.horizons)
        self.projection = nn.Linear(config.d_model, self.horizons * (len(QUANTILES) + 1))
        levels = [NormalDist().inv_cdf(probability) for probability in QUANTILES]
        steps = [_inverse_softplus(high - low) for low, high in pairwise(levels)]
        with torch.no_grad():
            self.projection.bias.copy_(torch.tensor([0.0, *steps, 0.0]).repeat(self.horizons))

    def forward(self, rows: Tensor) -> Distribution:
        """``[batch, d_model]`` to a distribution."""
        numbers = self.projection(rows).view(len(rows), self.horizons, -1)
        median, steps, log_volatility = numbers.split_with_sizes((1, len(QUANTILES) - 1, 1), dim=2)
        steps = F.softplus(steps)
        lowest = median - steps.narrow(2, 0, _MEDIAN).sum(dim=2, keepdim=True)
        return Distribution(torch.cat((lowest, steps), dim=2).cumsum(dim=2), log_volatility.squeeze(2))


def pinball_losses(quantiles: Tensor, outcome: Tensor) -> Tensor:
    """Mean quantile loss over the levels, ``[...]``, smallest at the true quantiles (Koenker and Bassett, "Regression
    quantiles", 1978).

    Args:
        quantiles: ``[..., len(QUANTILES)]``.
        outcome: ``[...]`` what came, in the same unit.
    """
    probabilities = quantiles.new_tensor(QUANTILES)
    error = outcome.unsqueeze(-1) - quantiles
    return torch.maximum(probabilities * error, (probabilities - 1.0) * error).mean(dim=-1)


def volatility_losses(log_volatility: Tensor, log_realised: Tensor) -> Tensor:
    """Huber loss of log volatilities, ``[...]``: nearly their squared error, but a bar that stood still does not rule it."""
    return F.huber_loss(log_volatility, log_realised, reduction="none")


def _inverse_softplus(value: float) -> float:
    return log(exp(value) - 1.0)
