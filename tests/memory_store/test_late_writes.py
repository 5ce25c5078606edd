"""Writes that wait until somebody looks: the very bank that writes make which do not wait."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memory_store import BankConfig, Eviction, IndexKind, MemoryBank, MemoryBankError, Metric
from memory_store.late_writes import LateWrites

CAPACITY, DIMENSION, HORIZONS, EMBARGO = 24, 5, (1, 3), 2
KEY = np.ones(DIMENSION, dtype=np.float32)


def bank(**changes) -> MemoryBank:
    rules = {"capacity": CAPACITY, "dimension": DIMENSION, "horizons": HORIZONS, "primary": 1, "embargo_ms": EMBARGO}
    return MemoryBank(BankConfig(metric=Metric.COSINE, **(rules | changes)), encoder_version="v", record_changes=False)


class Twins:
    """A bank that writes at once, and one that puts off what it can: everything is done to both, and told by both alike."""

    def __init__(self, seed: int, **rules) -> None:
        self.plain, self.late = bank(**rules), bank(**rules)
        self.random = np.random.default_rng(seed)
        self.now = 0
        self.entries: list[list[int]] = [[], []]
        """Of two symbols."""
        self.told: set[int] = set()
        """Those whose primary outcome was told out of turn."""

    def both(self, do: Callable[[MemoryBank], object]) -> object:
        """The answer or the refusal of the plain one; the late one's refusals come when somebody looks."""
        told = []
        for each in (self.plain, self.late):
            try:
                told.append(do(each))
            except MemoryBankError as error:
                told.append(str(error))
        return told[0] if told[0] == told[1] else told

    def look(self) -> None:
        assert self.plain.digest() == self.late.digest()
        waiting = [list(each._held.recollections.waiting) for each in (self.plain, self.late)]
        assert waiting[0] == waiting[1]
        assert (self.plain.next_id, len(self.plain)) == (self.late.next_id, len(self.late))
        query = self.random.standard_normal(DIMENSION)
        found, same = (each.search(query, as_of=self.now, k=4) for each in (self.plain, self.late))
        assert found.ids.tolist() == same.ids.tolist() and found.scores.tobytes() == same.scores.tobytes()
        assert found.visible == same.visible and self.plain.known_until == self.late.known_until

    def bar(self, symbols: list[int], noted: int, *, staying: int = 0) -> None:
        """Outcomes that a bar of some symbols brings, then its moments, with some neighbours noted, if there are any.

        Args:
            symbols: numbers.
            noted: neighbours at most.
            staying: appends that every neighbour noted outlasts.
        """
        for symbol in symbols:
            mine = self.entries[symbol]
            for place, horizon in enumerate(HORIZONS):
                if len(mine) >= horizon and not (place == 1 and mine[-horizon] in self.told):
                    asked = mine[-horizon], place, float(self.random.standard_normal()), self.now
                    self.both(lambda each, asked=asked: each.settle(*asked))
        for symbol in symbols:
            key, novelty = self.random.standard_normal(DIMENSION).astype(np.float32), float(self.random.random())
            found = self.plain.search(key, as_of=self.now, k=20)
            name, opened, regime = "AB"[symbol], self.now - 1, int(self.random.integers(-3, 3))
            entry_id = self.both(
                lambda each, key=key, told=(name, opened, regime, novelty): each.append(
                    key, symbol=told[0], bar_time=told[1], regime=told[2], novelty=told[3]
                )
            )
            assert isinstance(entry_id, int)
            self.entries[symbol].append(entry_id)
            oldest = entry_id - self.plain.config.capacity + staying
            if len(ids := found.ids[found.mask & (found.ids >= oldest)][:noted]):
                weights = self.random.random(len(ids))
                self.both(
                    lambda each, told=(entry_id, ids, weights): each.note(
                        told[0], as_of=self.now, ids=told[1], weights=told[2]
                    )
                )
        self.now += 1


def again(twins: Twins, entry_id: int) -> None:
    """Say an outcome that is known once more."""
    try:
        known = twins.plain.entry(entry_id)
    except MemoryBankError:
        return  # it was evicted
    if known.outcomes[1] is not None and known.settled_times[1] is not None:
        told = entry_id, 1, known.outcomes[1], known.settled_times[1]
        assert twins.both(lambda each: each.settle(*told)) is None


