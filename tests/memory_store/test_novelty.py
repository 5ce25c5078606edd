"""Novelty: how unlike the past a moment is, and a scale made of what the past did not know either."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory_store import BankConfig, MemoryBank, MemoryBankError, Metric
from memory_store.novelty import NoveltyScale, calibrate, evenly_spaced, novelty_of

HOUR = 3_600_000


def filled_bank(count: int, *, seed: int = 0, capacity: int = 500, later: float = 0.0) -> MemoryBank:
    """A bank of one symbol, hourly, each moment settled an hour after it closed; ``later`` moves the last half of keys."""
    config = BankConfig(
        capacity=capacity, dimension=4, horizons=(1,), primary=0, embargo_ms=2 * HOUR, metric=Metric.COSINE
    )
    bank = MemoryBank(config, encoder_version="test")
    generator = np.random.default_rng(seed)
    for number in range(count):
        if number >= 1:
            bank.settle(number - 1, 0, 0.01, (number + 1) * HOUR)
        key = generator.normal(size=4)
        key[0] += later if number >= count // 2 else 0.0
        bank.append(key, symbol="AAAUSDT", bar_time=number * HOUR)
    return bank


def test_a_moment_seen_before_is_not_novel_and_nothing_found_is():
    bank = filled_bank(20)
    assert novelty_of(bank.search(bank.entry(5).key, as_of=100 * HOUR, k=3)) == pytest.approx(0.0, abs=1e-6)
    assert novelty_of(bank.search(bank.entry(5).key, as_of=0, k=3)) == 1.0
    assert all(novelty_of(bank.search(entry.key, as_of=100 * HOUR, k=3)) >= 0.0 for entry in bank.entries())


@given(values=st.lists(st.floats(0.0, 2.0), min_size=1, max_size=50), novelty=st.floats(-1.0, 3.0))
def test_the_percentile_is_the_share_of_less_novel_moments_and_half_the_equal_ones(values, novelty):
    less = sum(value < novelty for value in values)
    equal = sum(value == novelty for value in values)
    assert NoveltyScale(np.array(values)).percentile(novelty) == pytest.approx((less + equal / 2) / len(values))


@given(values=st.lists(st.floats(0.0, 2.0), min_size=1, max_size=50), a=st.floats(0.0, 2.0), b=st.floats(0.0, 2.0))
def test_more_novelty_is_never_a_lower_percentile(values, a, b):
    scale = NoveltyScale(np.array(values))
    low, high = sorted((a, b))
    assert 0.0 <= scale.percentile(low) <= scale.percentile(high) <= 1.0


@pytest.mark.parametrize("values", [[], [0.1, float("nan")]])
def test_a_scale_without_numbers_is_refused(values):
    with pytest.raises(MemoryBankError, match="one or more numbers"):
        NoveltyScale(np.array(values))


@given(count=st.integers(0, 300), sample=st.integers(1, 400))
def test_a_sample_is_spread_over_everything_and_holds_the_last(count, sample):
    places = evenly_spaced(count, sample).tolist()
    assert len(places) == min(count, sample)
    assert places == sorted(set(places))
    if places:
        assert places[-1] == count - 1
        gaps = np.diff([-1, *places])
        assert gaps.max() - gaps.min() <= 1


def test_past_moments_are_asked_as_of_their_own_time():
    """Against a bank that was stopped there: nobody knows a later moment."""
    bank = filled_bank(60)
    expected = []
    for number in range(30, 60):
        then = filled_bank(number)
        then.settle(number - 1, 0, 0.01, (number + 1) * HOUR)
        answer = then.search(bank.entry(number).key, as_of=(number + 1) * HOUR, k=1)
        expected.append(novelty_of(answer))
    scale = calibrate(bank, as_of=1_000 * HOUR, sample=1_000, span_ms=HOUR)
    np.testing.assert_array_equal(scale.values, np.sort(expected))


def test_the_scale_of_a_past_time_does_not_know_later_moments():
    alike, unlike = filled_bank(60), filled_bank(60, later=50.0)
    early = calibrate(alike, as_of=30 * HOUR, span_ms=HOUR)
    np.testing.assert_array_equal(early.values, calibrate(unlike, as_of=30 * HOUR, span_ms=HOUR).values)
    late = calibrate(alike, as_of=60 * HOUR, span_ms=HOUR)
    assert not np.array_equal(late.values, calibrate(unlike, as_of=60 * HOUR, span_ms=HOUR).values)


def test_calibration_is_the_same_every_time_and_asks_no_more_than_the_sample():
    bank = filled_bank(200)
    first, second = (calibrate(bank, as_of=500 * HOUR, sample=32, span_ms=HOUR) for _ in range(2))
    assert len(first.values) == 32
    assert first.values.tobytes() == second.values.tobytes()


def test_what_is_unlike_everything_lies_at_the_top_of_the_scale():
    config = BankConfig(capacity=500, dimension=4, horizons=(1,), primary=0, embargo_ms=0, metric=Metric.COSINE)
    bank = MemoryBank(config, encoder_version="test")
    generator = np.random.default_rng(3)
    for number in range(300):
        key = np.array([5.0, 0.0, 0.0, 0.0]) + generator.normal(size=4)
        bank.append(key, symbol="AAAUSDT", bar_time=number * HOUR)
        bank.settle(number, 0, 0.0, (number + 2) * HOUR)
    scale = calibrate(bank, as_of=301 * HOUR, span_ms=HOUR)
    strange = bank.search([-1.0, 0.0, 0.0, 0.0], as_of=301 * HOUR, k=8)
    usual = bank.search([5.0, 0.1, 0.1, 0.1], as_of=301 * HOUR, k=8)
    assert scale.percentile(novelty_of(strange)) == 1.0
    assert scale.percentile(novelty_of(usual)) < 0.9


def test_without_a_past_there_is_no_scale():
    with pytest.raises(MemoryBankError, match="remember more moments first"):
        calibrate(filled_bank(1), as_of=1_000 * HOUR)
    with pytest.raises(MemoryBankError, match="sample is 0; ask at least 1 past moment"):
        calibrate(filled_bank(10), as_of=1_000 * HOUR, sample=0)
