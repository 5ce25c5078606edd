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
_INNER: Final = 16
_LARGEST_TRUST: Final = 3.0
"""Bound of the logarithm of the trust, either way."""


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
    nothing: a ridge. The best forecast of what is one of several hypotheses bends it: for two equal and opposite ones it is
    ``tanh`` of the summed evidence (:mod:`backtest.synthetic.optimum`). So the mean is multiplied by a learned positive
    trust, ``m * exp(f(abs(m), mean size, share))``, which turns no sign: what the neighbours have not done is not said.

    Args:
        horizons: how many.
    """

    def __init__(self, horizons: int) -> None:
        super().__init__()
        self.horizons = horizons
        self.log_trust = nn.Parameter(torch.zeros(horizons))
        self.evidence = nn.Linear(3, _INNER)
        self.trust = nn.Linear(_INNER, 1, bias=False)
        self.sizes = nn.Linear(horizons, horizons, bias=False)
        with torch.no_grad():
            self.trust.weight.mul_(0.1)
        nn.init.eye_(self.sizes.weight)

    def forward(self, shares: Tensor, facts: Tensor) -> Remembered:
        """What the neighbours say.

        Args:
            shares: ``[batch, k]`` of the vote, the null entry's left out; 0 for those that are masked.
            facts: ``[batch, k, fact_count]``, see :func:`memory_read.describe`.
        """
        count = self.horizons
        summed = torch.bmm(shares.unsqueeze(1), facts[:, :, : 3 * count]).squeeze(1)
        mean, size, known = summed[:, :count], summed[:, count : 2 * count], summed[:, 2 * count :]
        size, known = size.clamp(min=0.0), known.clamp(min=0.0)
        evidence = torch.stack((mean.abs(), size, known), dim=2)
        trust = self.log_trust + self.trust(torch.tanh(self.evidence(evidence))).squeeze(2)
        returns = mean * trust.clamp(-_LARGEST_TRUST, _LARGEST_TRUST).exp()
        typical = (size / _ORDINARY_SIZE + _PRIOR_SHARE) / (known + _PRIOR_SHARE)
        return Remembered(returns, self.sizes(known * typical.clamp(min=_PRIOR_SHARE).log()))
