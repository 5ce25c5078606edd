"""Bars to come, cut into blocks and stretches."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from memory_store.helper import Promise
from strategies.memory_transformer.bar_kernel import EncodedSeries
from strategies.memory_transformer.prospect import Findings, Prospect
from tests.strategies.markets import random_walk

BARS = list(random_walk(300, 1).bars())
NOTHING = Findings(0, None, None)


def expecting(prospect: Prospect, count: int) -> None:
    """Expect so many more bars, each with a state and a key that tell its place."""
    start = len(prospect.bars)
    places = np.arange(start, start + count, dtype=np.float32)[:, None]
    prospect.extend(BARS[start : start + count], EncodedSeries(places, -places), places[:, 0].tolist())


@given(
    first_ordinal=st.integers(0, 200),
    parts=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    size=st.sampled_from([1, 4, 16]),
    stretches=st.integers(1, 8),
    data=st.data(),
)
def test_every_bar_is_in_one_stretch_of_one_block_with_its_own_state_and_key(
    first_ordinal, parts, size, stretches, data
):
    prospect = Prospect(first_ordinal)
    nobody = Promise(None, 0)  # who is never asked for it
    waiting = list(parts)
    done, asked = [], []
    while waiting or len(done) < len(prospect.bars):
        way = data.draw(st.sampled_from(["extend", "block", "stretch"]))
        if waiting and (way == "extend" or len(done) == len(prospect.bars)):
            expecting(prospect, waiting.pop(0))
            continue
        stretch = prospect.cut(size)
        if way == "block" or stretch is None:
            block = prospect.cut_block(size * stretches, 0, len(prospect.bars))
            if block is not None:
                asked += (-block.queries[:, 0]).astype(int).tolist()
                prospect.propose(block, nobody)
            continue
        assert stretch.block[1] <= stretch.row
        ordinal = first_ordinal + stretch.row
        assert ordinal // size == (ordinal + len(stretch.opened) - 1) // size
        rows = list(range(stretch.row, stretch.end))
        assert stretch.encoded.hidden[:, 0].tolist() == rows == stretch.volatility
        assert stretch.opened == [BARS[row].open_time for row in rows]
        done += rows
        prospect.assign(stretch, NOTHING)
    assert done == list(range(sum(parts)))
    assert asked == done
