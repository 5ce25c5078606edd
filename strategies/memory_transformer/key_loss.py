"""What makes near keys mean alike outcomes: bars of a batch forecast each other by the likeness of their keys alone.

Every bar is forecast by the outcomes of the others, weighted by a softmax of cosines, and the forecast is scored as a
distribution. (Learning a metric by the neighbours' forecast: Goldberger, Roweis, Hinton and Salakhutdinov, "Neighbourhood
components analysis", 2005.) A batch holds stretches of different times and symbols, so that a bar from another regime
whose key is near and whose outcome is not costs most.
"""

from __future__ import annotations

import torch
from torch import Tensor

_HIDDEN = float("-inf")


def key_loss(queries: Tensor, keys: Tensor, apart: Tensor, outcomes: Tensor, asked: Tensor, scale: Tensor) -> Tensor:
    """Mean score over bars and horizons; 0 where no bar has another that is far enough from it.

    Args:
        queries: ``[m, d]`` keys of the bars that are forecast, of length one.
        keys: ``[n, d]`` keys of all bars of the batch.
        apart: ``[m, n]`` bool: whether two bars are so far from each other that neither their inputs nor their outcomes
            overlap; others would be alike without meaning anything.
        outcomes: ``[n, horizons]`` returns of all bars in units of their volatility.
        asked: ``[m]`` which of the bars are forecast.
        scale: one over the temperature of the softmax.
    """
    answered = apart.any(dim=1)
    if not bool(answered.any()):
        return queries.sum() * 0.0
    scores = (queries[answered] @ keys.T * scale).masked_fill(~apart[answered], _HIDDEN)
    weights = torch.softmax(scores, dim=1)
    came = outcomes[asked[answered]]
    losses = [weighted_crps(outcomes[:, horizon], weights, came[:, horizon]) for horizon in range(outcomes.shape[1])]
    return torch.stack(losses).mean()


def weighted_crps(values: Tensor, weights: Tensor, outcome: Tensor) -> Tensor:
    """Mean continuous ranked probability score of one set of samples under the weights of every row.

    ``E|X - y| - E|X - X'| / 2`` (Gneiting and Raftery, "Strictly proper scoring rules, prediction, and estimation", 2007,
    equation 21), whose second term is a sum over the sorted samples.

    Args:
        values: ``[n]`` samples.
        weights: ``[m, n]`` not negative, rows summing to 1.
        outcome: ``[m]`` what came.
    """
    ordered, order = torch.sort(values)
    weights = weights[:, order]
    error = (weights * (ordered - outcome.unsqueeze(1)).abs()).sum(dim=1)
    middles = weights.cumsum(dim=1) - 0.5 * weights
    return (error - (weights * ordered * (2.0 * middles - 1.0)).sum(dim=1)).mean()
