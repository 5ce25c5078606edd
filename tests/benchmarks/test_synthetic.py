"""The tasks of known optimum, small: what a memory holds it finds, and a model of noise finds nothing."""

from __future__ import annotations

import math

from backtest.synthetic.needle import needle_task
from benchmarks.synthetic import needles_found, noise_z
from memory_store.records import Eviction


def test_every_needle_is_found_while_it_is_held():
    task = needle_task(1, moments=3_000, delays=(100, 900), per_delay=5)
    assert needles_found(task, 2_000, Eviction.FIFO) == 1.0


def test_beyond_the_capacity_importance_keeps_what_first_in_first_out_cannot():
    task = needle_task(1, moments=3_000, delays=(1_000, 1_500), per_delay=5)
    assert needles_found(task, 500, Eviction.FIFO) == 0.0
    assert needles_found(task, 500, Eviction.IMPORTANCE) >= 0.9


def test_a_model_of_noise_is_scored_on_later_bars_and_not_far_from_nothing():
    z = noise_z(5, bars=2_400)
    assert math.isfinite(z)
    assert abs(z) < 4.0
