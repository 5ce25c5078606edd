"""The running mean of weights: that of its definition, with first weights that do not linger."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from strategies.memory_transformer.averaging import averaged


def steps_of(model: nn.Linear, count: int) -> list[Tensor]:
    """Weights as steps of an optimiser might leave them."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(model.weight.shape, generator=generator) for _ in range(count)]


def follow(decay: float, count: int) -> tuple[Tensor, list[Tensor]]:
    """The mean after some steps, and these."""
    model = nn.Linear(3, 2)
    mean, steps = averaged(model, decay), steps_of(model, count)
    for step in steps:
        with torch.no_grad():
            model.weight.copy_(step)
        mean.update_parameters(model)
    assert torch.equal(model.weight, steps[-1])
    return mean.module.weight.detach(), steps


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9])
def test_the_mean_is_that_of_its_definition(decay: float) -> None:
    mean, steps = follow(decay, 100)
    expected = steps[0]
    for count, step in enumerate(steps[1:], start=1):
        left = min(decay, (1 + count) / (10 + count))
        expected = left * expected + (1.0 - left) * step
    torch.testing.assert_close(mean, expected)


def test_after_one_step_the_mean_is_what_it_left() -> None:
    mean, (step,) = follow(0.999, 1)
    assert torch.equal(mean, step)


def test_the_first_weights_do_not_linger_however_slow_the_mean() -> None:
    """With the decay alone the first of 50 steps would have a share of 0.95."""
    model = nn.Linear(1, 1)
    mean = averaged(model, 0.999)
    for value in [1.0] + 49 * [0.0]:
        nn.init.constant_(model.weight, value)
        mean.update_parameters(model)
    assert 0.0 < mean.module.weight.item() < 1e-6


def test_weights_that_stand_still_keep_every_bit() -> None:
    model = nn.Linear(64, 64)
    mean = averaged(model, 0.998)
    for _ in range(30):
        mean.update_parameters(model)
    assert torch.equal(mean.module.weight, model.weight)
