"""The memory read: one bar asks its neighbours what came next. Row by row, no attention over time."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from strategies.memory_transformer.compiled import OUTCOME_LIMIT, TINY
from strategies.memory_transformer.config import MAXIMUM_SCALE, ModelConfig
from strategies.memory_transformer.outcome_read import OutcomeRead, Remembered

_AGE_UNIT: Final = 8.0  # log(1 + 3000 bars): ages then range from about 0.5 to 1.5
_RETRIEVAL_FEATURES: Final = 5
_NULL_SIMILARITY: Final = 0.75
"""Cosine at which a neighbour counts as much as the null entry at the start: near that of ordinary neighbours, because the
gradient of an entry without a share is nothing."""
_HIDDEN = float("-inf")
_TINY: Final = torch.tensor(TINY)


class Retrieved(NamedTuple):
    """Neighbours of a batch of bars. Rows where ``mask`` is false may hold anything finite."""

    keys: Tensor
    """``[batch, k, d_model]``."""
    facts: Tensor
    """``[batch, k, fact_count]``, from :func:`describe`."""
    mask: Tensor
    """``[batch, k]`` bool: true where there is a neighbour."""

    def to(self, device: torch.device) -> Retrieved:
        """The same on another device."""
        return Retrieved(*(part.to(device) for part in self))


def mirrored(retrieved: Retrieved, sign: Tensor, horizons: int) -> Retrieved:
    """The same neighbours in a market that goes the other way where ``sign`` ``[batch]`` is -1: their returns change sign."""
    returns, rest = retrieved.facts[..., :horizons], retrieved.facts[..., horizons:]
    return retrieved._replace(facts=torch.cat((returns * sign[:, None, None], rest), dim=2))


class MemoryReading(NamedTuple):
    """What the memory gave."""

    hidden: Tensor
    """``[batch, d_model]`` state with the memory mixed in."""
    remembered: Remembered
    """What the outcomes themselves say, as far as the gate lets it through."""
    weights: Tensor
    """``[batch, k]`` share of every neighbour; what is missing to one went to the null entry."""
    gate: Tensor
    """``[batch]`` in [0, 1]."""


def fact_count(horizons: int) -> int:
    """Numbers that :func:`describe` gives for one neighbour."""
    return 3 * horizons + 1


def describe(
    outcomes: npt.NDArray[np.float64], ages: npt.NDArray[np.float64], unit: npt.NDArray[np.float64]
) -> npt.NDArray[np.float32]:
    """What is known of neighbours besides their keys, as the model takes it.

    Args:
        outcomes: ``[..., k, horizons]`` log returns, nan where not yet known.
        ages: ``[..., k]`` age in bars, at least 0.
        unit: ``[..., horizons]`` what the bar that asks lets expect, ``sigma_t * sqrt(h)``: the unit of its own forecast, so
            that what followed a neighbour may be repeated as it is.

    Returns:
        ``[..., k, fact_count]``: scaled outcomes, their sizes, whether each is known, log age. The sizes let a weighted
        sum tell how much happened, whichever way it went.
    """
    known = ~np.isnan(outcomes)
    scaled = np.clip(np.where(known, outcomes, 0.0) / unit[..., None, :], -OUTCOME_LIMIT, OUTCOME_LIMIT)
    log_age = np.log1p(ages)[..., None] / _AGE_UNIT
    return np.concatenate((scaled, np.abs(scaled), known, log_age), axis=-1, dtype=np.float32)


class MemoryRead(nn.Module):
    """Attention of one bar over its neighbours and a learned null entry, behind a gate.

    The value of a neighbour is ``E_y(outcomes) + E_age(log age) + W_v key + T(query - key)`` (label embedding and
    correction as in Gorishniy et al., "TabR", 2024). All but the inner layer of ``T`` is linear, so the weighted sum is
    taken first and projected once. Beside it :class:`OutcomeRead` says what the outcomes alone let expect.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        d_model = config.d_model
        self.log_scale = nn.Parameter(torch.tensor(math.log(1.0 / config.temperature)))
        self.null_similarity = nn.Parameter(torch.full((1,), _NULL_SIMILARITY))
        self.null_value = nn.Parameter(torch.zeros(d_model))
        self.correction = nn.Linear(d_model, d_model)
        self.value = nn.Linear(fact_count(len(config.horizons)) + 2 * d_model, d_model, bias=False)
        self.output = nn.Linear(d_model, d_model, bias=False)
        self.outcomes = OutcomeRead(
            d_model,
            len(config.horizons),
            1.0 / config.temperature,
            _NULL_SIMILARITY,
            common=config.linear_window > 0,
        )
        self.gate = nn.Linear(d_model + _RETRIEVAL_FEATURES, 1)
        nn.init.zeros_(self.gate.weight)
        nn.init.constant_(self.gate.bias, -config.gate_bias)

    def forward(
        self, hidden: Tensor, query: Tensor, retrieved: Retrieved, force_gate: float | None = None
    ) -> MemoryReading:
        """Mix what the neighbours say into the states.

        Args:
            hidden: ``[batch, d_model]`` states.
            query: ``[batch, d_model]`` keys of these bars.
            retrieved: their neighbours.
            force_gate: use this gate instead of the learned one; 0 gives the states back as they are, and nothing remembered.
        """
        mask = retrieved.mask
        absent = ~mask
        similarity = torch.bmm(query.unsqueeze(1), retrieved.keys.transpose(1, 2)).squeeze(1)
        scale = self.scale
        null = (self.null_similarity * scale).expand(len(hidden), 1)
        # Scaled before it is masked: the gradient of a scale that multiplies -inf is not a number.
        scores = torch.cat((null, (similarity * scale).masked_fill(absent, _HIDDEN)), dim=1)
        weights = torch.softmax(scores, dim=1)
        null_share, shares = weights.split_with_sizes((1, mask.shape[1]), dim=1)

        # The map of a difference as the difference of maps. The metric learns from cosines alone, so nothing is carried back
        # through these.
        keys = retrieved.keys.detach()
        mapped = F.linear(keys, self.correction.weight)
        differences = F.gelu(self.correction(query).unsqueeze(1) - mapped)
        # One sum each: joined first, the constant parts would be copied, and given gradients that nobody needs.
        voting = shares.unsqueeze(1)
        parts = [torch.bmm(voting, part).squeeze(1) for part in (retrieved.facts, keys, differences)]
        if force_gate is None:
            quality = self._quality(similarity, weights, retrieved, absent)
            gate = torch.sigmoid(self.gate(torch.cat((hidden, *quality), dim=1)))
        else:
            gate = hidden.new_full((len(hidden), 1), force_gate)
        context = F.linear(torch.cat((*parts, null_share), dim=1), self.mixing())
        remembered = self.outcomes(hidden, similarity, shares, retrieved.facts, mask).gated(gate)
        return MemoryReading(torch.addcmul(hidden, gate, context), remembered, shares, gate.squeeze(1))

    def mixing(self) -> Tensor:
        """``[d_model, fact_count + 2 d_model + 1]``: values, the null entry's among them, projected, as one map of sums."""
        return self.output.weight @ torch.cat((self.value.weight, self.null_value.unsqueeze(1)), dim=1)

    @property
    def scale(self) -> Tensor:
        """What the learned softmax multiplies cosines by."""
        return self.log_scale.exp().clamp(max=MAXIMUM_SCALE)

    @property
    def temperature(self) -> float:
        """Of the learned softmax over cosines."""
        return 1.0 / min(float(self.log_scale.detach().exp()), MAXIMUM_SCALE)

    def _quality(
        self, similarity: Tensor, weights: Tensor, retrieved: Retrieved, absent: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """How good the retrieval is, ``[batch, 1]`` each: best score, spread, how many, age, entropy of the weights."""
        mask = retrieved.mask.to(similarity.dtype)
        count = mask.sum(dim=1, keepdim=True)
        share = mask / count.clamp(min=1.0)
        best = similarity.masked_fill(absent, -1.0).amax(dim=1, keepdim=True) * count.clamp(max=1.0)
        mean = (similarity * share).sum(dim=1, keepdim=True)
        variance = ((similarity - mean).square() * share).sum(dim=1, keepdim=True)
        age = (retrieved.facts.select(2, -1) * share).sum(dim=1, keepdim=True)
        entropy = torch.special.entr(weights + _TINY).sum(dim=1, keepdim=True)
        fullness = torch.log1p(count) / torch.tensor(math.log1p(mask.shape[1]))
        return best, (variance + _TINY).sqrt(), fullness, age, entropy
