"""What followed the neighbours, said directly: the shortest way from a remembered outcome to the forecast.

The mixture in :mod:`memory_read` takes outcomes through projections, a state and a feed-forward layer, all of which have to be
learned through noise before a single outcome is repeated. Here what followed *is* the forecast's correction, and what is
learned is whom to take for the same, and how far to believe them.
"""

from __future__ import annotations

from math import log
from typing import Final, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from strategies.memory_transformer.compiled import LARGEST_BELIEF, LARGEST_SHARPNESS, ORDINARY_SIZE, PRIOR_SHARE

_ORDINARY_SIZE: Final = torch.tensor(ORDINARY_SIZE)
_PRIOR_SHARE: Final = torch.tensor(PRIOR_SHARE)
_LARGEST_BELIEF: Final = torch.tensor(LARGEST_BELIEF)
_ONE: Final = torch.tensor(1.0)


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
    """What followed the neighbours, and how far to believe it at every horizon.

    What is rare is told by those that are taken for the same. Of a neighbour with similarity ``s`` the bar believes that it is
    one of its own kind with ``w = sigmoid(sharpness * (s - threshold))``, whoever else was found: strangers count for nothing,
    be they as many as they like, and all that are alike count for one each. ``n = sum(w)`` is how many there are. What is best
    to make of ``e = sum(w y)`` depends on what is behind the outcomes. With a normal prior it is a mean shrunk towards nothing,
    ``e / (patience + n)``, with the ratio of the variances of noise and prior for patience (Gelman and others, "Bayesian Data
    Analysis", 2013, section 2.5). With two equal and opposite hypotheses evidence adds up and belief is bounded,
    ``drift * tanh(drift * e / noise**2)`` (:mod:`backtest.synthetic.optimum`). Both are cases of

        ``bound * tanh(trust * e * (1 + patience) / (patience + n) / bound)``,

    where trust is how far a single sure neighbour is believed, and patience after how many of them more say nothing new. All
    these numbers depend on the state of the bar, for the beginning of a pattern and its end ask for different ones. Trust and
    bound are positive, so that these never say the opposite of what followed.

    What is common is told by all, where each is a little alike and none is the same: a linear map, over all horizons together,
    of their mean by the shares of the vote. No gradient reaches it. It is nothing, or fitted in closed form
    (:mod:`linear_start`): learned step by step, beside the other, it takes from what the rare could have said.

    Args:
        d_model: numbers of a state.
        horizons: how many.
        sharpness: at the start of training.
        threshold: likewise.
        common: whether there is a map of what is common.
    """

    usual: Tensor | None

    def __init__(self, d_model: int, horizons: int, sharpness: float, threshold: float, *, common: bool) -> None:
        super().__init__()
        self.horizons = horizons
        self.inner = nn.Linear(d_model, d_model)
        self.belief = nn.Linear(d_model, 2 + 3 * horizons)
        nn.init.normal_(self.belief.weight, std=0.01)  # with nothing the layer before it would have no gradient
        nn.init.zeros_(self.belief.bias)
        with torch.no_grad():
            self.belief.bias[:2] = torch.tensor([log(sharpness), threshold])
        self.sizes = nn.Linear(horizons, horizons, bias=False)
        nn.init.eye_(self.sizes.weight)
        self.register_buffer("usual", torch.zeros(horizons, horizons) if common else None)

    def forward(self, hidden: Tensor, similarity: Tensor, shares: Tensor, facts: Tensor, mask: Tensor) -> Remembered:
        """What the neighbours say.

        Args:
            hidden: ``[batch, d_model]`` states of the bars that ask.
            similarity: ``[batch, k]`` cosines.
            shares: ``[batch, k]`` of the vote, the null entry's left out; 0 for those that are masked.
            facts: ``[batch, k, fact_count]``, see :func:`memory_read.describe`.
            mask: ``[batch, k]`` bool: true where there is a neighbour.
        """
        numbers = self.belief(F.gelu(self.inner(hidden)))
        log_sharpness, threshold, beliefs = numbers.split_with_sizes((1, 1, 3 * self.horizons), dim=1)
        sharpness = log_sharpness.exp().clamp(max=float(LARGEST_SHARPNESS))
        alike = torch.sigmoid(sharpness * (similarity - threshold)) * mask
        # What is not known is a return of 0, of no size.
        told = torch.bmm(torch.stack((alike, shares), dim=1), facts)
        rare, common = told.unbind(dim=1)
        returns = self._returns(beliefs, rare)
        if self.usual is not None:
            returns = returns + F.linear(common.narrow(1, 0, self.horizons), self.usual)
        return Remembered(returns, self._sizes(common))

    def mean(self, shares: Tensor, facts: Tensor) -> Tensor:
        """``[batch, horizons]`` mean of what followed the neighbours, by their shares; what is not known is a return of 0."""
        return torch.bmm(shares.unsqueeze(1), facts[:, :, : self.horizons]).squeeze(1)

    @torch.no_grad()
    def start_trust(self, trust: float) -> None:
        """Begin with so much trust in what is rare."""
        self.belief.bias[2 + self.horizons : 2 + 2 * self.horizons] = log(trust)

    def _returns(self, beliefs: Tensor, told: Tensor) -> Tensor:
        """``[batch, horizons]`` from the numbers of the state and the sum ``[batch, fact_count]`` over those that are alike."""
        limited = _LARGEST_BELIEF * torch.tanh(beliefs / _LARGEST_BELIEF)
        patience, trust, bound = limited.exp().chunk(3, dim=1)
        evidence, _, number = told.narrow(1, 0, 3 * self.horizons).chunk(3, dim=1)
        heard = evidence * (patience + _ONE) / (patience + number)
        return bound * torch.tanh(trust * heard / bound)

    def _sizes(self, told: Tensor) -> Tensor:
        """``[batch, horizons]`` logarithms of how much larger than usual what followed was, from the sum by the shares."""
        count = self.horizons
        size, known = told.narrow(1, count, 2 * count).clamp(min=0.0).chunk(2, dim=1)
        typical = (size / _ORDINARY_SIZE + _PRIOR_SHARE) / (known + _PRIOR_SHARE)
        moved: Tensor = self.sizes(known * torch.maximum(typical, _PRIOR_SHARE).log())
        return moved
