"""The optimiser and its learning rate."""

from __future__ import annotations

import math
from typing import Final

import torch

from strategies.memory_transformer.model import MemoryTransformer
from strategies.memory_transformer.training_config import TrainingConfig

_FAST: Final = 10.0  # learning rate of the memory's own scalars in units of the others'
_BRISK: Final = 3.0  # and of what decides how far outcomes are believed
_LAST_RATE: Final = 0.05  # share of the learning rate that the cosine ends at


def make_optimizer(model: MemoryTransformer, training: TrainingConfig, *, read_only: bool = False) -> torch.optim.AdamW:
    """AdamW; only matrices decay, and not what keys are made by: their cosines do not feel its size.

    What says how sharply and how far to believe the memory has a long way to go and nothing to tear: it learns faster.

    Args:
        model: to be trained.
        training: rate, decay and the pace of keys.
        read_only: leave the encoder as it is, but for the metric of its keys.
    """
    read, metric, linear = model.memory_read, model.encoder.metric.weight, model.encoder.linear
    of_keys = [metric, *([] if linear is None or read_only else linear.parameters())]
    fast = [read.log_scale, read.null_similarity, read.gate.bias]
    brisk = [*read.outcomes.inner.parameters(), *read.outcomes.belief.parameters()]
    chosen = {id(parameter) for parameter in (*fast, *brisk)}
    still = {id(parameter) for parameter in model.encoder.parameters() if read_only and parameter is not metric}
    left_out = chosen | still | {id(parameter) for parameter in of_keys}
    rest = [parameter for parameter in model.parameters() if parameter.requires_grad and id(parameter) not in left_out]
    decayed, kept = [p for p in rest if p.ndim == 2], [p for p in rest if p.ndim != 2]
    groups = [
        {"params": decayed, "weight_decay": training.weight_decay, "pace": 1.0},
        {"params": kept, "weight_decay": 0.0, "pace": 1.0},
        {"params": [p for p in of_keys if p.requires_grad], "weight_decay": 0.0, "pace": training.key_pace},
        {"params": brisk, "weight_decay": 0.0, "pace": _BRISK},
        {"params": fast, "weight_decay": 0.0, "pace": _FAST},
    ]
    return torch.optim.AdamW(groups, lr=training.learning_rate, fused=True)


def set_rate(optimizer: torch.optim.Optimizer, training: TrainingConfig, step: int, steps: int) -> None:
    """Set the learning rate of one step of a training: a linear rise, then a cosine.

    Args:
        optimizer: from :func:`make_optimizer`.
        training: peak and length of the rise.
        step: from 0.
        steps: of the whole training.
    """
    rising = math.ceil(steps * training.warmup)
    if step < rising:
        share = (step + 1) / rising
    else:
        progress = (step - rising) / max(1, steps - rising)
        share = _LAST_RATE + (1.0 - _LAST_RATE) * 0.5 * (1.0 + math.cos(math.pi * progress))
    for group in optimizer.param_groups:
        group["lr"] = training.learning_rate * share * group["pace"]
