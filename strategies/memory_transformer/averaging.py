"""A running mean of the weights, which forecasts better than the noisy weights that the steps of the optimiser leave.

Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", 1992; with an exponential mean, as here,
Morales-Brotons, Vogels and Hendrikx, "Exponential moving average of weights in deep learning: dynamics and benefits", 2024.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """A copy that becomes the exponential running mean of the model's parameters; each call of ``update_parameters`` is a step.

    The first step is copied. Until there have been enough for the decay, it is ``(1 + t) / (10 + t)`` after ``t`` steps, so
    that the first weights do not linger.

    Args:
        model: stays as it is. Its buffers are copied once, and not averaged.
        decay: what is left of the mean after a step, in [0, 1).
    """

    def update(mean: Sequence[Tensor], current: Sequence[Tensor], steps: Tensor | int) -> None:
        count = int(steps)
        warm = min(decay, (1 + count) / (10 + count))
        get_ema_multi_avg_fn(warm)(list(mean), list(current), count)  # type: ignore[no-untyped-call]

    return AveragedModel(model, multi_avg_fn=update)
