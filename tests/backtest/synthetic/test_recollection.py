"""What a memory knows of planted patterns is what was to be known, and the read-out makes the most of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from backtest.synthetic.motifs import MotifSettings, motif_task
from backtest.synthetic.recollection import (
    RecallSettings,
    Recollections,
    SignReadout,
    fit_readout,
    recollect,
)

SMALL = MotifSettings(bars=4_000, training_bars=2_000, training_motifs=8, test_motifs=8, length=12)
KNOWN = RecallSettings(SMALL.length, SMALL.horizon, SMALL.volatility)


def recalled_of(outcomes: np.ndarray) -> Recollections:
    """One pattern, asked again after each of its outcomes."""
    count = len(outcomes)
    before = np.tri(count, k=-1, dtype=np.bool_)
    distance = np.where(before, 0.0, np.inf)
    return Recollections(distance, np.where(before, outcomes, 0.0), np.tile(np.arange(count), (count, 1)))


def test_a_memory_recalls_the_outcomes_of_earlier_occurrences_and_nothing_of_a_first_sight():
    task = motif_task(1, SMALL)
    events = task.events
    recalled = recollect({"M": task.series}, "M", events.bar, KNOWN)
    near = recalled.distance < 2.0
    for place in range(len(events.bar)):
        own = np.flatnonzero(events.motif[:place] == events.motif[place])
        told = np.sort(recalled.outcome[place, near[place]])
        assert told == pytest.approx(np.sort(events.outcome[own]), abs=1e-9)


def test_no_recollection_knows_a_bar_after_the_one_that_asks():
    task = motif_task(2, SMALL)
    cut = int(task.events.bar[120])
    other = replace(task.series, close=task.series.close.copy())
    other.close[cut + 1 :] *= np.linspace(1.5, 3.0, len(other.close) - cut - 1)
    asked = task.events.bar[:121]
    one, two = (recollect({"M": series}, "M", asked, KNOWN) for series in (task.series, other))
    assert np.array_equal(one.distance, two.distance)
    assert np.array_equal(one.outcome, two.outcome)


def test_the_read_out_is_the_exact_filter_where_the_pattern_is_certain():
    from backtest.synthetic.optimum import decoy_filter, flip_filter

    outcomes = np.random.default_rng(3).normal(0.4, 1.0, size=25)
    flips = SignReadout(0.7, 0.7, 1.0, 0.1, 1.0).forecast(recalled_of(outcomes))
    assert flips == pytest.approx(flip_filter(outcomes, 0.7, 1.0, 0.1), abs=1e-9)
    decoys = SignReadout(0.7, 0.7, 1.0, 0.0, 1.0, decoys=0.4).forecast(recalled_of(outcomes))
    assert decoys == pytest.approx(decoy_filter(outcomes, 0.7, 1.0, 0.4), abs=1e-9)


def test_what_is_far_away_is_not_believed_and_nothing_remembered_is_no_opinion():
    outcomes = np.full(6, 2.0)
    recalled = recalled_of(outcomes)
    far = replace(recalled, distance=recalled.distance + 20.0)
    assert SignReadout(1.0, 1.0, 1.0, 0.0, 1.0).belief(far) == pytest.approx(np.zeros(6), abs=1e-9)
    assert SignReadout(1.0, 1.0, 1.0, 0.0, 1.0).belief(recalled)[0] == 0.0


def test_fitting_finds_how_often_signs_flip():
    generator = np.random.default_rng(4)
    signs = np.cumprod(np.where(generator.random(400) < 0.1, -1.0, 1.0))
    outcomes = signs + generator.standard_normal(400)
    window = 16
    rows = np.arange(400)[:, None] - np.arange(window, 0, -1)
    seen = rows >= 0
    recalled = Recollections(np.where(seen, 0.0, np.inf), np.where(seen, outcomes[rows], 0.0), rows)
    readout = fit_readout(recalled, outcomes)
    assert 0.05 <= readout.hazard <= 0.2
    steady = replace(readout, hazard=0.0).forecast(recalled)
    assert np.square(outcomes - readout.forecast(recalled)).sum() < np.square(outcomes - steady).sum()
