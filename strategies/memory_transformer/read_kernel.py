"""The memory read and the heads as they decide: a model's weights, arranged for compiled code.

:class:`~strategies.memory_transformer.model.MemoryTransformer` is made for training. Here the same weights say the same up to
rounding, bar by bar.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from memory_store.machine_code import fixed
from strategies.memory_transformer.bar_kernel import Map, array_of
from strategies.memory_transformer.compiled import (
    DIRECTION,
    POSITION,
    RETURNS,
    FloatRows,
    Head,
    ReadWeights,
    Told,
    read_bars,
)
from strategies.memory_transformer.config import OutputType
from strategies.memory_transformer.memory_read import fact_count
from strategies.memory_transformer.model import MemoryTransformer
from strategies.readout import QUANTILES

_KINDS = {OutputType.DIRECTION: DIRECTION, OutputType.PORTFOLIO: POSITION}


class ReadKernel:
    """The one function from states, keys and neighbours of bars to what the model says of them.

    Args:
        model: in evaluation mode; its weights are copied.
        n_neighbors: found for every bar.
    """

    def __init__(self, model: MemoryTransformer, n_neighbors: int) -> None:
        self._config = config = model.config
        self._neighbors = n_neighbors
        with torch.no_grad():
            self._weights = _weights(model)
        row = {OutputType.DIRECTION: 2, OutputType.PATH: config.primary}.get(config.output_type, 0)
        kind = _KINDS.get(config.output_type, RETURNS)
        self._head = Head(kind, row, config.primary, QUANTILES.index(0.5))
        # Compiled now, where nobody waits for a decision.
        hidden, keys = np.zeros((1, config.d_model), np.float32), np.zeros((1, n_neighbors, config.d_model), np.float32)
        facts = np.zeros((1, n_neighbors, fact_count(len(config.horizons))), np.float32)
        found = np.zeros((1, n_neighbors), np.bool_)
        self(hidden, hidden.copy(), keys, np.zeros(found.shape), facts, found)

    def __call__(
        self,
        hidden: FloatRows,
        queries: FloatRows,
        keys: FloatRows,
        likeness: npt.NDArray[np.float64],
        facts: FloatRows,
        mask: npt.NDArray[np.bool_],
    ) -> Told:
        """What is said of ``n`` bars: see :func:`read_bars`. What is masked may hold anything finite."""
        n, horizons = len(hidden), len(self._config.horizons)
        told = Told(
            np.empty(n, np.float32),
            np.empty(n, np.float32),
            np.empty((n, self._neighbors), np.float32),
            np.empty((n, horizons, len(QUANTILES)), np.float32),
            np.empty((n, horizons), np.float32),
        )
        rows = fixed(hidden), fixed(queries), fixed(keys), fixed(likeness), fixed(facts), fixed(mask)
        read_bars(self._weights, *rows, self._head, told)
        return told


def _weights(model: MemoryTransformer) -> ReadWeights:
    config, read = model.config, model.memory_read
    outcomes, feed_forward = read.outcomes, model.feed_forward
    asking = Map.of(read.correction.weight, read.correction.bias)
    distribution = model.distribution.projection
    heads = Map.of(
        torch.cat((model.head.weight, distribution.weight)), torch.cat((model.head.bias, distribution.bias))
    ).after(model.head_norm)
    horizons = len(config.horizons)
    nothing = torch.zeros(config.output_width, config.d_model)
    scale = np.float32(read.scale.item())
    return ReadWeights(
        scale,
        np.float32(read.null_similarity.item()) * scale,
        -asking.matrix,
        *asking,
        array_of(read.mixing().t()),
        array_of(read.gate.weight[0]),
        np.float32(read.gate.bias.item()),
        *Map.of(outcomes.inner.weight, outcomes.inner.bias),
        *Map.of(outcomes.belief.weight, outcomes.belief.bias),
        array_of((torch.zeros(horizons, horizons) if outcomes.usual is None else outcomes.usual).t()),
        array_of(outcomes.sizes.weight.t()),
        *Map.of(feed_forward.inner.weight, feed_forward.inner.bias).after(model.feed_forward_norm),
        *Map.of(feed_forward.outer.weight, feed_forward.outer.bias),
        *heads,
        array_of((nothing if model.linear_head is None else model.linear_head.weight).t()),
        array_of((nothing if model.key_head is None else model.key_head).t()),
    )
