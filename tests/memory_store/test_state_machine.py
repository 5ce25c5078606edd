"""Bank, index and storage driven together through anything that can happen, step by step beside a model in plain Python."""

from __future__ import annotations

import copy
import functools
import math
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from operator import itemgetter
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from memory_store import (
    BankConfig,
    MemoryBank,
    MemoryBankError,
    Metric,
    Proposal,
    SearchResult,
    approximate,
    archive,
    cell_lists,
)
from memory_store.opening import open_bank, save_snapshot
from memory_store.policy import Asker, RegimeRule, RetrievalPolicy, Scope
from memory_store.pruning import PruneRule
from memory_store.records import Eviction, IndexKind
from memory_store.schema import open_database
from memory_store.storage import create_bank, load_bank, write_changes
from tests.memory_store.plain import PlainBank, PlainMoment, PlainTables, one_per_moment, preference, product

SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
BAR_MS = 1_000
DIMENSION = 2
"""Of two products, each exact, there is one sum: scores are the same to the last bit however they are computed."""
HORIZONS = (1, 4)
KINDS = [
    *((eviction, IndexKind.EXACT, 0) for eviction in Eviction),
    (Eviction.FIFO, IndexKind.APPROXIMATE, 0),
    (Eviction.FIFO, IndexKind.EXACT, 11),
]
EXAMPLES = 15
STEPS = 50
FEWEST_STEPS = 400
"""Per kind of bank; together two thousand."""

eighths = st.integers(-8, 8).map(lambda number: number / 8)
vectors = st.lists(eighths, min_size=DIMENSION, max_size=DIMENSION).filter(any)
offsets = st.one_of(st.integers(-12, 3).map(lambda bars: bars * BAR_MS), st.sampled_from([-1, 0, 1, 10**9, 10**9]))
policies = st.builds(
    RetrievalPolicy,
    minimum_similarity=st.sampled_from([None, -0.2503, 0.4901]),
    half_life_ms=st.sampled_from([None, 3 * BAR_MS]),
    temperature=st.sampled_from([0.07, 0.5]),
    scope=st.sampled_from(Scope),
    regimes=st.sampled_from(RegimeRule),
    cluster_ms=st.sampled_from([1, 2 * BAR_MS]),
    one_per_moment=st.booleans(),
)


class LiveBar(NamedTuple):
    """What a bar brings."""

    key: list[float]
    symbol: str
    regime: int
    novelty: int
    same: bool
    settles: bool
    outcome: float
    k: int


bars = st.builds(
    LiveBar,
    key=vectors,
    symbol=st.sampled_from(SYMBOLS),
    regime=st.integers(0, 2),
    novelty=st.integers(0, 8),
    same=st.booleans(),
    settles=st.booleans(),
    outcome=eighths,
    k=st.integers(1, 5),
)


