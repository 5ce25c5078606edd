"""Where a forecast may start: at the ridge regression of its training span, not at nothing.

A model with a ``linear_window`` has three ways to the forecast that are linear: from the state, which begins as a linear map of
the window; from the key, which is the state whitened and of length one, so that it tells the shape of a window and not its
size; and from the mean of what followed the neighbours. What is linear has its best weights in closed form (Hoerl and
Kennard, "Ridge regression: biased estimation for nonorthogonal problems", 1970), and a few epochs of small steps do not get
there. So all three are fitted together before the first epoch and stand still from then on, and everything else begins with
nothing to say and learns what is left. Early stopping takes the start for an epoch like any other.

The three differ in how much of them is noise, so each has a penalty of its own (generalized ridge regression, the same paper,
section 5).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from strategies.memory_transformer.config import ModelConfig
from strategies.memory_transformer.dataset import Floats, Integers, TrainingError
from strategies.memory_transformer.model import MemoryTransformer
from strategies.memory_transformer.span_memory import SpanMemory
from strategies.memory_transformer.targets import targets_of

PENALTIES: Final = (1e-6, 1e-5, 1e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0, 10.0, 1000.0)
"""In units of the mean square of the columns that they are for; the last lets nearly nothing be said."""
_ROUNDS: Final = 3
"""In each of them the penalty of every way is chosen once, with those of the others as they are."""
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
    """``[n, d_model + 1]`` states and a one."""
    key: Floats
    """``[n, d_model]`` keys."""
    recalled: Floats
    """``[n, horizons]`` mean of what followed the neighbours, as far as the gate is open."""
    wanted: Floats
    """``[n, horizons]`` returns less what is forecast without these."""
    known: Floats
    """``[n]`` 1 where all returns are known, else 0."""

    @property
    def told(self) -> Floats:
        """``[n, columns]`` all that is regressed on."""
        return np.concatenate((self.state, self.key, self.recalled), axis=1)


class _Moments(NamedTuple):
    """Second moments, all that a ridge regression needs."""

    gram: Floats
    """``[columns, columns]`` of the columns."""
    cross: Floats
    """``[columns, horizons]`` of the columns with what is wanted."""
    squares: Floats
    """``[horizons]`` of what is wanted."""
    scale: Floats
    """``[ways, columns]`` what a penalty of one is for each column, by the way that it belongs to."""

    def fit(self, penalties: Sequence[float]) -> Floats:
        """Weights ``[columns, horizons]`` with a penalty for each way."""
        penalty = np.diag(np.array(penalties) @ self.scale)
        weights: Floats = np.linalg.solve(self.gram + penalty, self.cross).astype(np.float64)
        return weights

    def loss(self, weights: Floats, config: ModelConfig) -> float:
        """Mean squared error of weights in the unit of the primary horizon, as :func:`losses.path_losses` has it."""
        unit = np.array(config.horizons) / config.primary_horizon
        errors = self.squares + (weights * (self.gram @ weights - 2.0 * self.cross)).sum(axis=0)
        return float((errors * unit).mean())


def check_linear_start(config: ModelConfig) -> None:
    """Whether a model can be started so.

    Raises:
        TrainingError: it has nothing that is linear, or forecasts no returns.
    """
    if not config.linear_window:
        raise TrainingError(
            "training.linear_start = true needs a linear window: set model.linear_window above 0, or it to false"
        )
    if not config.output_type.forecasts_returns:
        raise TrainingError(
            f"training.linear_start = true fits returns, but model.output_type = {config.output_type.value} forecasts none; "
            f"use regression or path, or set it to false"
        )


def hold(model: MemoryTransformer) -> None:
    """Let the linear parts that steps would move stand still: the map of the state, and the one that makes it of the window."""
    linear, window = _linear_parts(model)
    linear.requires_grad_(False)
    window.requires_grad_(False)


@torch.no_grad()
def silence(model: MemoryTransformer) -> None:
    """Let an untrained model say nothing but what its linear parts will: its state is the linear map of the window."""
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
    moments = _moments(seen, mirrored)
    weights = moments.fit([_UNCHOSEN] * len(moments.scale))
    if len(validation):
        weights = _best(moments, _moments(_columns(model, memory, validation), 0.0), model.config)
    _put(model, torch.from_numpy(weights.T.astype(np.float32)), seen.state.shape[1], seen.key.shape[1])


def _best(moments: _Moments, judged: _Moments, config: ModelConfig) -> Floats:
    """Weights of the penalties that are judged best: one for all ways first, then each by itself while that helps."""
    ways = len(moments.scale)

    def loss(penalties: tuple[float, ...]) -> float:
        return judged.loss(moments.fit(penalties), config)

    best = min(((penalty,) * ways for penalty in PENALTIES), key=loss)
    for _ in range(_ROUNDS):
        before = best
        for way in range(ways):
            best = min(((*best[:way], penalty, *best[way + 1 :]) for penalty in PENALTIES), key=loss)
        if best == before:
            break
    return moments.fit(best)


@torch.no_grad()
def _put(model: MemoryTransformer, weights: Tensor, states: int, keys: int) -> None:
    """Weights ``[horizons, columns]``, of which the first are for states and the one, and the next for keys."""
    said = (
        slice(None)
        if model.config.output_width == len(weights)
        else slice(model.config.primary, model.config.primary + 1)
    )
    _linear_parts(model)[0].copy_(weights[said, : states - 1])
    model.head.bias.copy_(weights[said, states - 1])
    usual = model.memory_read.outcomes.usual
    assert usual is not None and model.key_head is not None
    model.key_head.copy_(weights[said, states : states + keys])
    usual.copy_(weights[:, states + keys :])


def _linear_parts(model: MemoryTransformer) -> tuple[Tensor, Tensor]:
    """Weights of the linear maps of the state and of the window."""
    assert model.linear_head is not None and model.encoder.linear is not None
    return model.linear_head.weight, model.encoder.linear.convolution.weight


def _columns(model: MemoryTransformer, memory: SpanMemory, rows: Integers) -> _Columns:
    targets, read = targets_of(memory.moments, model.config), model.memory_read.outcomes
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
            recalled = forecast.gate.unsqueeze(1) * read.mean(forecast.weights, retrieved.facts)
            target = targets.of(torch.from_numpy(batch))
            state = torch.cat((hidden, torch.ones(len(batch), 1)), dim=1)
            parts.append((state, query, recalled, target.returns - forecast.prediction, target.known.all(dim=1)))
    return _Columns(*(torch.cat(part).double().numpy() for part in zip(*parts, strict=True)))


def _moments(seen: _Columns, mirrored: float) -> _Moments:
    """Those of some rows, of which a share is shown in the mirror."""
    columns = seen.told * seen.known[:, None]
    count, states = max(seen.known.sum(), 1.0), seen.state.shape[1]
    followed = states + seen.key.shape[1]
    gram, cross = columns.T @ columns / count, columns.T @ seen.wanted / count
    # The one, the states and the keys are the same in the mirror, what is recalled and wanted is not.
    common = 1.0 - 2.0 * mirrored
    gram[:followed, followed:] *= common
    gram[followed:, :followed] *= common
    cross[:followed] *= common
    sizes = np.diag(gram)
    scale = np.zeros((3, len(gram)))
    scale[0, : states - 1] = sizes[: states - 1].mean()
    scale[1, states:followed] = sizes[states:followed].mean()
    # Without any neighbour there is nothing to solve for, and nothing to be said.
    scale[2, followed:] = sizes[followed:].mean() or 1.0
    return _Moments(gram, cross, np.square(seen.wanted * seen.known[:, None]).sum(axis=0) / count, scale)
