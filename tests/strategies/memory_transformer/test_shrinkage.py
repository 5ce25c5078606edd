"""The strength of the whitening: chosen on the validation part by what followed alike moments, or as told."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies.memory_transformer import shrinkage as module
from strategies.memory_transformer.dataset import Dataset, build_dataset
from strategies.memory_transformer.shrinkage import (
    SHRINKAGES,
    ShrinkageChoice,
    ShrinkageSource,
    choose_shrinkage,
    crps,
)
from strategies.memory_transformer.span_memory import encode_span
from strategies.memory_transformer.training import TrainingConfig, train
from strategies.memory_transformer.whitening import Whitening
from strategies.stretches import standard_error
from tests.strategies.markets import random_walk, with_other_future
from tests.strategies.memory_transformer.tiny import QUICK, TINY

BARS = 4000


def market(strong: float, weak: float) -> tuple[np.ndarray, Dataset]:
    """States with three loud directions and many faint ones, and outcomes that follow one of each with these weights."""
    dataset = build_dataset({"AAAUSDT": random_walk(BARS, 3)}, TINY, 0.2)
    moments = dataset.moments
    generator = np.random.default_rng(4)
    states = generator.normal(size=(len(moments), TINY.d_model)) * 0.01
    states[:, :3] *= 300.0
    states[:, 3:] *= 30.0
    followed = strong * states[:, 0] / 3.0 + weak * states[:, 3] / 0.3 + 0.3 * generator.normal(size=len(states))
    outcomes = np.where(np.isnan(moments.outcomes), np.nan, 0.01 * followed[:, None])
    return states.astype(np.float32), replace(dataset, moments=replace(moments, outcomes=outcomes))


def choose(states: np.ndarray, dataset: Dataset, seed: int = 1) -> ShrinkageChoice:
    return choose_shrinkage(states, dataset, TINY, seed=seed)


def test_what_only_a_faint_direction_tells_asks_for_strong_whitening():
    choice = choose(*market(strong=0.0, weak=1.0))
    assert choice.source is ShrinkageSource.VALIDATION
    assert choice.shrinkage <= 0.1
    assert [each.shrinkage for each in choice.candidates] == list(SHRINKAGES)
    assert choice.candidates[0].skill > choice.candidates[-1].skill + 0.05


def test_what_a_loud_direction_tells_asks_for_weak_whitening():
    choice = choose(*market(strong=1.0, weak=0.0))
    assert choice.shrinkage >= 0.3
    assert choice.candidates[-1].skill > choice.candidates[0].skill + 0.05


def test_of_candidates_that_cannot_be_told_apart_the_weakest_whitening_is_taken():
    """Nothing follows from the states, so the best of the four is best by chance."""
    choice = choose(*market(strong=0.0, weak=0.0))
    eligible = [each.shrinkage for each in choice.candidates if each.behind <= each.standard_error]
    assert choice.shrinkage == max(eligible)
    assert all(each.skill < 0.02 for each in choice.candidates)


def test_the_choice_depends_on_nothing_after_the_validation_part():
    states, dataset = market(strong=0.3, weak=1.0)
    later = np.arange(len(states)) > dataset.validation[-1]
    assert later.any()
    other = np.where(later[:, None], np.float32(7.0), states)
    assert choose(other, dataset) == choose(states, dataset)


def test_the_choice_does_depend_on_the_validation_part():
    """So the test before it can see what it looks for."""
    states, dataset = market(strong=0.3, weak=1.0)
    states[dataset.validation[0]] += 7.0
    assert choose(states, dataset) != choose(*market(strong=0.3, weak=1.0))


def test_candles_after_the_span_change_neither_choice_nor_report():
    series = random_walk(1400, 2)
    spans = [one.span(None, int(series.open_time[1000])) for one in (series, with_other_future(series, 1000))]
    reports = [train({"AAAUSDT": one}, TINY, QUICK).report for one in spans]
    assert reports[0] == reports[1]
    assert reports[0].whitening.source is ShrinkageSource.VALIDATION


def test_the_same_seed_asks_the_same_bars(monkeypatch):
    monkeypatch.setattr(module, "QUERIES", 100)
    states, dataset = market(strong=0.3, weak=1.0)
    assert choose(states, dataset, seed=5) == choose(states, dataset, seed=5)
    assert choose(states, dataset, seed=5) != choose(states, dataset, seed=6)
    assert choose(states, dataset, seed=5).queries == 100


def test_a_validation_part_that_is_missing_or_too_short_leaves_the_default():
    for fraction in (0.0, 0.02):
        report = train({"AAAUSDT": random_walk(900, 1)}, TINY, replace(QUICK, validation_fraction=fraction)).report
        assert report.whitening == ShrinkageChoice(TINY.shrinkage, ShrinkageSource.DEFAULT, 0, ())
        assert (report.keys.effective_neighbors is None) == (fraction == 0.0)


@pytest.mark.parametrize("told", [0.3, None])
def test_keys_are_whitened_as_told_or_as_chosen(told):
    series = {"AAAUSDT": random_walk(1200, 1)}
    trained = train(series, TINY, replace(QUICK, epochs=3, whitening=told))
    model, choice = trained.model, trained.report.whitening
    assert choice.source is (ShrinkageSource.VALIDATION if told is None else ShrinkageSource.GIVEN)
    assert model.config.shrinkage == model.encoder.config.shrinkage == choice.shrinkage
    assert told is None or (choice.shrinkage == told and choice.candidates == ())
    dataset = build_dataset(series, TINY, QUICK.validation_fraction)
    again = Whitening(TINY.d_model)
    again.fit(encode_span(model.encoder, dataset)[dataset.train], choice.shrinkage)
    np.testing.assert_allclose(model.encoder.whitening.matrix, again.matrix, rtol=1e-4)


def test_a_told_shrinkage_holds_from_the_first_step():
    """Else the first epoch would be trained on other keys."""
    series = {"AAAUSDT": random_walk(900, 1)}
    told = train(series, TINY, replace(QUICK, whitening=1.0))
    configured = train(series, replace(TINY, shrinkage=1.0), replace(QUICK, whitening=1.0))
    assert told.report == configured.report
    assert told.report.epochs != train(series, TINY, replace(QUICK, whitening=0.01)).report.epochs


@given(
    st.lists(st.tuples(st.floats(-5, 5), st.floats(0.01, 1.0)), min_size=1, max_size=8),
    st.floats(-6, 6),
)
def test_the_score_is_its_definition(sample, outcome):
    """Mean distance to what came, less half the mean distance of two draws."""
    values = np.array([value for value, _ in sample])
    weights = np.array([weight for _, weight in sample])
    weights /= weights.sum()
    pairs = np.abs(values[:, None] - values) * weights[:, None] * weights
    expected = (weights * np.abs(values - outcome)).sum() - pairs.sum() / 2.0
    found = crps(values[None], weights[None], np.array([outcome]))
    np.testing.assert_allclose(found, [expected], atol=1e-9)
    assert found[0] >= -1e-9


def test_knowing_nothing_has_the_score_of_all_training_outcomes_as_one_sample():
    generator = np.random.default_rng(0)
    known, came = generator.normal(size=300), generator.normal(size=40)
    samples = np.broadcast_to(known, (len(came), len(known)))
    expected = crps(samples, np.full(samples.shape, 1.0 / len(known)), came).mean()
    np.testing.assert_allclose(module._ignorant_loss(known, came), expected, rtol=1e-9)


def test_the_standard_error_is_the_usual_one_where_every_stretch_has_one_bar():
    differences = np.random.default_rng(1).normal(size=50)
    expected = differences.std(ddof=1) / np.sqrt(50)
    np.testing.assert_allclose(standard_error(differences, np.arange(50)), expected)


def test_repeating_every_bar_within_its_stretch_adds_no_evidence():
    differences = np.random.default_rng(1).normal(size=50)
    repeated, stretches = np.repeat(differences, 24), np.repeat(np.arange(50), 24)
    np.testing.assert_allclose(standard_error(repeated, stretches), standard_error(differences, np.arange(50)))


def test_training_refuses_a_shrinkage_that_blows_up_noise():
    with pytest.raises(Exception, match=r"training\.whitening = 1e-09 must be from 0\.001 to 1"):
        TrainingConfig(whitening=1e-9)
