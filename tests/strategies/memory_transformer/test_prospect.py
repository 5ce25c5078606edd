"""Bars to come, cut into blocks."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from memory_store.second_thread import Promise
from strategies.memory_transformer.bar_kernel import EncodedSeries
from strategies.memory_transformer.prospect import Prospect
from tests.strategies.markets import random_walk

BARS = list(random_walk(300, 1).bars())


def expecting(prospect: Prospect, count: int) -> None:
    """Expect so many more bars, each with a state and a key that tell its place."""
    start = len(prospect.bars)
    places = np.arange(start, start + count, dtype=np.float32)[:, None]
    encoded = Promise(lambda: EncodedSeries(places, -places))
    prospect.extend(BARS[start : start + count], encoded, places[:, 0].tolist())


@given(
    first_ordinal=st.integers(0, 200),
    parts=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    size=st.sampled_from([1, 4, 16]),
    ahead=st.integers(0, 40),
    data=st.data(),
)
def test_every_bar_is_in_one_block_with_its_own_state_and_key(first_ordinal, parts, size, ahead, data):
    prospect = Prospect(first_ordinal)
    waiting = list(parts)
    row = 0
    cut = []
    while waiting or row < len(prospect.bars):
        if waiting and (row == len(prospect.bars) or data.draw(st.booleans())):
            expecting(prospect, waiting.pop(0))
            continue
        block = prospect.block(row)
        while (later := prospect.cut(size, row + ahead)) is not None:
            cut += range(later.row, later.end)
            assert later.row <= row + ahead
            assert (first_ordinal + later.row) // size == (first_ordinal + later.end - 1) // size
            block = block or later
        assert block is not None and block.row <= row < block.end
        assert block.encoded.hidden[row - block.row, 0] == row == -block.encoded.keys[row - block.row, 0]
        row += 1
    assert cut == list(range(sum(parts)))


def test_bars_that_nobody_asked_about_are_passed_over():
    prospect = Prospect(0)
    expecting(prospect, 40)
    assert prospect.cut(16, 0).row == 0
    assert prospect.block(20) is None
    assert prospect.cut(16, 20).row == 20
    assert prospect.block(31).end == 32
