"""Where a forecast may start: at the ridge regression of its training span, not at nothing.

Two ways to the forecast are linear: from the state, which begins as a linear map of the window (``model.linear_window``), and
from the mean of what followed the neighbours. What is linear has its best weights in closed form (Hoerl and Kennard, "Ridge
regression: biased estimation for nonorthogonal problems", 1970), and a few epochs of small steps do not get there. So both are
fitted together before the first epoch and stand still from then on, and everything else begins with nothing to say and learns
what is left. Early stopping takes the start for an epoch like any other.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from strategies.memory_transformer.config import ModelConfig
from strategies.memory_transformer.dataset import Floats, Integers
from strategies.memory_transformer.model import MemoryTransformer
from strategies.memory_transformer.span_memory import SpanMemory
from strategies.memory_transformer.targets import targets_of

PENALTIES: Final = (1e-6, 1e-5, 1e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0, 10.0, 1000.0)
"""In units of the mean square of the columns that they are for; the last lets nearly nothing be said."""
_UNCHOSEN: Final = 0.1
"""Penalty without a validation part."""
_QUIET_TRUST: Final = 0.05
"""Of the neighbours that are believed one by one: enough to learn from."""
_NULL_SIMILARITY: Final = -1.0
"""Of the null entry, which is to take no share from the mean of the neighbours."""
_BATCH: Final = 1024


class _Columns(NamedTuple):
    """What is regressed on what."""

    state: Floats
    """``[n, d_model + 1]`` states and a one; without a ``linear_window`` the one alone."""
    recalled: Floats
    """``[n, horizons]`` mean of what followed the neighbours."""
    wanted: Floats
    """``[n, horizons]`` returns less what is forecast without these."""
    known: Floats
    """``[n]`` 1 where all returns are known, else 0."""


def linear_parts(model: MemoryTransformer) -> tuple[nn.Parameter, ...]:
    """The weights that are fitted, and those that make a state of the window."""
    parts = [model.memory_read.outcomes.usual.weight]
    if model.linear_head is not None and model.encoder.linear is not None:
        parts += [model.linear_head.weight, model.encoder.linear.convolution.weight]
    return tuple(parts)


@torch.no_grad()
def silence(model: MemoryTransformer) -> None:
    """Let an untrained model say nothing but what its linear parts will: its state is the linear map of the window."""
    if model.encoder.linear is not None:
        nn.init.zeros_(model.encoder.norm.weight)
    nn.init.zeros_(model.memory_read.output.weight)
    nn.init.constant_(model.memory_read.null_similarity, _NULL_SIMILARITY)
    nn.init.zeros_(model.head.weight)
    nn.init.zeros_(model.head.bias)
    model.memory_read.outcomes.start_trust(_QUIET_TRUST)


def fit_linear(
    model: MemoryTransformer, memory: SpanMemory, train: Integers, validation: Integers, *, mirrored: float
) -> None:
    """Fit the linear parts of a silent model to training rows; the validation rows choose the penalty.

    Args:
        model: after :func:`silence`.
        memory: its states and neighbours.
        train: rows to fit.
        validation: rows to choose by; may be empty.
        mirrored: share of the samples of training that are shown in the mirror, where returns and recollections change sign
            and states do not: what they have in common is less by twice that share.
    """
    model.eval()
    seen = _columns(model, memory, train)
    gram, cross, scale = _moments(seen, mirrored)
    fits = [np.linalg.solve(gram + np.diag(penalty * scale), cross) for penalty in PENALTIES]
    best = PENALTIES.index(_UNCHOSEN)
    if len(validation):
        judged = _columns(model, memory, validation)
        best = int(np.argmin([_loss(judged, weights, model.config) for weights in fits]))
    _put(model, torch.from_numpy(fits[best].T.astype(np.float32)), seen.state.shape[1])


@torch.no_grad()
def _put(model: MemoryTransformer, weights: Tensor, states: int) -> None:
    """Weights ``[horizons, columns]``, of which the first are for states and the one."""
    said = slice(None) if model.config.output_width == len(weights) else slice(model.config.primary, model.config.primary + 1)
    if model.linear_head is not None:
        model.linear_head.weight.copy_(weights[said, : states - 1])
    model.head.bias.copy_(weights[said, states - 1])
    model.memory_read.outcomes.usual.weight.copy_(weights[:, states:])


def _columns(model: MemoryTransformer, memory: SpanMemory, rows: Integers) -> _Columns:
    config, targets = model.config, targets_of(memory.moments, model.config)
    parts = []
    with torch.inference_mode():
        for start in range(0, len(rows), _BATCH):
            batch = rows[start : start + _BATCH]
            hidden, query, retrieved = (
                torch.from_numpy(memory.hidden[batch]),
                torch.from_numpy(memory.keys[batch]),
                memory.retrieve(batch),
            )
            forecast = model(hidden, query, retrieved)
            returns = retrieved.facts[:, :, : len(config.horizons)]
            recalled = torch.bmm(forecast.weights.unsqueeze(1), returns).squeeze(1)
            target = targets.of(torch.from_numpy(batch))
            seen = hidden if model.linear_head is not None else hidden[:, :0]
            state = torch.cat((seen, torch.ones(len(batch), 1)), dim=1)
            parts.append((state, recalled, target.returns - forecast.prediction, target.known.all(dim=1)))
    return _Columns(*(torch.cat(part).double().numpy() for part in zip(*parts, strict=True)))


def _moments(seen: _Columns, mirrored: float) -> tuple[Floats, Floats, Floats]:
    """Second moments of the columns, theirs with what is wanted, and what a penalty of one is for each column."""
    columns = np.concatenate((seen.state, seen.recalled), axis=1) * seen.known[:, None]
    count, states = max(seen.known.sum(), 1.0), seen.state.shape[1]
    gram, cross = columns.T @ columns / count, columns.T @ seen.wanted / count
    # The one and the states are the same in the mirror, what is recalled and wanted is not.
    common = 1.0 - 2.0 * mirrored
    gram[:states, states:] *= common
    gram[states:, :states] *= common
    cross[:states] *= common
    squares = np.diag(gram)
    scale = np.zeros(len(gram))
    if states > 1:
        scale[: states - 1] = squares[: states - 1].mean()
    # Without any neighbour there is nothing to solve for.
    scale[states:] = max(float(squares[states:].mean()), np.finfo(np.float32).tiny)
    return gram, cross, scale


def _loss(judged: _Columns, weights: Floats, config: ModelConfig) -> float:
    """Mean squared error in the unit of the primary horizon, as :func:`losses.path_losses` has it."""
    columns = np.concatenate((judged.state, judged.recalled), axis=1)
    unit = np.array(config.horizons) / config.primary_horizon
    errors = (np.square(judged.wanted - columns @ weights) * unit).mean(axis=1)
    return float((errors * judged.known).sum() / max(judged.known.sum(), 1.0))