def step(**arguments: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A rule whose steps are counted."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def counted(self: MemoryMachine, **drawn: Any) -> None:
            type(self).steps += 1
            function(self, **drawn)

        return rule(**arguments)(counted)

    return decorate


class MemoryMachine(RuleBasedStateMachine):
    """One bank in one database, and what both must be."""

    eviction: ClassVar[Eviction]
    index: ClassVar[IndexKind]
    sealed: ClassVar[int]
    steps: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.file = Path(self.folder.name) / "memory.sqlite"
        self.snapshots = Path(self.folder.name) / "snapshots"
        self.url = f"sqlite:///{self.file}"
        self.engine = open_database(self.url)
        self.now = self.bar_time = 100 * BAR_MS

    @initialize(
        capacity=st.sampled_from([1, 2, 3, 5, 9, 17]), metric=st.sampled_from(Metric),
        embargo=st.sampled_from([0, 1, 2 * BAR_MS]), primary=st.integers(0, 1),
        scale=st.sampled_from([1.0, 0.5]), past=st.lists(bars, max_size=24),
    )  # fmt: skip
    def begin(
        self, capacity: int, metric: Metric, embargo: int, primary: int, scale: float, past: list[LiveBar]
    ) -> None:
        half_life = 0 if self.eviction is Eviction.FIFO else 4 * BAR_MS
        self.config = BankConfig(
            capacity,
            DIMENSION,
            HORIZONS,
            primary,
            embargo,
            metric,
            self.eviction,
            half_life,
            scale,
            self.index,
            self.sealed,
        )
        self.plain = self.empty()
        with self.engine.begin() as connection:
            self.bank_id = create_bank(connection, "machine", self.config, "v1")
        self.bank = MemoryBank(self.config, encoder_version="v1")
        self.tables = PlainTables()
        self.forget_news()
        self.first_snapshot: bytes | None = None
        self.proposal: tuple[Proposal, list[list[float]], int] | None = None
        self.live_through(past)
        self.back_up_all()

    def empty(self) -> PlainBank:
        config = self.config
        return PlainBank(
            config.capacity, config.primary, config.embargo_ms, len(HORIZONS), config.eviction.value,
            config.half_life_ms, config.outcome_scale, config.sealed,
        )  # fmt: skip

    def teardown(self) -> None:
        self.engine.dispose()
        self.folder.cleanup()

    # -- what happens

    @step(stretch=st.lists(bars, min_size=1, max_size=6))
    def live(self, stretch: list[LiveBar]) -> None:
        self.live_through(stretch)

    def live_through(self, stretch: list[LiveBar]) -> None:
        """As it is meant to be used: at every bar settle what matured, ask, append, remember who answered."""
        for bar in stretch:
            self.begin_bar(bar.symbol, bar.same)
            self.settle_pending(self.now if bar.settles else self.now - 5 * BAR_MS, bar.outcome)
            found = self.ask(bar.key, self.now, bar.k)
            asker = self.append_one(bar)
            weights = [1 + (place + bar.k) % 3 for place in range(len(found))]
            if found:
                self.note(asker, self.now, found, weights)

    @step(bar=bars)
    def append(self, bar: LiveBar) -> None:
        self.begin_bar(bar.symbol, bar.same)
        self.append_one(bar)

    def begin_bar(self, symbol: str, same: bool) -> None:
        """The next bar, or the one that another symbol has had already."""
        if not same or self.plain.last_times.get(symbol, 0) >= self.bar_time:
            self.bar_time = self.now = max(self.now, self.bar_time) + BAR_MS

    def append_one(self, bar: LiveBar) -> int:
        key, novelty = stored(bar.key, self.config.metric), bar.novelty / 8
        self.victims += self.plain.append(key, bar.symbol, self.bar_time, bar.regime, novelty)
        entry_id = self.bank.append(
            np.array(bar.key, dtype=np.float32),
            symbol=bar.symbol,
            bar_time=self.bar_time,
            regime=bar.regime,
            novelty=novelty,
        )
        assert entry_id == self.plain.next_id - 1
        self.appended.append(copy.deepcopy(self.plain.moments[entry_id]))
        return entry_id

    @step(data=st.data(), horizon=st.integers(0, 1), outcome=eighths)
    def settle(self, data: st.DataObject, horizon: int, outcome: float) -> None:
        """Of any entry ever given, evicted or not; what is recorded already is said again as it was."""
        if self.plain.next_id == 0:
            return
        oldest = max(0, self.plain.next_id - self.config.holds - self.config.capacity)
        entry_id = data.draw(st.integers(oldest, self.plain.next_id - 1))
        moment = self.plain.moments.get(entry_id)
        known = None if moment is None else moment.settled.get(horizon)
        outcome, settled_time = known or (outcome, self.now + 1)
        self.settle_one(entry_id, horizon, outcome, settled_time)

    @step(delay=st.integers(1, 2 * BAR_MS), outcome=eighths)
    def settle_all(self, delay: int, outcome: float) -> None:
        """Whatever is pending over the primary horizon settles."""
        self.now += delay
        self.settle_pending(self.now, outcome)

    def settle_pending(self, before: int, outcome: float) -> None:
        """Primary outcomes of moments before a time, each half way nearer to an eighth than the one before."""
        for moment in sorted(self.plain.moments.values(), key=lambda m: m.entry_id):
            if moment.bar_time < before and self.config.primary not in moment.settled:
                outcome = outcome / 2 + 0.125
                self.settle_one(moment.entry_id, self.config.primary, outcome, self.now)

    def settle_one(self, entry_id: int, horizon: int, outcome: float, settled_time: int) -> None:
        self.bank.settle(entry_id, horizon, outcome, settled_time)
        if self.plain.settle(entry_id, horizon, outcome, settled_time):
            self.news.settled.append((entry_id, horizon, outcome, settled_time))

    @step(data=st.data(), query=vectors, k=st.integers(1, 6), offset=st.sampled_from([0, 10**9, -3 * BAR_MS]))
    def decide(self, data: st.DataObject, query: list[float], k: int, offset: int) -> None:
        """A pending entry is decided with the neighbours that a search finds."""
        as_of = self.now + offset
        pending = [
            m.entry_id
            for m in self.plain.moments.values()
            if self.config.primary not in m.settled and m.recollection is None
        ]
        if not pending:
            return
        ids = self.ask(query, as_of, k)
        weights = data.draw(st.lists(st.integers(0, 3), min_size=len(ids), max_size=len(ids)))
        later = [entry_id for entry_id in pending if entry_id > max(ids, default=-1)]
        if not any(weights) or not later:
            return
        asker = data.draw(st.sampled_from(later))
        self.note(asker, as_of, ids, weights)

    def note(self, asker: int, as_of: int, ids: list[int], weights: list[int]) -> None:
        self.bank.note(asker, as_of=as_of, ids=ids, weights=weights)
        remembered = self.plain.note(asker, as_of, ids, weights)
        if remembered is not None:
            self.news.noted.append((asker, as_of, *remembered))

    @step(data=st.data())
    def evict(self, data: st.DataObject) -> None:
        held = sorted(self.plain.moments)
        if not held:
            return
        gone = data.draw(st.lists(st.sampled_from(held), max_size=2, unique=True))
        self.bank.evict(gone)
        self.plain.evict(gone)
        self.victims += gone

    @step(unused=st.sampled_from([None, 0, 3 * BAR_MS]), credit=st.sampled_from([None, -0.25, 0.0]))
    def prune(self, unused: int | None, credit: float | None) -> None:
        if unused is None and credit is None:
            return
        rule_, expected = PruneRule(unused, credit), self.plain.prunable(self.now, unused, credit)
        assert list(self.bank.prune_candidates(rule_, self.now)) == expected
        assert list(self.bank.prune(rule_, self.now)) == expected
        self.plain.evict(expected)
        self.victims += expected

    @step(
        query=vectors, k=st.integers(1, 12), offset=offsets, policy=st.none() | policies,
        symbols=st.sampled_from([None, None, None, ["ETHUSDT"], list(SYMBOLS[1:]), []]),
        symbol=st.sampled_from((*SYMBOLS, "XRPUSDT")), regime=st.integers(0, 2),
    )  # fmt: skip
    def search(
        self, query: list[float], k: int, offset: int, policy: RetrievalPolicy | None, symbols: list[str] | None,
        symbol: str, regime: int,
    ) -> None:  # fmt: skip
        as_of, asker = self.now + offset, Asker(symbol, regime, self.now)
        result = self.bank.search(
            np.array(query, dtype=np.float32), as_of=as_of, k=k, symbols=symbols, policy=policy, asker=asker
        )
        self.check(result, query, as_of, k, symbols, policy, asker)
        assert self.bank.visible_count(as_of) == len(self.plain.visible(as_of))

    def ask(self, query: list[float], as_of: int, k: int) -> list[int]:
        """Search, and check; ids of the neighbours."""
        result = self.bank.search(np.array(query, dtype=np.float32), as_of=as_of, k=k)
        self.check(result, query, as_of, k)
        ids: list[int] = result.ids[result.mask].tolist()
        return ids

    @step(queries=st.lists(vectors, min_size=1, max_size=3), k=st.integers(1, 6), skip=st.sampled_from([0, 1, 3]))
    def propose(self, queries: list[list[float]], k: int, skip: int) -> None:
        """Proposals serve later searches or stand aside; they never change an answer."""
        rows = np.array(queries, dtype=np.float32)
        self.proposal = (self.bank.propose(rows, as_of=self.now, k=k, skip_oldest=skip), queries, k)

    @precondition(lambda self: self.proposal is not None)
    @step(row=st.integers(0, 2), offset=offsets)
    def search_proposed(self, row: int, offset: int) -> None:
        assert self.proposal is not None
        proposal, queries, k = self.proposal
        row %= len(queries)
        query, as_of = np.array(queries[row], dtype=np.float32), self.now + offset
        result = self.bank.search(query, as_of=as_of, k=k, proposal=proposal, row=row)
        self.check(result, queries[row], as_of, k)

    @step(which=st.integers(0, 6))
    def refuse(self, which: int) -> None:
        """What the rules forbid changes nothing."""
        before = self.bank.digest()
        symbol, latest = max(self.plain.last_times.items(), key=itemgetter(1), default=("", self.now))
        gone = max({*range(self.plain.next_id)} - set(self.plain.moments), default=-1)
        attempts: list[Callable[[], object]] = [
            lambda: self.bank.append([math.nan] * DIMENSION, symbol="BTCUSDT", bar_time=latest + 1),
            lambda: self.bank.append([1.0] * (DIMENSION + 1), symbol="BTCUSDT", bar_time=latest + 1),
            lambda: self.bank.append([1.0] * DIMENSION, symbol=symbol, bar_time=latest),
            lambda: self.bank.entry(gone),
            lambda: self.bank.settle(self.plain.next_id, 0, 0.0, self.now),
            lambda: self.bank.search([0.0, math.inf], as_of=self.now, k=1),
            lambda: self.bank.search([1.0, 0.0], as_of=self.now, k=0),
        ]
        with pytest.raises(MemoryBankError):
            attempts[which]()
        assert self.bank.digest() == before

    # -- what is durable

    @step()
    def commit(self) -> None:
        self.commit_all()

    def commit_all(self) -> None:
        with self.engine.begin() as connection:
            self.write(connection)
        self.take_as_committed()

    @step(written=st.booleans(), acknowledged=st.booleans(), query=vectors)
    def kill(self, written: bool, acknowledged: bool, query: list[float]) -> None:
        """The process dies: before its last transaction, inside it, or after it."""
        probe = functools.partial(self.probe, query, self.now)
        before = probe()
        with self.engine.connect() as connection:
            if written:
                self.write(connection)
            if written and acknowledged:
                connection.commit()
                self.take_as_committed()
        self.reopen()
        if written and acknowledged:
            assert probe() == before

    @step(snapshot=st.booleans())
    def reopen_cleanly(self, snapshot: bool) -> None:
        self.commit_all()
        if snapshot:
            self.save()
        self.reopen()
        assert self.rebuilt is None or not snapshot, "the snapshot of just now was not used"

    @step()
    def snapshot(self) -> None:
        self.commit_all()
        self.save()

    @step(place=st.floats(0, 1, exclude_max=True), how=st.sampled_from(["cut", "flip", "delete", "old"]))
    def damage(self, place: float, how: str) -> None:
        """The snapshot or a segment is damaged, lost or put back to an older one; at once or later somebody opens it.

        Another file takes its place: the bank has the old one mapped, as long as it is open.
        """
        for path in [each for each in self.snapshots.rglob("*") if each.is_file()]:
            content = path.read_bytes()
            at = int(place * len(content))
            path.unlink()
            if how == "cut":
                path.write_bytes(content[:at])
            elif how == "flip":
                path.write_bytes(content[:at] + bytes([content[at] ^ 0x40]) + content[at + 1 :] if content else b"")
            elif how == "old" and self.first_snapshot is not None:
                path.write_bytes(self.first_snapshot)

    @step()
    def back_up(self) -> None:
        self.back_up_all()

    def back_up_all(self) -> None:
        self.commit_all()
        copy_database(self.file, self.file.with_suffix(".backup"))
        self.backup = copy.deepcopy((self.committed, self.tables))

    @step(saved=st.booleans(), stretch=st.lists(bars, max_size=12))
    def go_back_to_backup(self, saved: bool, stretch: list[LiveBar]) -> None:
        """An older database is put back and goes on; a snapshot of what had come after it may still be there."""
        self.commit_all()
        if saved:
            self.save()
        self.engine.dispose()
        copy_database(self.file.with_suffix(".backup"), self.file)
        self.committed, self.tables = copy.deepcopy(self.backup)
        self.reopen(refresh=False)
        self.live_through(stretch)
        self.commit_all()
        self.reopen()

    @step(data=st.data(), offset=st.integers(-1, 1))
    def travel(self, data: st.DataObject, offset: int) -> None:
        """The memory of a past moment, from the rows: at a commit, just before or just after one."""
        moments = [when for when, _ in (*self.tables.appended, *self.tables.evicted)]
        time = data.draw(st.sampled_from(sorted({*moments, self.now}))) + offset
        with self.engine.connect() as connection:
            past = load_bank(connection, self.bank_id, as_of=time)
        assert_same(past, self.tables.as_of(time, self.empty()))

    def write(self, connection: sa.Connection) -> None:
        changes = self.bank.take_changes()
        assert sorted(changes.evicted) == sorted(self.victims)
        write_changes(connection, self.bank_id, changes, self.now)

    def take_as_committed(self) -> None:
        tables = self.tables
        tables.appended += [(self.now, moment) for moment in self.appended]
        tables.evicted += [(self.now, entry_id) for entry_id in self.victims]
        tables.settled += self.news.settled
        tables.noted += self.news.noted
        self.committed = copy.deepcopy(self.plain)
        self.forget_news()

    def forget_news(self) -> None:
        self.news = PlainTables()
        self.appended: list[PlainMoment] = []
        self.victims: list[int] = []

    def save(self) -> None:
        with self.engine.connect() as connection:
            path = save_snapshot(connection, self.bank_id, self.bank, self.snapshots)
        self.first_snapshot = self.first_snapshot or path.read_bytes()

    def reopen(self, *, refresh: bool = True) -> None:
        """A new process, which knows what the database knows; from its snapshot and from its rows it is the same."""
        self.engine.dispose()
        self.engine = open_database(self.url)
        self.plain = copy.deepcopy(self.committed)
        self.forget_news()
        self.proposal = None
        with self.engine.connect() as connection:
            from_rows = load_bank(connection, self.bank_id)
            opened = open_bank(connection, self.bank_id, self.snapshots, refresh=refresh)
        self.bank, self.rebuilt = opened.bank, opened.rebuilt
        assert self.bank.digest() == from_rows.digest()

    def probe(self, query: list[float], as_of: int) -> list[Any]:
        """Answers to the last bit."""
        result = self.bank.search(np.array(query, dtype=np.float32), as_of=as_of, k=4)
        return [
            self.bank.digest(),
            result.ids.tolist(),
            result.scores.tobytes(),
            result.outcomes.tobytes(),
            result.visible,
        ]

    # -- what must hold

    @invariant()
    def same_content(self) -> None:
        if hasattr(self, "bank"):
            assert_same(self.bank, self.plain)

    def check(
        self,
        result: SearchResult,
        query: list[float],
        as_of: int,
        k: int,
        symbols: list[str] | None = None,
        policy: RetrievalPolicy | None = None,
        asker: Asker | None = None,
    ) -> None:
        """The answer is the one that looking at every moment gives."""
        policy = policy or RetrievalPolicy()
        visible = self.plain.visible(as_of, symbols)
        scores = {m.entry_id: product(m.key, stored(query, self.config.metric)) for m in visible}
        worth = {m.entry_id: preference(policy, asker, scores[m.entry_id], m) for m in visible}
        eligible = [m for m in visible if worth[m.entry_id] is not None]
        count = result.count
        assert result.mask.tolist() == [True] * count + [False] * (k - count)
        assert result.ids[count:].tolist() == [-1] * (k - count)
        found = result.ids[:count].tolist()
        assert set(found) <= {m.entry_id for m in eligible}
        assert result.scores[:count].tolist() == [scores[i] for i in found]
        np.testing.assert_allclose(result.preferences[:count], [worth[i] for i in found], rtol=0, atol=1e-14)
        assert in_order(result.preferences[:count].tolist(), found)
        for place, entry_id in enumerate(found):
            moment = self.plain.moments[entry_id]
            said = (result.symbols[place], result.bar_times[place], result.regimes[place])
            assert said == (moment.symbol, moment.bar_time, moment.regime)
            np.testing.assert_array_equal(result.outcomes[place], self.plain.outcomes(moment, as_of))
        if self.index is IndexKind.EXACT:
            ranked = sorted(eligible, key=lambda m: (-worth[m.entry_id], m.entry_id))
            if policy.one_per_moment:
                ranked = one_per_moment(ranked, policy.cluster_ms)
            assert found == [m.entry_id for m in ranked[:k]]
        assert result.visible == len(visible)
        assert count == min(k, len(visible)) or policy != RetrievalPolicy()


def assert_same(bank: MemoryBank, plain: PlainBank) -> None:
    """Every entry is there with all that is known of it, and nothing else."""
    assert bank.next_id == plain.next_id
    entries = list(bank.entries())
    assert len(bank) == len(entries) == len(plain.moments) <= plain.capacity + plain.sealed
    for entry, moment in zip(entries, sorted(plain.moments.values(), key=lambda m: m.entry_id), strict=True):
        said = (entry.entry_id, entry.symbol, entry.bar_time, entry.regime, entry.novelty, entry.hits, entry.last_hit)
        assert said == (
            moment.entry_id, moment.symbol, moment.bar_time, moment.regime, moment.novelty, moment.hits, moment.last_hit
        )  # fmt: skip
        assert entry.key.tolist() == moment.key
        assert abs(entry.credit - moment.credit / 2**32 * plain.outcome_scale) <= 2**-31
        settled = [moment.settled.get(horizon, (None, None)) for horizon in range(plain.horizons)]
        assert list(zip(entry.outcomes, entry.settled_times, strict=True)) == settled
        assert bank.find(moment.symbol, moment.bar_time) == moment.entry_id


def copy_database(source: Path, target: Path) -> None:
    with closing(sqlite3.connect(source)) as from_file, closing(sqlite3.connect(target)) as to_file:
        from_file.backup(to_file)


def stored(vector: list[float], metric: Metric) -> list[float]:
    """A vector as it is kept: float32, of length one for cosine. Squares of eighths are exact in any order of adding."""
    if metric is Metric.INNER_PRODUCT:
        return vector
    length = math.sqrt(math.fsum(x * x for x in vector))
    return [float(np.float32(x / length)) for x in vector]


def in_order(preferences: list[float], ids: list[int]) -> bool:
    keys = [(-value, entry_id) for value, entry_id in zip(preferences, ids, strict=True)]
    return keys == sorted(keys)


@pytest.mark.parametrize(("eviction", "index", "sealed"), KINDS, ids=["-".join(map(str, kind)) for kind in KINDS])
def test_whatever_happens_the_memory_is_what_the_plain_model_says(
    eviction: Eviction, index: IndexKind, sealed: int, monkeypatch: pytest.MonkeyPatch
):
    """Appends, outcomes, decisions, evictions, prunings, searches of any time, commits, kills, reopenings, in any order."""
    # Sizes from which an approximate index pays, brought down to the size of these banks.
    monkeypatch.setattr(approximate, "FIRST_TRAINING", 4)
    monkeypatch.setattr(approximate, "_FEW", 2)
    monkeypatch.setattr(cell_lists, "_FIRST", (1, 1))
    monkeypatch.setattr(cell_lists, "_SECOND", (2, 1))
    monkeypatch.setattr(archive, "SMALLEST_SEGMENT", 4)
    kind = {"eviction": eviction, "index": index, "sealed": sealed, "steps": 0}
    machine = type("Machine", (MemoryMachine,), kind)
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
    assert machine.steps >= FEWEST_STEPS


def test_the_machine_takes_two_thousand_steps():
    assert FEWEST_STEPS * len(KINDS) >= 2_000
