"""What the memory was worth: its advice held against what followed."""

from __future__ import annotations

from math import log

import numpy as np
import pytest

from backtest.report.recollection import followed_by, recollect, telling_moments
from backtest.report.verdict import verdict_of
from bot.journal.outlooks import OutlookRecorder, Outlooks
from strategies.bars import HOUR_MS, BarSeries, Calendar
from strategies.base import Explanation, Neighbour, Signal
from tests.backtest.report.scenes import judged
from tests.bot.scenes import START, A, B, walk

HORIZON = 4


def outlooks_of(series: BarSeries, prediction: np.ndarray, memory: np.ndarray, symbol: str = A) -> Outlooks:
    recorder = OutlookRecorder(HORIZON)
    for at, (model, mean) in enumerate(zip(prediction, memory, strict=True)):
        neighbour = Neighbour(at, symbol, START - HOUR_MS, 0.9, 1.0, float(mean))
        seen = Explanation(
            prediction=float(model), memory_mean=float(mean), gate=0.1, novelty=0.2, neighbours=(neighbour,)
        )
        recorder.add(Signal(symbol, int(series.open_time[at]), float(np.sign(model)), explanation=seen))
    return recorder.outlooks()


def moves(series: BarSeries) -> np.ndarray:
    return np.log(series.close[HORIZON:] / series.close[:-HORIZON])


def test_what_followed_is_the_log_return_over_the_horizon_and_unknown_at_the_end() -> None:
    series = walk(30, 1)
    found = followed_by(outlooks_of(series, np.ones(30), np.ones(30)), {A: series})
    assert found[:-HORIZON] == pytest.approx(moves(series))
    assert np.isnan(found[-HORIZON:]).all()
    assert found[3] == pytest.approx(log(series.close[7] / series.close[3]))


def test_a_bar_that_is_not_stored_has_no_outcome() -> None:
    series = walk(30, 1)
    found = followed_by(outlooks_of(series, np.ones(30), np.ones(30)), {A: series.slice(10, 30)})
    assert np.isnan(found[:10]).all() and np.isfinite(found[10:-HORIZON]).all()
    assert np.isnan(followed_by(outlooks_of(series, np.ones(30), np.ones(30)), {})).all()


def test_a_memory_that_knows_and_a_model_that_errs_are_told_apart() -> None:
    series = walk(600, 2)
    truth = np.concatenate([moves(series), np.ones(HORIZON)])
    found = recollect(outlooks_of(series, -truth, truth), {A: series})
    assert found.agreed.count == 0
    assert (found.disagreed.memory_share, found.disagreed.model_share) == (1.0, 0.0)
    assert found.disagreed.count == np.count_nonzero(truth[:-HORIZON])
    assert found.correlation == pytest.approx(1.0)
    assert found.came == pytest.approx(found.said)
    assert any("the memory knew better" in each for each in verdict_of(judged(99, 0.0), 9, found).grounds)


def test_a_memory_of_noise_is_said_to_be_no_better_than_a_coin() -> None:
    random, series = np.random.default_rng(5), walk(3000, 3)
    found = recollect(outlooks_of(series, random.normal(size=3000), random.normal(size=3000)), {A: series})
    assert abs(found.correlation) < 3.0 * found.correlation_error
    text = " ".join(verdict_of(judged(99, 0.0), 9, found).grounds)
    assert "neither was better than a coin" in text and "cannot be told from none" in text


def test_what_several_runs_remembered_is_joined_under_one_numbering() -> None:
    one, other = walk(40, 2), walk(50, 3, B)
    parts = [outlooks_of(one, np.ones(40), np.ones(40)), outlooks_of(other, -np.ones(50), np.ones(50), B)]
    joined = Outlooks.joined(parts)
    assert joined.symbols == (A, B) and len(joined) == 90 and joined.horizon_bars == HORIZON
    assert [joined.symbols[number] for number in joined.symbol] == [A] * 40 + [B] * 50
    assert np.array_equal(joined.prediction, np.concatenate([part.prediction for part in parts]), equal_nan=True)
    for part, rows in zip(parts, (joined.neighbour_symbol[:40], joined.neighbour_symbol[40:]), strict=True):
        named = [[joined.symbols[at] if at >= 0 else "" for at in row] for row in rows]
        assert named == [[part.symbols[at] if at >= 0 else "" for at in row] for row in part.neighbour_symbol]


def test_errors_count_overlapping_outcomes_once() -> None:
    series = walk(1000, 2)
    found = recollect(outlooks_of(series, np.ones(1000), np.ones(1000)), {A: series})
    assert found.agreed.independent == pytest.approx(found.agreed.count / HORIZON)
    assert found.agreed.standard_error == pytest.approx(0.5 / np.sqrt(found.agreed.count / HORIZON))
    # A memory that always says the same has no correlation with anything.
    assert found.correlation is None


def test_moments_that_are_shown_come_from_the_whole_run_and_recalled_something() -> None:
    series = walk(400, 2)
    found = recollect(outlooks_of(series, np.ones(400), np.ones(400)), {A: series})
    rows = telling_moments(found, 8)
    assert len(rows) == 8 and np.all(np.diff(rows) > 0)
    assert rows[0] < 60 and rows[-1] > 330
    nobody = recollect(OutlookRecorder(HORIZON).outlooks(), {A: BarSeries.empty(A, "60", Calendar.CONTINUOUS)})
    assert len(telling_moments(nobody)) == 0
