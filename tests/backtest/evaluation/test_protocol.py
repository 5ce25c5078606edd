"""The protocol finds what is there, finds nothing in noise, and shows a leak for what it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace

import numpy as np
import pytest

from backtest.evaluation.baselines import BASELINES, neighbour_forecasts, plain_memory
from backtest.evaluation.controls import LEAK, controls, importance_lifetimes, recall
from backtest.evaluation.folds import Fold
from backtest.evaluation.forecasts import Forecasts, forecasts_of, sized
from backtest.evaluation.panel import Panel
from backtest.evaluation.protocol import ALL, Evaluation, Result, evaluate, leak_sizes, suspicions
from backtest.evaluation.report import goals, to_json
from backtest.evaluation.trading import positions, trade
from strategies.memory_transformer.retrieval import causal_neighbours
from strategies.outcomes import NEVER
from tests.backtest.evaluation.worlds import TRAIN_BARS, noise, one_fold, panel_of, with_other_future

SERIES = noise()
PANEL = panel_of(SERIES)
FOLD = one_fold(PANEL)
FAST = ("flat", "hold", "har", "ridge")


def oracle(panel: Panel, fold: Fold) -> Forecasts:
    """Tomorrow's return in a feature, with noise as large as itself."""
    rows = fold.test
    seen = panel.log_return[rows] + np.random.default_rng(3).normal(size=len(rows)) * panel.log_return[rows].std()
    return forecasts_of(rows, mean=0.5 * seen, exposure=sized(panel, rows, np.sign(seen)))


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    forecasters = {name: BASELINES[name] for name in FAST} | {"oracle": oracle}
    return evaluate(
        PANEL, (FOLD,), forecasters, {"knn": plain_memory}, nested=(("ridge", "har"),), rivals=("har",), fee=0.00055
    )


def whole(evaluation: Evaluation) -> Mapping[str, Result]:
    return {each.forecaster: each for each in evaluation.results if each.symbol == ALL and each.fold == ALL}


def test_in_noise_nobody_knows_a_direction(evaluation):
    for name, result in whole(evaluation).items():
        z = result.scores.skill.statistic
        # Seven shares in a thousand of honest forecasts are beyond 2.6; the constant ones have no coefficient.
        assert np.isnan(z) or abs(z) < 2.6 or name in ("oracle", f"knn: {LEAK}"), (name, z)


def test_in_noise_volatility_is_known_all_the_same(evaluation):
    found = {name: result.scores.figures["volatility_r2"].value for name, result in whole(evaluation).items()}
    assert found["flat"] == pytest.approx(0.0)
    assert found["har"] > 0.1 and found["ridge"] > 0.1 and found["knn"] > 0.05
    assert found["knn: shuffled outcomes"] < found["knn"]


def test_an_oracle_makes_the_score_jump_and_is_suspected(evaluation):
    skill = whole(evaluation)["oracle"].scores.skill
    assert skill.estimate > 0.6 and skill.statistic > 10.0
    (sentence,) = {each.split(" in ")[0] for each in suspicions(evaluation)}
    assert sentence.startswith("oracle has an information coefficient of +0.")


def test_maturity_switched_off_is_shown_as_a_leak_with_its_size(evaluation):
    size, z = leak_sizes(evaluation)["knn"]
    assert size > 0.1 and z > 5.0
    assert to_json(evaluation)["leaks"]["knn"]["information_coefficient"] == size


def test_results_have_every_symbol_every_fold_and_all(evaluation):
    cells = {(each.symbol, each.fold) for each in evaluation.results}
    assert cells == {(symbol, fold) for symbol in ("AUSDT", "BUSDT", ALL) for fold in (FOLD.name, ALL)}
    for each in evaluation.results:
        # An empty memory has no view, and nothing to trade on.
        single = ALL not in (each.symbol, each.fold) and each.forecaster != "knn: memory 0"
        assert (each.trading is not None) == single, each


def test_comparisons_are_made_once_per_pair_and_say_who_is_better(evaluation):
    made = {(each.forecaster, each.rival, each.what): each for each in evaluation.comparisons if each.fold == ALL}
    assert made["flat", "har", "volatility"].outcome.statistic < -2.0
    assert made["ridge", "har", "volatility"].test == "clark_west"
    assert ("har", "har", "volatility") not in made and not any(":" in name for name, _, _ in made)


def test_goals_are_means_over_cells(evaluation):
    cells = [
        {
            each.forecaster: each.scores.figures["volatility_r2"].value
            for each in evaluation.results
            if each.symbol == symbol and each.fold == FOLD.name
        }
        for symbol in ("AUSDT", "BUSDT")
    ]
    expected = np.mean([cell["knn"] - cell["har"] for cell in cells])
    found = goals(evaluation, "knn")
    assert found["vol_r2_minus_har"] == pytest.approx(expected)
    assert found["coverage_80_min"] == found["coverage_80_max"]  # one fold


