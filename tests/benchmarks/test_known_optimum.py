"""Tasks of known optimum, small: the memory comes near what can be known, and what spoils it shows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from backtest.synthetic.motifs import motif_task
from backtest.synthetic.regimes import RegimeSettings, regime_task
from benchmarks.known_optimum import (
    decoy_share,
    drift_shares,
    echo_shares,
    novelty_losses,
    profit_share,
    regime_shares,
    settings,
    volatility_keys,
)

FEW = {"bars": 12_000, "training_bars": 6_000, "training_motifs": 15, "test_motifs": 15}


def test_a_memory_that_forgets_follows_signs_that_flip_and_one_that_does_not_falls_behind():
    share, undecayed = drift_shares(motif_task(0, replace(settings(flip_hazard=0.05), **FEW)))
    assert 0.7 < share < 1.1
    assert undecayed < share - 0.1


def test_the_keys_of_the_regimes_use_no_later_return():
    returns = np.random.default_rng(0).normal(size=600) * 0.01
    changed = returns.copy()
    changed[400:] *= 9.0
    assert (volatility_keys(returns, known=300)[:400] == volatility_keys(changed, known=300)[:400]).all()


def test_a_memory_knows_a_regime_that_comes_back_and_a_sliding_window_has_to_learn_it():
    law = RegimeSettings(dwell=800, absent_from=8_000, absent_until=16_000)
    remembering, _, window = regime_shares(regime_task(1, 16_502, law), law)
    assert 0.97 < remembering < window


@pytest.mark.slow
def test_every_task_comes_near_its_optimum():
    assert 0.95 <= drift_shares(motif_task(1, settings(flip_hazard=0.05)))[0] < 1.05
    assert 0.8 <= decoy_share(motif_task(1, settings(decoys=0.5, jitter=0.05))) < 1.05
    guarded, unguarded, share = novelty_losses(motif_task(1, settings(hostile_motifs=75, resemblance=0.9)))
    assert abs(guarded) < 0.1 < unguarded
    assert 0.95 <= share < 1.05
    together, alone = echo_shares(1)
    assert together > 0.85
    assert alone < together + 0.05
    assert 0.9 <= profit_share(motif_task(1, settings())) < 1.1
