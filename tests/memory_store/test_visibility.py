"""The mask of what may be seen, kept up to date."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memory_store.visibility import Visibility, bitmap_of

NEVER = np.iinfo(np.int64).max
SLOTS = 37
slots = st.integers(0, SLOTS - 1)
times = st.integers(-50, 50)
steps = st.one_of(
    st.tuples(st.just("write"), slots, st.just(0)),
    st.tuples(st.just("settle"), slots, times),
    st.tuples(st.just("ask"), st.just(0), times),
    st.tuples(st.just("stay"), st.just(0), times),
)


def nothing() -> Visibility:
    return Visibility(np.full(SLOTS, NEVER, dtype=np.int64))


def assert_shows(visibility: Visibility, visible_from: list[int], as_of: int) -> None:
    expected = [time > as_of for time in visible_from]
    assert visibility.hidden(as_of).tolist() == expected
    bits = np.unpackbits(visibility.bitmap(as_of), bitorder="little")
    assert bits.tolist() == [not hidden for hidden in expected] + [0] * (len(bits) - SLOTS)
    assert visibility.count(as_of) == expected.count(False)


@settings(max_examples=300, deadline=None)
@given(st.lists(steps, max_size=60), st.lists(times | st.just(NEVER), min_size=SLOTS, max_size=SLOTS))
def test_it_shows_what_is_visible_at_any_time_in_any_order(happenings, start):
    """Writes, settlements and questions as they come, forwards and back in time, from any beginning."""
    plain = list(start)
    visibility = Visibility(np.array(start, dtype=np.int64))
    for kind, slot, time in happenings:
        if kind == "write":
            plain[slot] = NEVER
            visibility.write(slot)
        elif kind == "settle":
            plain[slot] = time
            visibility.settle(slot, time)
        else:
            for _ in range(1 if kind == "ask" else 12):
                assert_shows(visibility, plain, time)
    assert visibility.visible_from.tolist() == plain
    assert_shows(visibility, plain, 50)


def test_an_outcome_that_comes_late_is_visible_at_once():
    visibility = nothing()
    assert visibility.count(100) == 0
    visibility.settle(3, 40)
    assert np.flatnonzero(~visibility.hidden(100)).tolist() == [3]


def test_a_slot_written_anew_before_its_time_came_stays_hidden():
    visibility = nothing()
    visibility.hidden(0)
    visibility.settle(3, 40)
    visibility.write(3)
    assert visibility.count(40) == 0


def test_looking_back_disturbs_nothing():
    visibility = nothing()
    for slot in range(10):
        visibility.settle(slot, slot)
    now = visibility.bitmap(8)
    assert visibility.count(2) == 3
    assert visibility.bitmap(2).tobytes() == bitmap_of(visibility.hidden(2)).tobytes()
    assert visibility.bitmap(8) is now
    assert visibility.count(8) == 9


def test_it_recovers_from_one_question_about_the_far_future():
    """Whoever goes on at earlier times is answered from the same array again, not from scratch every time."""
    visibility = nothing()
    for slot in range(20):
        visibility.settle(slot, 10 * slot)
    kept = visibility.bitmap(5)
    assert visibility.count(10**6) == 20
    arrays = [visibility.bitmap(now) for now in range(6, 106)]
    assert arrays[0] is not kept
    assert all(array is kept for array in arrays[-50:])
    plain = [10 * slot for slot in range(20)] + [NEVER] * (SLOTS - 20)
    for now in range(106, 230):
        if now == 150:
            visibility.write(0)
            plain[0] = NEVER
        assert_shows(visibility, plain, now)
        assert visibility.bitmap(now) is kept


def test_a_look_back_now_and_then_does_not_take_the_mask_along():
    visibility = nothing()
    visibility.settle(3, 40)
    kept = visibility.bitmap(50)
    for now in range(51, 151):
        assert visibility.bitmap(10) is not kept
        assert visibility.bitmap(now) is kept


@pytest.mark.parametrize("slots", [100, 2047, 2048, 2049, 5000])
def test_a_great_step_forward_shows_all_that_it_should(slots):
    visibility = Visibility(np.full(slots + 1, NEVER, dtype=np.int64))
    kept = visibility.bitmap(0)
    for slot in range(slots):
        visibility.settle(slot, 1 + slot % 7)
    assert visibility.count(5) == sum(slot % 7 < 5 for slot in range(slots))
    assert visibility.hidden(5).tolist() == [slot % 7 >= 5 for slot in range(slots)] + [True]
    assert visibility.count(7) == slots
    assert visibility.bitmap(7) is kept


def test_nobody_else_can_change_what_is_shown():
    visibility = nothing()
    with pytest.raises(ValueError, match="read-only"):
        visibility.hidden(0)[0] = False
    with pytest.raises(ValueError, match="read-only"):
        visibility.bitmap(0)[0] = 1
