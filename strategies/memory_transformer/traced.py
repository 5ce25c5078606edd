"""Everything after the encoder as one recorded graph.

Some hundred operations on a few rows take less time than Python takes to call them. Recorded once, torch runs the same
operations on the same shapes without Python between them, with the same bits, in about half the time; what depends on
weights alone is computed when it is recorded.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from strategies.memory_transformer.distribution import Distribution
from strategies.memory_transformer.memory_read import Retrieved, fact_count
from strategies.memory_transformer.model import Forecast, MemoryTransformer

TracedForward = Callable[[Tensor, Tensor, Retrieved], Forecast]


class _Plain(nn.Module):
    """The model with tensors alone for arguments and answers, which is what can be recorded."""

    def __init__(self, model: MemoryTransformer) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, hidden: Tensor, query: Tensor, keys: Tensor, facts: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        forecast = self.model(hidden, query, Retrieved(keys, facts, mask))
        return forecast.prediction, *forecast.distribution, forecast.weights, forecast.gate


def traced(model: MemoryTransformer, rows: int, n_neighbors: int) -> TracedForward:
    """The model's forward pass over exactly so many rows with so many neighbours.

    Args:
        model: its weights must not change afterwards, and neither must the graph be asked for other shapes: what Python
            makes of a shape is recorded as a number.
        rows: of every call.
        n_neighbors: of every row.
    """
    config = model.config
    width = config.d_model
    blank = (
        torch.zeros(rows, width),
        torch.zeros(rows, width),
        torch.zeros(rows, n_neighbors, width),
        torch.zeros(rows, n_neighbors, fact_count(len(config.horizons))),
        torch.zeros(rows, n_neighbors, dtype=torch.bool),
    )
    with torch.no_grad(), warnings.catch_warnings():
        # That shapes become numbers is meant; that tracing is not developed further does not matter to a pinned torch.
        warnings.simplefilter("ignore")
        recorded = torch.jit.trace(_Plain(model).eval(), blank, check_trace=False)  # type: ignore[no-untyped-call]
        graph = torch.jit.freeze(recorded)  # what depends on weights alone is computed now

    def forward(hidden: Tensor, query: Tensor, retrieved: Retrieved) -> Forecast:
        # As recorded: what torch would make of the graph after a few calls need not have the bits of the first.
        with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
            prediction, quantiles, log_volatility, weights, gate = cast(
                tuple[Tensor, ...], graph(hidden, query, *retrieved)
            )
        return Forecast(prediction, Distribution(quantiles, log_volatility), weights, gate)

    return forward
