"""Comparing banks: every field that differs, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from memory_store import MemoryBank
from memory_store.check import BankDifference, compare_banks
from memory_store.records import Eviction
from memory_store.restoration import BankState
from memory_store.ring import NEVER
from tests.memory_store.lives import Life, config_of


def lived(seed: int = 0, *, bars: int = 40, eviction: Eviction = Eviction.IMPORTANCE) -> MemoryBank:
    life = Life(MemoryBank(config_of(eviction), encoder_version="v1"), seed)
    life.live(bars)
    return life.bank


def restored(bank: MemoryBank, **changes: object) -> MemoryBank:
    """A copy of a bank with other columns."""
    copy = MemoryBank(bank.config, encoder_version=bank.encoder_version)
    copy.restore_state(replace(bank.state(), **changes))
    return copy


def changed(state: BankState, name: str, place: int | tuple[int, int], value: object) -> dict[str, np.ndarray]:
    column = getattr(state, name).copy()
    column[place] = value
    return {name: column}


def test_equal_banks_have_no_difference_and_one_digest():
    bank = lived()
    assert list(compare_banks(bank, bank)) == []
    assert list(compare_banks(bank, lived())) == []
    assert list(compare_banks(bank, restored(bank))) == []


def test_banks_with_different_digests_have_a_difference():
    assert lived().digest() != lived(1).digest()
    assert len(list(compare_banks(lived(), lived(1)))) > 100


@pytest.mark.parametrize(
    ("column", "value", "called"),
    [("regimes", 77, "regime"), ("novelties", 0.125, "novelty"), ("hits", 1000, "hits"), ("last_hits", 5, "last_hit")],
)
def test_one_changed_value_is_one_difference(column, value, called):
    bank = lived()
    state = bank.state()
    other = restored(bank, **changed(state, column, 7, value))
    symbol, bar_time = state.names[state.symbols[7]], int(state.bar_times[7])
    old = getattr(state, column)[7].item()
    expected = BankDifference(symbol, bar_time, called, None if abs(old) >= NEVER else old, value)
    assert list(compare_banks(bank, other)) == [expected]
    assert list(compare_banks(other, bank)) == [replace(expected, left=expected.right, right=expected.left)]


def test_what_follows_from_decisions_can_be_left_aside():
    """A bank that was made again from candles has no hits."""
    bank = lived()
    state = bank.state()
    nothing = np.zeros(len(state.ids), dtype=np.int32)
    other = restored(bank, hits=nothing, credits=nothing.astype(np.int64), recollections=(), recalled=())
    assert list(compare_banks(bank, other, decisions=False)) == []
    fields = {each.field.partition(" ")[0] for each in compare_banks(bank, other)}
    assert fields == {"hits", "credit_units", "recollection"}


def test_of_a_key_the_first_number_that_differs_is_named():
    bank = lived()
    state = bank.state()
    keys = state.keys.copy()
    keys[3, 2:] *= -1
    (found,) = compare_banks(bank, restored(bank, keys=keys))
    assert (found.field, found.left, found.right) == ("key[2]", float(state.keys[3, 2]), -float(state.keys[3, 2]))


def test_outcomes_are_named_by_their_horizon_and_pending_ones_are_none():
    bank = lived()
    state = bank.state()
    place = int(np.flatnonzero(state.settled_times[:, 0] == NEVER)[-1])
    outcomes = changed(state, "outcomes", (place, 0), 0.5)
    times = changed(state, "settled_times", (place, 0), int(state.bar_times[place]) + 1)
    found = list(compare_banks(bank, restored(bank, **outcomes, **times)))
    assert [(each.field, each.left, each.right) for each in found] == [
        ("outcome[0]", None, 0.5),
        ("settled_time[0]", None, int(state.bar_times[place]) + 1),
    ]


def test_an_entry_of_one_bank_only_is_named():
    bank, other = lived(), lived()
    gone = next(other.entries())
    other.evict([gone.entry_id])
    assert BankDifference(gone.symbol, gone.bar_time, "entry", "there", None) in set(compare_banks(bank, other))
    assert BankDifference(gone.symbol, gone.bar_time, "entry", None, "there") in set(compare_banks(other, bank))


def test_rules_symbols_and_counts_are_compared():
    bank = lived()
    longer = lived(bars=41)
    fields = {each.field for each in compare_banks(bank, longer)}
    assert {"next_id", "last_time", "entry"} <= fields
    other = MemoryBank(replace(bank.config, capacity=50, embargo_ms=5), encoder_version="v2")
    found = {each.field: (each.left, each.right) for each in compare_banks(bank, other)}
    assert (found["capacity"], found["embargo_ms"], found["encoder_version"]) == ((40, 50), (1000, 5), ("v1", "v2"))


def test_keys_of_different_sizes_are_not_compared():
    other = MemoryBank(config_of(dimension=6), encoder_version="v1")
    assert [each.field for each in compare_banks(lived(eviction=Eviction.FIFO), other)] == ["dimension", "next_id"]


def test_differences_come_by_symbol_and_then_by_time():
    found = [(each.symbol or "", each.bar_time or -1) for each in compare_banks(lived(), lived(1), decisions=False)]
    assert found == sorted(found)


def test_a_recollection_that_waits_is_compared():
    bank = lived()
    (first, *others) = bank.state().recollections
    found = list(compare_banks(bank, restored(bank, recollections=tuple(others), recalled=bank.state().recalled[1:])))
    assert [(each.field, each.right) for each in found] == [(f"recollection of entry {first.asker_id}", None)]