def test_every_control_but_the_leak_knows_nothing_later():
    cut = TRAIN_BARS + 400
    other = panel_of(with_other_future(SERIES, cut))
    fold = one_fold(other)
    before = np.flatnonzero(PANEL.open_time[FOLD.test] < int(PANEL.open_time[0]) + cut * PANEL.interval_ms)

    def answers(panel: Panel, fold: Fold) -> dict[str, Forecasts]:
        memory = plain_memory(panel, fold)
        recalled = recall(panel, fold, memory)
        return {
            each.name: memory.reader(fold.test, each.recalled) for each in controls(panel, fold, memory, recalled, 5)
        }

    mine, theirs = answers(PANEL, FOLD), answers(other, fold)
    assert set(mine) == set(theirs)
    for name, given in mine.items():
        kept, again = given.take(before), theirs[name].take(before)
        same = all(
            np.array_equal(getattr(kept, field.name), getattr(again, field.name), equal_nan=True)
            for field in fields(kept)
        )
        assert same != (name == LEAK), name


def test_a_memory_of_nothing_answers_nothing_and_one_of_everything_as_the_memory_itself():
    memory = plain_memory(PANEL, FOLD)
    recalled = recall(PANEL, FOLD, memory)
    made = {each.name: each.recalled for each in controls(PANEL, FOLD, memory, recalled, 5)}
    assert not made["memory 0"].mask.any()
    assert np.isnan(neighbour_forecasts(PANEL, FOLD.test, made["memory 0"]).mean).all()
    large = replace(PANEL.rule, capacity=10**6)
    unlimited = replace(PANEL, rule=large)
    np.testing.assert_array_equal(recall(unlimited, FOLD, memory).found, made["memory all"].found)


def test_a_frozen_memory_shows_only_what_it_held_at_the_boundary():
    memory = plain_memory(PANEL, FOLD)
    recalled = recall(PANEL, FOLD, memory)
    made = {each.name: each.recalled for each in controls(PANEL, FOLD, memory, recalled, 5)}
    frozen = made["frozen"].found[made["frozen"].mask]
    assert (PANEL.visible_from[frozen] <= FOLD.boundary).all()
    assert (PANEL.visible_from[recalled.found[recalled.mask]] > FOLD.boundary).any()
    held = np.flatnonzero(PANEL.moments.has_key & (PANEL.moments.close_time <= FOLD.boundary))[-PANEL.rule.capacity :]
    assert np.isin(frozen, held).all()


def test_dealt_outcomes_are_of_the_same_symbol_and_visible():
    memory = plain_memory(PANEL, FOLD)
    recalled = recall(PANEL, FOLD, memory)
    made = {each.name: each.recalled for each in controls(PANEL, FOLD, memory, recalled, 5)}
    dealt = made["shuffled outcomes"]
    np.testing.assert_array_equal(PANEL.symbol[dealt.outcomes], PANEL.symbol[dealt.found])
    asked = PANEL.moments.close_time[FOLD.test][:, None]
    for name in ("shuffled outcomes", "random neighbours", "outcomes shifted -30 d", "outcomes shifted +30 d"):
        each = made[name]
        assert np.where(each.mask, PANEL.visible_from[each.outcomes] <= asked, True).all(), name
    shifted = made["outcomes shifted -30 d"]
    moved = (PANEL.open_time[shifted.found] - PANEL.open_time[shifted.outcomes])[shifted.mask]
    assert shifted.mask.any() and (moved == 30 * 86_400_000).all()


def test_importance_keeps_its_size_and_what_moved_most():
    memory = plain_memory(PANEL, FOLD)
    lifetimes = importance_lifetimes(PANEL, FOLD, memory, 500)
    end = int(PANEL.moments.close_time[FOLD.test[-1]])
    appended = PANEL.moments.has_key & (PANEL.moments.close_time <= end)
    held = appended & (lifetimes.gone > end + 1)
    assert held.sum() == 500
    table = causal_neighbours(memory.keys, PANEL.moments, FOLD.test, PANEL.rule, 4, lifetimes=lifetimes)
    asked = PANEL.moments.close_time[FOLD.test][:, None]
    assert table.mask.any()
    assert np.where(table.mask, lifetimes.gone[table.rows] > asked, True).all()
    assert np.where(table.mask, PANEL.visible_from[table.rows] <= asked, True).all()
    early = held & (PANEL.open_time < FOLD.boundary) & (lifetimes.born < NEVER)
    sizes = np.abs(PANEL.log_return)
    # First in, first out would hold none of them.
    assert early.sum() > 50 and sizes[early].mean() > 1.1 * np.nanmean(sizes[PANEL.open_time < FOLD.boundary])


def test_a_view_is_held_for_its_horizon_and_costs_what_it_changes():
    exposure = np.array([1.0, 1.0, 0.0, 0.0, 0.0])
    np.testing.assert_allclose(positions(exposure, 2), [1.0, 1.0, 0.5, 0.0, 0.0])
    rows = FOLD.test[PANEL.symbol[FOLD.test] == 0]
    hold = forecasts_of(rows, exposure=np.ones(len(rows)))
    free, costly = trade(PANEL, hold, 0.0), trade(PANEL, hold, 0.01)
    assert free is not None and costly is not None
    opened = SERIES["AUSDT"].open
    first = int(np.searchsorted(SERIES["AUSDT"].open_time, PANEL.open_time[rows[0]]))
    assert free.gross_return == pytest.approx(opened[first + len(rows) + 1] / opened[first + 1] - 1.0)
    assert free.net_return == pytest.approx(free.gross_return)
    # One trade in, one out.
    assert costly.turnover == pytest.approx(2.0)
    assert 1.0 + costly.net_return == pytest.approx((1.0 + costly.gross_return) * 0.99**2)
    assert trade(PANEL, forecasts_of(rows), 0.0) is None
