"""Neighbours that are made when somebody looks: no other than those made at once."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies.base import Explanation, Neighbour, Signal
from strategies.neighbours import Columns, Neighbours, heaviest_of, ids_of, outlines_of_rows


def columns(k: int) -> Columns:
    """What is known of so many neighbours."""
    numbers = np.arange(k)
    return Columns(
        tuple(f"S{number}" for number in range(k)),
        numbers * 60_000,
        1.0 / (1.0 + numbers),
        numbers - 1.5,
        numbers % 6,
        None,
    )


def at_once(weights: list[float]) -> tuple[Neighbour, ...]:
    """The neighbours with these shares of the vote."""
    symbols, times, similarities, outcomes, regimes, _ = columns(len(weights))
    return tuple(
        Neighbour(
            10 + place,
            symbols[place],
            int(times[place]),
            float(similarities[place]),
            weight,
            float(outcomes[place]),
            int(regimes[place]),
        )
        for place, weight in enumerate(weights)
        if weight
    )


@given(st.lists(st.sampled_from([0.0, 0.125, 0.25, 0.5]), max_size=8), st.integers(0, 4))
def test_neighbours_made_late_are_those_made_at_once(weights: list[float], count: int):
    ids = list(range(10, 10 + len(weights)))
    late = Neighbours(ids, weights, lambda: columns(len(weights)))
    expected = at_once(weights)
    assert ids_of(late) == ids_of(expected) and len(late) == len(expected)
    assert list(heaviest_of(late, count)) == list(heaviest_of(expected, count))
    assert late == expected and tuple(late) == expected and late[:2] == expected[:2]


@given(
    st.lists(st.lists(st.sampled_from([0.0, 0.125, 0.25, 0.5]), min_size=5, max_size=5), min_size=1, max_size=4),
    st.integers(0, 6),
)
def test_the_heaviest_of_many_bars_are_those_of_each(rows: list[list[float]], count: int):
    symbols, times, similarities, outcomes, _, _ = columns(5)
    around = [np.tile(np.array(column), (len(rows), 1)) for column in (symbols, times, similarities, outcomes)]
    found = outlines_of_rows(*around[:3], np.array(rows), around[3], count)
    assert found == [heaviest_of(at_once(weights), count) for weights in rows]
    late = Neighbours(list(range(10, 15)), rows[0], lambda: columns(5))
    assert late.heaviest(count) == found[0]


def test_nobody_makes_neighbours_to_know_who_and_how_many_they_are():
    def refuse() -> Columns:
        raise AssertionError("somebody looked")

    late = Neighbours([4, 7, 9], [0.5, 0.0, 0.5], refuse)
    assert late and len(late) == 2 and list(ids_of(late)) == [4, 9]


def test_a_signal_is_kept_with_its_neighbours_made():
    late = Neighbours([10, 11], [0.25, 0.75], lambda: columns(2))
    signal = Signal("BTCUSDT", 1, 0.4, explanation=Explanation(neighbours=late, independent=1.0))
    with pytest.raises(TypeError):
        msgspec.json.encode(signal)
    made = Explanation(neighbours=at_once([0.25, 0.75]), independent=1.0)
    assert msgspec.json.encode(signal.made) == msgspec.json.encode(Signal("BTCUSDT", 1, 0.4, explanation=made))
    assert signal.made.made is not signal and type(signal.made.explanation.neighbours) is tuple
