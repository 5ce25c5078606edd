"""The optimiser: who learns how fast, and that every parameter learns once."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from strategies.memory_transformer.linear_start import hold
from strategies.memory_transformer.model import MemoryTransformer
from strategies.memory_transformer.optimization import make_optimizer, set_rate
from strategies.memory_transformer.training_config import TrainingConfig
from tests.strategies.memory_transformer.tiny import TINY

WINDOWED = replace(TINY, linear_window=8)


def rates(model: MemoryTransformer, training: TrainingConfig, *, read_only: bool = False) -> dict[str, float]:
    """Learning rate of every parameter that learns, by name, at the peak."""
    optimizer = make_optimizer(model, training, read_only=read_only)
    set_rate(optimizer, replace(training, warmup=0.0), 0, 1)
    found = {id(parameter): group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
    assert len(found) == sum(len(group["params"]) for group in optimizer.param_groups)
    return {name: found[id(each)] for name, each in model.named_parameters() if id(each) in found}


def test_what_keys_are_made_by_learns_at_its_own_pace_and_nothing_else_does():
    model, training = MemoryTransformer(WINDOWED), TrainingConfig()
    usual, quick = rates(model, training), rates(model, replace(training, key_pace=3.0))
    assert set(usual) == set(quick) == {name for name, _ in model.named_parameters()}
    changed = {name for name in usual if quick[name] != usual[name]}
    assert changed == {"encoder.metric.weight", "encoder.linear.convolution.weight"}
    assert all(quick[name] == pytest.approx(3.0 * training.learning_rate) for name in changed)


def test_in_read_epochs_the_metric_is_all_of_the_encoder_that_learns():
    learning = rates(MemoryTransformer(WINDOWED), TrainingConfig(key_pace=3.0), read_only=True)
    assert {name for name in learning if name.startswith("encoder.")} == {"encoder.metric.weight"}
    assert learning["encoder.metric.weight"] == pytest.approx(3.0 * TrainingConfig().learning_rate)


def test_what_was_fitted_in_closed_form_does_not_learn_however_fast_keys_do():
    model = MemoryTransformer(WINDOWED)
    hold(model)
    assert "encoder.linear.convolution.weight" not in rates(model, TrainingConfig(key_pace=3.0))


def test_a_step_moves_the_metric_as_much_farther_as_its_pace_says():
    moved = []
    for pace in (1.0, 3.0):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = MemoryTransformer(WINDOWED)
        training = TrainingConfig(key_pace=pace, warmup=0.0)
        optimizer = make_optimizer(model, training)
        set_rate(optimizer, training, 0, 2)
        before = model.encoder.metric.weight.detach().clone()
        model.encoder.metric.weight.sum().backward()
        optimizer.step()
        moved.append(model.encoder.metric.weight.detach() - before)
    torch.testing.assert_close(moved[1], 3.0 * moved[0])
