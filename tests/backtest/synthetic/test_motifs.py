"""Planted motifs: what can be known about them is known in closed form."""

from __future__ import annotations

import numpy as np
import pytest

from backtest.synthetic.echo import echo_task
from backtest.synthetic.motifs import MotifSettings, motif_task
from backtest.synthetic.optimum import (
    bayes_r2,
    bayes_sign_accuracy,
    best_profit,
    decoy_filter,
    flip_filter,
    normal_mixture_crps,
    posterior_mean,
)
from strategies.outcomes import outcome_matrix


@pytest.mark.parametrize(
    ("ratio", "occurrences", "accuracy", "r2"),
    [
        (1.0, 0, 0.500, 0.0),
        (1.0, 1, 0.733, 0.275),
        (1.0, 2, 0.788, 0.385),
        (1.0, 4, 0.826, 0.466),
        (1.0, 16, 0.841, 0.500),
        (0.5, 1, 0.573, 0.041),
        (0.5, 4, 0.631, 0.110),
        (0.25, 64, 0.594, 0.055),
    ],
)
def test_the_optimum_has_its_known_values(ratio: float, occurrences: int, accuracy: float, r2: float) -> None:
    assert bayes_sign_accuracy(occurrences, ratio, 1.0) == pytest.approx(accuracy, abs=6e-4)
    assert bayes_r2(occurrences, ratio, 1.0) == pytest.approx(r2, abs=1e-3)


def test_the_best_forecast_explains_what_the_closed_form_says() -> None:
    generator = np.random.default_rng(0)
    signs = generator.choice((-1.0, 1.0), size=200_000)
    past = signs[:, None] * 0.7 + generator.standard_normal((len(signs), 3))
    following = signs * 0.7 + generator.standard_normal(len(signs))
    forecast = 0.7 * np.tanh(0.7 * past.sum(axis=1))
    r2 = 1.0 - ((following - forecast) ** 2).sum() / (following**2).sum()
    assert r2 == pytest.approx(bayes_r2(3, 0.7, 1.0), abs=0.005)
    assert posterior_mean(float(past[0].sum()), 0.7, 1.0) == pytest.approx(float(forecast[0]))


def test_without_a_flip_the_filter_is_the_posterior_mean() -> None:
    outcomes = np.random.default_rng(1).normal(0.3, 1.0, size=20)
    means = flip_filter(outcomes, 0.5, 1.0, 0.0)
    sums = np.concatenate(([0.0], np.cumsum(outcomes)[:-1]))
    assert means == pytest.approx([posterior_mean(total, 0.5, 1.0) for total in sums.tolist()], abs=1e-12)


def test_the_filter_knows_only_outcomes_before_its_forecast() -> None:
    outcomes = np.random.default_rng(2).normal(size=30)
    changed = outcomes.copy()
    changed[17:] += 5.0
    assert (flip_filter(outcomes, 0.5, 1.0, 0.1)[:18] == flip_filter(changed, 0.5, 1.0, 0.1)[:18]).all()


def test_where_nothing_is_a_decoy_its_filter_is_the_posterior_mean_and_no_other_forecast_beats_it():
    generator = np.random.default_rng(3)
    outcomes = generator.normal(0.3, 1.0, size=20)
    assert decoy_filter(outcomes, 0.5, 1.0, 0.0) == pytest.approx(flip_filter(outcomes, 0.5, 1.0, 0.0), abs=1e-12)
    leans = generator.choice((-1.0, 1.0, 0.0, 0.0), size=20_000)
    many = leans[:, None] + generator.standard_normal((len(leans), 4))
    forecasts = np.array([decoy_filter(row, 1.0, 1.0, 0.5)[-1] for row in many])
    others = [np.array([decoy_filter(row, 1.0, 1.0, share)[-1] for row in many]) for share in (0.1, 0.9)]
    error = np.square(many[:, -1] - forecasts).mean()
    assert all(error < np.square(many[:, -1] - other).mean() for other in others)


def test_the_score_of_a_mixture_is_that_of_very_many_draws_from_it():
    generator = np.random.default_rng(4)
    means, deviations, weights = np.array([0.0, 1.0]), np.array([1.0, 0.3]), np.array([[0.7, 0.3]])
    state = generator.choice(2, size=4_000, p=weights[0])
    draws = means[state] + deviations[state] * generator.standard_normal(len(state))
    for outcome in (-1.0, 0.4, 3.0):
        spread = np.abs(draws[:, None] - draws).mean()
        expected = np.abs(draws - outcome).mean() - 0.5 * spread
        found = normal_mixture_crps(means, deviations, weights, np.array([outcome]))
        assert found == pytest.approx([expected], abs=0.06)