def note_late(twins: Twins, asker_id: int) -> None:
    """Note neighbours when others have been written since, if the asker has none and may have some."""
    found = twins.plain.search(KEY, as_of=twins.now, k=2)
    ids = found.ids[found.mask]
    if not len(ids):
        return
    told = {"as_of": twins.now, "ids": ids, "weights": np.ones(len(ids))}
    try:
        twins.plain.note(asker_id, **told)
    except MemoryBankError:
        return
    twins.late.note(asker_id, **told)


ODD = ("look", "again", "evict", "old note", "early outcome")
BARS = ([0], [1], [0, 1])
STEPS = st.lists(st.one_of(*[st.sampled_from(BARS)] * 8, st.sampled_from(ODD)), min_size=20, max_size=80)


@settings(max_examples=100)
@given(STEPS, st.integers(0, 3), st.integers(0, 2**32 - 1))
def test_what_waits_makes_the_same_bank_whenever_somebody_looks(steps, noted, seed):
    """Also where bars are missing, things are said twice or out of turn, entries are told to leave, and notes come late."""
    twins = Twins(seed)
    with twins.late.written_late():
        for step in steps:
            some = twins.entries[0]
            if isinstance(step, list):
                twins.bar(step, noted)
            elif step == "look":
                twins.look()
            elif some and step == "again":
                for symbol_entries in twins.entries:
                    for entry_id in symbol_entries[-4:-3]:
                        again(twins, entry_id)
            elif some and step == "evict":
                middle = some[len(some) // 2]
                assert twins.both(lambda each, entry_id=middle: each.evict([entry_id])) is None
            elif some and step == "old note":
                note_late(twins, some[-1])
            elif some and step == "early outcome" and some[-1] not in twins.told:
                twins.told.add(some[-1])
                told_of = some[-1], 1, 0.5, twins.now
                assert twins.both(lambda each, told_of=told_of: each.settle(*told_of)) is None
    twins.look()


def test_many_bars_are_written_together_and_one_look_is_enough():
    """What this is for: bar after bar is judged as a whole, none falls back to the plain way."""
    twins = Twins(7, capacity=60, embargo_ms=6)
    for _ in range(40):
        twins.bar([0, 1], 3)
    twins.late.append_now = twins.late.settle_now = twins.late.note_now = None  # type: ignore[method-assign,assignment]
    with twins.late.written_late():
        for _ in range(4):
            twins.bar([0, 1], 3, staying=8)
        twins.look()
        for _ in range(3):
            twins.bar([0, 1], 3, staying=8)
    twins.look()


@pytest.mark.parametrize("bars", range(56, 63))
@pytest.mark.parametrize("before", [1, 5, 9])
def test_who_leaves_before_its_outcome_came_is_waited_for_no_longer(bars: int, before: int):
    """A market that stops, and goes on when its last moments have left, or are about to."""
    twins = Twins(3, capacity=60, embargo_ms=6)
    with twins.late.written_late():
        for _ in range(30):
            twins.bar([0, 1], 1, staying=8)
        for bar in range(bars):
            if bar == bars - before:
                twins.look()
            twins.bar([0], 1, staying=8)
        if bars % 2:
            twins.look()
        twins.bar([0, 1], 1, staying=8)
        twins.look()


BAD: dict[str, Callable[[MemoryBank], object]] = {
    "a key of another dimension": lambda bank: bank.append(np.ones(3), symbol="A", bar_time=99),
    "a key that is not finite": lambda bank: bank.append(np.full(DIMENSION, np.nan), symbol="A", bar_time=99),
    "a key without direction": lambda bank: bank.append(np.zeros(DIMENSION), symbol="A", bar_time=99),
    "a bar that is there": lambda bank: bank.append(KEY, symbol="A", bar_time=10),
    "a bar of the past": lambda bank: bank.append(KEY, symbol="A", bar_time=2),
    "no symbol": lambda bank: bank.append(KEY, symbol="", bar_time=99),
    "a regime that does not fit": lambda bank: bank.append(KEY, symbol="A", bar_time=99, regime=2**31),
    "a novelty that is no number": lambda bank: bank.append(KEY, symbol="A", bar_time=99, novelty=np.nan),
    "an outcome of nobody": lambda bank: bank.settle(10_000, 0, 0.1, 99),
    "an outcome over no horizon": lambda bank: bank.settle(9, 5, 0.1, 99),
    "an outcome that is no number": lambda bank: bank.settle(9, 1, np.inf, 99),
    "an outcome before its bar": lambda bank: bank.settle(10, 0, 0.1, 10),
    "another outcome": lambda bank: bank.settle(2, 0, 55.0, 99),
    "a note of nobody": lambda bank: bank.note(10_000, as_of=99, ids=np.array([1]), weights=np.array([1.0])),
    "a neighbour that was not visible": lambda bank: bank.note(
        10, as_of=11, ids=np.array([9]), weights=np.array([1.0])
    ),
    "a neighbour noted twice": lambda bank: bank.note(10, as_of=99, ids=np.array([1, 1]), weights=np.array([0.5, 0.5])),
    "weights that are negative": lambda bank: bank.note(
        10, as_of=99, ids=np.array([1, 2]), weights=np.array([1.0, -0.5])
    ),
}


@pytest.mark.parametrize("looked", [False, True])
@pytest.mark.parametrize("what", BAD)
def test_what_is_refused_at_once_is_refused_when_somebody_looks(what: str, looked: bool):
    """With the same sentence, and with what came before it written."""
    plain, late = bank(), bank()

    def go_on(each: MemoryBank) -> None:
        for bar in range(11):
            if bar:
                each.settle(bar - 1, 0, 0.1 * bar, bar)
            if bar > 2:
                each.settle(bar - 3, 1, -0.1 * bar, bar)
            each.append(KEY + bar, symbol="A", bar_time=bar)

    go_on(plain)
    if looked:
        plain.append(KEY, symbol="B", bar_time=11)
    with pytest.raises(MemoryBankError) as refused:
        BAD[what](plain)
    with ExitStack() as stack:
        stack.enter_context(late.written_late())
        go_on(late)
        if looked:
            late.digest()
            late.append(KEY, symbol="B", bar_time=11)
        with pytest.raises(MemoryBankError) as later:
            BAD[what](late)
            late.digest()
    assert str(later.value) == str(refused.value)
    assert late.digest() == plain.digest()


@pytest.mark.parametrize(
    "rules", [{"eviction": Eviction.IMPORTANCE, "half_life_ms": 10}, {"sealed": 10}, {"index": IndexKind.APPROXIMATE}]
)
def test_where_what_is_written_decides_who_leaves_nothing_waits(rules):
    other = bank(**rules)
    with other.written_late():
        other.append(KEY, symbol="A", bar_time=1)
        with pytest.raises(MemoryBankError):
            other.append(KEY, symbol="A", bar_time=1)


def test_a_bank_that_records_its_changes_does_not_wait():
    recording = MemoryBank(bank().config, encoder_version="v")
    with recording.written_late():
        recording.append(KEY, symbol="A", bar_time=1)
        assert len(recording.take_changes().appended) == 1


def test_an_answer_found_beforehand_counts_what_waits():
    """Of entries that are going to make room, as many are gone as would be if nothing waited."""
    rules = {"capacity": 60, "embargo_ms": 12}
    plain, late = bank(**rules), bank(**rules)

    def bars(each: MemoryBank, first: int, last: int) -> None:
        for bar in range(first, last):
            if bar > 2:
                each.settle(bar - 3, 1, 0.01 * bar, bar)
            each.append(np.eye(DIMENSION)[bar % DIMENSION] + 1.0 / (1 + bar), symbol="A", bar_time=bar)

    for each in (plain, late):
        bars(each, 0, 90)
    queries, times = np.eye(DIMENSION), range(91, 96)
    told = []
    for each in (plain, late):
        proposal = each.propose(queries, as_of=90, k=3, skip_oldest=10)
        outlook = each.look_ahead(proposal, 0, times)
        assert outlook is not None
        told.append(outlook)
    with late.written_late():
        for place, as_of in enumerate(times):
            for each in (plain, late):
                bars(each, as_of - 1, as_of)
            waits = late._late
            assert isinstance(waits, LateWrites) and waits.wait
            seen = [
                each.still_foreseen(one.terms, place, as_of=as_of)
                for each, one in zip((plain, late), told, strict=True)
            ]
            assert seen[0] == seen[1]
            assert seen[0] is not None
