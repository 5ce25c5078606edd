"""The banks that the benchmarks ask are banks as they stand in the middle of a run."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.banks import RunningBank, recall
from benchmarks.keys import HOUR_MS, KeyStream
from memory_store.records import IndexKind


def stream(count: int = 400, symbols: int = 3) -> KeyStream:
    keys = np.random.default_rng(7).standard_normal((count, 8)).astype(np.float32)
    times = [place // symbols * HOUR_MS for place in range(count)]
    return KeyStream(keys, [f"S{place % symbols}" for place in range(count)], times, "random keys")


@pytest.mark.parametrize(("capacity", "written"), [(300, 120), (300, 300), (200, 310)])
def test_a_bank_made_in_bulk_is_the_one_that_was_written_moment_by_moment(capacity: int, written: int) -> None:
    one, other = RunningBank(stream(), capacity), RunningBank.filled(stream(), capacity, written)
    one.advance_to(written)
    assert one.bank.digest() == other.bank.digest()
    assert one.now == other.now
    for bank in (one, other):
        bank.advance_to(written + 50)
    assert one.bank.digest() == other.bank.digest()
    assert one.ask(399).ids.tolist() == other.ask(399).ids.tolist()


def test_recall_is_the_share_of_true_neighbours_found() -> None:
    banks = [RunningBank.filled(stream(), 300, written, IndexKind.EXACT) for written in (300, 250)]
    full, part = ([bank.ask(place) for place in range(310, 320)] for bank in banks)
    assert recall(full, full) == 1.0
    assert 0.3 < recall(part, full) < 1.0
