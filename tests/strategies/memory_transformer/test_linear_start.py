"""The linear start: it is the ridge regression that it says, only of the training span, and it stays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from strategies.memory_transformer.config import OutputType
from strategies.memory_transformer.dataset import Dataset, TrainingError, build_dataset
from strategies.memory_transformer.evaluation import forecast_rows
from strategies.memory_transformer.linear_start import PENALTIES, fit_linear, silence
from strategies.memory_transformer.model import MemoryTransformer
from strategies.memory_transformer.span_memory import SpanMemory
from strategies.memory_transformer.targets import targets_of
from strategies.memory_transformer.training import TrainingConfig, train
from tests.strategies.markets import random_walk
from tests.strategies.memory_transformer.tiny import TINY

SHAPE = replace(TINY, linear_window=20, output_type=OutputType.PATH)
QUICK = TrainingConfig(epochs=1, whitening=0.1, linear_start=True, distribution_weight=0.0)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return build_dataset({"AAAUSDT": random_walk(900, 3)}, SHAPE, 0.2)


def started(dataset: Dataset, mirrored: float = 0.0) -> tuple[MemoryTransformer, SpanMemory]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MemoryTransformer(SHAPE).eval()
    silence(model)
    memory = SpanMemory.build(model.encoder, dataset, SHAPE)
    fit_linear(model, memory, dataset.train, dataset.validation, mirrored=mirrored)
    return model, memory


def loss_of(model: MemoryTransformer, memory: SpanMemory, rows: np.ndarray) -> float:
    wanted = targets_of(memory.moments, SHAPE).of(torch.from_numpy(rows)).returns
    return float((forecast_rows(model, memory, rows).prediction - wanted).square().mean())


def test_a_silent_model_says_nothing_and_its_state_is_linear_in_the_window(dataset):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MemoryTransformer(SHAPE).eval()
    silence(model)
    memory = SpanMemory.build(model.encoder, dataset, SHAPE)
    assert forecast_rows(model, memory, dataset.train, force_gate=0.0).prediction.abs().max() == 0.0
    one, two = torch.randn(2, 1, 1, SHAPE.block, SHAPE.n_features, generator=torch.Generator().manual_seed(1))
    state = model.encoder.initial_state()

    def states(rows: torch.Tensor) -> torch.Tensor:
        return model.encoder(rows, state).hidden.detach()

    torch.testing.assert_close(states(2.0 * one + two), 2.0 * states(one) + states(two), rtol=1e-3, atol=1e-4)


def test_no_small_step_away_from_it_fits_the_training_rows_better(dataset, monkeypatch):
    """With nearly no penalty the fit is the least squares of the training rows."""
    monkeypatch.setattr("strategies.memory_transformer.linear_start.PENALTIES", PENALTIES[:1])
    monkeypatch.setattr("strategies.memory_transformer.linear_start._UNCHOSEN", PENALTIES[0])
    model, memory = started(dataset)
    best = loss_of(model, memory, dataset.train)
    generator = torch.Generator().manual_seed(0)
    assert model.linear_head is not None and model.memory_read.outcomes.usual is not None and model.key_head is not None
    for weights in (model.linear_head.weight, model.key_head, model.memory_read.outcomes.usual, model.head.bias):
        kept = weights.detach().clone()
        for _ in range(5):
            with torch.no_grad():
                weights.copy_(kept + 0.05 * kept.abs().max() * torch.randn(kept.shape, generator=generator))
            assert loss_of(model, memory, dataset.train) > best
        with torch.no_grad():
            weights.copy_(kept)


def test_the_validation_part_chooses_the_penalty(dataset, monkeypatch):
    """Returns of a random walk have no map: what is chosen is about the mean of the training rows and no more."""
    chosen, memory = started(dataset)
    monkeypatch.setattr("strategies.memory_transformer.linear_start.PENALTIES", PENALTIES[:1])
    monkeypatch.setattr("strategies.memory_transformer.linear_start._UNCHOSEN", PENALTIES[0])
    eager, same = started(dataset)
    assert chosen.linear_head is not None and eager.linear_head is not None
    assert chosen.linear_head.weight.abs().max() < 0.1 * eager.linear_head.weight.abs().max()
    assert loss_of(eager, same, dataset.train) < loss_of(chosen, memory, dataset.train)
    assert loss_of(eager, same, dataset.validation) > loss_of(chosen, memory, dataset.validation)


def test_a_penalty_for_each_way_is_not_judged_worse_than_the_best_one_for_all(dataset, monkeypatch):
    model, memory = started(dataset)
    monkeypatch.setattr("strategies.memory_transformer.linear_start._ROUNDS", 0)
    same, _ = started(dataset)
    assert loss_of(model, memory, dataset.validation) < loss_of(same, memory, dataset.validation)


def test_what_training_cannot_know_yet_changes_no_bit_of_it(dataset):
    """Outcomes of validation rows may choose the penalty; those after them may do nothing."""
    moments = dataset.moments
    after = np.arange(len(moments)) > dataset.validation[-1]
    assert after.any()
    outcomes = np.where(after[:, None] & ~np.isnan(moments.outcomes), 100.0, moments.outcomes)
    changed = replace(dataset, moments=replace(moments, outcomes=outcomes))
    one, two = started(dataset)[0].state_dict(), started(changed)[0].state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_shown_in_the_mirror_half_of_the_time_a_state_says_nothing_of_the_direction(dataset):
    model, _ = started(dataset, mirrored=0.5)
    assert model.linear_head is not None and model.memory_read.outcomes.usual is not None and model.key_head is not None
    assert model.key_head.abs().max() < 1e-6
    assert model.linear_head.weight.abs().max() < 1e-6
    assert model.head.bias.abs().max() < 1e-6
    assert model.memory_read.outcomes.usual.abs().max() > 0.0


def test_it_is_kept_where_no_epoch_is_better():
    hasty = train({"AAAUSDT": random_walk(900, 3)}, SHAPE, replace(QUICK, epochs=1, learning_rate=0.3))
    assert hasty.report.best_epoch == 0
    found = hasty.report.validation
    assert found is not None
    assert all(each.validation_loss is not None for each in hasty.report.epochs)
    assert all((each.validation_loss or 0.0) > found.with_memory.loss for each in hasty.report.epochs)


def test_what_is_fitted_stands_still_while_all_else_learns():
    """Without a validation part the last epoch is kept, whatever it is."""
    series, plan = {"AAAUSDT": random_walk(900, 3)}, replace(QUICK, validation_fraction=0.0)
    one, two = (train(series, SHAPE, replace(plan, learning_rate=rate)).model.state_dict() for rate in (1e-3, 1e-2))
    still = [name for name in one if torch.equal(one[name], two[name])]
    assert {"linear_head.weight", "encoder.linear.convolution.weight", "memory_read.outcomes.usual", "key_head"} <= set(
        still
    )
    assert not torch.equal(one["head.weight"], two["head.weight"])
    assert not torch.equal(one["encoder.norm.weight"], two["encoder.norm.weight"])


@pytest.mark.parametrize("changes", [{"output_type": OutputType.DIRECTION}, {"linear_window": 0}])
def test_a_model_that_has_nothing_to_fit_is_refused(changes):
    with pytest.raises(TrainingError, match=r"training\.linear_start"):
        train({"AAAUSDT": random_walk(900, 3)}, replace(SHAPE, **changes), QUICK)