def test_costs_take_profit_until_nothing_is_worth_trading() -> None:
    free = best_profit(4, 1.0, 1.0, 0.0)
    assert free > best_profit(4, 1.0, 1.0, 0.3) > best_profit(4, 1.0, 1.0, 0.9) > 0.0
    assert best_profit(4, 1.0, 1.0, 1.0) == 0.0
    assert best_profit(0, 1.0, 1.0, 0.0) == 0.0


def test_no_motif_of_the_test_span_occurs_in_training() -> None:
    events = motif_task(3).events
    assert not set(events.motif[events.in_training]) & set(events.motif[~events.in_training])
    assert (np.diff(events.bar) > 0).all()


def test_every_part_of_both_spans_has_motifs_of_its_own() -> None:
    settings = MotifSettings(
        bars=20_000, training_bars=12_000, training_motifs=60, vocabularies=3, test_motifs=40, test_vocabularies=2
    )
    events = motif_task(12, settings).events
    parts = [set(events.motif[events.bar // 4_000 == part].tolist()) for part in range(5)]
    assert [len(part) for part in parts] == [20] * 5
    assert len(set.union(*parts)) == 100


def test_the_planted_outcome_is_the_outcome_that_the_product_measures() -> None:
    task = motif_task(4)
    measured = outcome_matrix(task.series.close, (task.settings.horizon,))[task.events.bar, 0]
    assert measured == pytest.approx(task.events.outcome, abs=1e-12)


def test_what_a_motif_brings_is_its_outcome_less_noise():
    events, settings = (task := motif_task(11)).events, task.settings
    assert np.abs(events.lean) == pytest.approx(np.full(len(events.lean), settings.drift))
    assert (events.outcome - events.lean).std() == pytest.approx(settings.noise, rel=0.05)


def test_the_best_forecast_explains_the_planted_outcomes() -> None:
    task = motif_task(5, MotifSettings(bars=200_000, training_bars=0, test_motifs=500))
    events = task.events
    for matured in (1, 2, 4):
        rows = events.matured == matured
        explained = 1.0 - ((events.outcome - events.best)[rows] ** 2).sum() / (events.outcome[rows] ** 2).sum()
        assert explained == pytest.approx(bayes_r2(matured, 1.0, 1.0), abs=0.12)
    assert (events.best[events.matured == 0] == 0.0).all()


def test_decoys_lean_nowhere_and_look_like_another_motif() -> None:
    task = motif_task(6, MotifSettings(bars=120_000, training_bars=60_000, decoys=0.5))
    events = task.events
    decoys = events.outcome[~events.informative]
    assert 0.4 < (~events.informative).mean() < 0.6
    assert abs(decoys.mean()) < 4.0 * task.settings.noise / np.sqrt(len(decoys))
    assert decoys.std() == pytest.approx(task.settings.noise, rel=0.1)
    assert (events.best[~events.informative] == 0.0).all()


def test_hostile_motifs_mean_the_opposite_of_what_they_resemble() -> None:
    task = motif_task(
        9, MotifSettings(bars=80_000, training_bars=20_000, test_motifs=30, hostile_motifs=10, strength=2.0)
    )
    events, settings = task.events, task.settings
    first = settings.training_motifs + settings.test_motifs
    assert set(events.motif[events.hostile].tolist()) == set(range(first, first + 10))
    assert events.bar[events.hostile].min() > settings.bars - (settings.bars - settings.training_bars) // 4 - 20
    for hostile in range(first, first + 10):
        older = settings.training_motifs + hostile - first
        means = [events.outcome[events.motif == motif].mean() for motif in (hostile, older)]
        assert means[0] * means[1] < 0.0


def test_an_echo_may_be_known_from_earlier_motifs_and_would_be_known_better_from_the_same_one() -> None:
    task = echo_task(10, MotifSettings(bars=60_000, training_bars=0, test_motifs=60))
    assert outcome_matrix(task.follower.close, (8,))[task.bar, 0] == pytest.approx(task.outcome, abs=1e-12)
    legal = np.corrcoef(task.best, task.outcome)[0, 1]
    leaked = np.corrcoef(task.leak, task.outcome)[0, 1]
    assert 0.4 < legal < leaked - 0.2
    with pytest.raises(ValueError, match="below the horizon 8"):
        echo_task(10, delay=8)


def test_bars_are_sound_and_follow_from_the_seed() -> None:
    one, two, other = motif_task(7).series, motif_task(7).series, motif_task(8).series
    assert one.digest() == two.digest() != other.digest()
    assert (one.high >= np.maximum(one.open, one.close)).all()
    assert (one.low <= np.minimum(one.open, one.close)).all()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"strength": -1.0}, "strength is -1.0"),
        ({"bars": 30_010}, "a motif needs 20"),
        ({"decoys": 1.0}, "decoys is 1.0"),
        ({"test_vocabularies": 41}, "test_vocabularies is 41"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(changes: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        MotifSettings(**changes)  # type: ignore[arg-type]
