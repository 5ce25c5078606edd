"""What followed the neighbours, said directly: the shortest way from a remembered outcome to the forecast.

The mixture in :mod:`memory_read` takes outcomes through projections, a state and a feed-forward layer, all of which have to be
learned through noise before a single outcome is repeated. Here the weighted mean of what followed *is* the forecast's
correction, and what is learned is how far to believe it.
"""

from __future__ import annotations

from math import pi, sqrt
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

_ORDINARY_SIZE: Final = sqrt(2.0 / pi)
"""Mean size of a normal number of volatility one."""
_PRIOR_SHARE: Final = 0.01
"""Share of the vote that speaks for the expected volatility whatever the neighbours say; keeps the logarithm finite."""
_LARGEST_BELIEF: Final = 4.0
"""Bound of the logarithms of trust and of its bound, either way."""
_TINY: Final = 1e-8


class Remembered(NamedTuple):
    """What the neighbours' outcomes add to the forecast, in units of ``sigma_t * sqrt(h)`` of the bar that asks."""

    returns: Tensor
    """``[batch, horizons]`` moves every quantile, and that of the primary horizon the head."""
    log_volatility: Tensor
    """``[batch, horizons]`` moves the logarithm of the volatility."""

    def gated(self, gate: Tensor) -> Remembered:
        """As much of it as a gate ``[batch, 1]`` lets through; with 0 nothing at all."""
        return Remembered(gate * self.returns, gate * self.log_volatility)


class OutcomeRead(nn.Module):
    """The weighted mean of the neighbours' outcomes, and how far to believe it, for every horizon by itself.

    With shares ``w`` that sum to less than one, the rest being the null entry's, ``m = sum(w y)`` is a mean shrunk towards
    nothing: a ridge. What is best to make of it depends on what is behind the outcomes. With two equal and opposite
    hypotheses evidence adds up and belief is bounded, ``drift * tanh(drift * sum(y) / noise**2)``
    (:mod:`backtest.synthetic.optimum`). So the mean is taken as ``bound * tanh(trust * m * number**power / bound)``, where the
    number is the effective one of the neighbours (Kish, "Survey sampling", 1965: ``sum(w)**2 / sum(w**2)``). Trust and bound
    depend on the state of the bar, and are positive, so that the memory never says the opposite of what it remembers.

    Args:
        d_model: numbers of a state.
        horizons: how many.
    """

    def __init__(self, d_model: int, horizons: int) -> None:
        super().__init__()
        self.horizons = horizons
        self.belief = nn.Linear(d_model, 2 * horizons)
        nn.init.zeros_(self.belief.weight)
        nn.init.zeros_(self.belief.bias)
        self.power = nn.Parameter(torch.zeros(horizons))
        self.sizes = nn.Linear(horizons, horizons, bias=False)
        nn.init.eye_(self.sizes.weight)

    def forward(self, hidden: Tensor, shares: Tensor, facts: Tensor) -> Remembered:
        """What the neighbours say.

        Args:
            hidden: ``[batch, d_model]`` states of the bars that ask.
            shares: ``[batch, k]`` of the vote, the null entry's left out; 0 for those that are masked.
            facts: ``[batch, k, fact_count]``, see :func:`memory_read.describe`.
        """
        count = self.horizons
        summed = torch.bmm(shares.unsqueeze(1), facts[:, :, : 3 * count]).squeeze(1)
        mean, size, known = summed[:, :count], summed[:, count : 2 * count], summed[:, 2 * count :]
        size, known = size.clamp(min=0.0), known.clamp(min=0.0)
        squares = torch.bmm(shares.square().unsqueeze(1), facts[:, :, 2 * count : 3 * count]).squeeze(1).clamp(min=0.0)
        number = (known.square() / (squares + _TINY)).clamp(min=1.0)
        typical = (size / _ORDINARY_SIZE + _PRIOR_SHARE) / (known + _PRIOR_SHARE)
        log_typical = typical.clamp(min=_PRIOR_SHARE).log()
        log_trust, log_bound = self.belief(hidden).clamp(-_LARGEST_BELIEF, _LARGEST_BELIEF).chunk(2, dim=1)
        trust, bound = (log_trust + self.power * number.log()).exp(), log_bound.exp()
        return Remembered(bound * torch.tanh(trust * mean / bound), self.sizes(known * log_typical))
