"""Forecasts that are held over their horizon."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies.memory_transformer.overlap import OverlappingTargets

EXPOSURES = st.lists(st.floats(-1.0, 1.0), min_size=1, max_size=60)


def test_a_forecast_has_its_share_for_as_many_bars_as_it_is_held_and_none_after() -> None:
    targets = OverlappingTargets(4)
    held = [targets.target("A", wanted) for wanted in (0.8, 0.0, 0.0, 0.0, 0.0)]
    assert held == [0.2, 0.2, 0.2, 0.2, 0.0]


@given(EXPOSURES)
def test_held_for_one_bar_each_forecast_is_followed_alone(wanted: list[float]) -> None:
    targets = OverlappingTargets(1)
    assert [targets.target("A", each) for each in wanted] == wanted


@given(EXPOSURES, st.integers(2, 30))
def test_a_bar_changes_a_target_by_at_most_one_share_of_a_turn(wanted: list[float], bars: int) -> None:
    targets = OverlappingTargets(bars)
    held = [0.0, *(targets.target("A", each) for each in wanted)]
    assert all(abs(after - before) <= 2.0 / bars + 1e-12 for before, after in pairwise(held))
    assert max(map(abs, held)) <= max(map(abs, wanted)) + 1e-12


@given(EXPOSURES, EXPOSURES, st.integers(1, 30))
def test_a_restored_one_goes_on_to_the_last_bit(before: list[float], after: list[float], bars: int) -> None:
    whole, first, second = (OverlappingTargets(bars) for _ in range(3))
    for each in before:
        whole.target("A", each)
        first.target("A", each)
    second.restore(msgspec.msgpack.decode(msgspec.msgpack.encode(first.state()), type=dict[str, list[float]]))
    assert [second.target("A", each) for each in after] == [whole.target("A", each) for each in after]


def test_symbols_do_not_touch_each_other() -> None:
    targets = OverlappingTargets(2)
    targets.target("A", 1.0)
    assert targets.target("B", -1.0) == pytest.approx(-0.5)
    assert targets.target("A", 1.0) == 1.0
