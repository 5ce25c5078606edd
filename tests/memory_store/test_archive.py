"""An archive of sealed segments: the bank answers as one that never had to make room, from files as from memory."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memory_store import BankConfig, MemoryBank, MemoryBankError, Metric, archive
from memory_store.opening import OpenedBank, open_bank, save_snapshot
from memory_store.policy import Asker
from memory_store.pruned import WORTHWHILE
from memory_store.records import Eviction, IndexKind
from memory_store.restoration import BankState
from memory_store.ring import NOT_YET
from memory_store.segment_files import SEGMENT_FORMAT
from memory_store.storage import create_bank, load_bank, write_changes
from tests.memory_store.test_finding import policies
from tests.memory_store.test_oracle import SYMBOLS, assert_identical

BAR_MS = 3_600_000
K = 6


@pytest.fixture(autouse=True)
def short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "SMALLEST_SEGMENT", 16)


@dataclass
class Twins:
    """A bank with an archive, and one that holds as much in memory; both live through the same."""

    capacity: int
    sealed: int
    metric: Metric = Metric.COSINE
    seed: int = 0
    now: int = 0
    pending: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)
        config = BankConfig(self.capacity, 3, (1, 2), 0, BAR_MS, self.metric, sealed=self.sealed)
        self.bank = MemoryBank(config, encoder_version="v1")
        self.large = MemoryBank(replace(config, capacity=config.holds, sealed=0), encoder_version="v1")

    @property
    def both(self) -> tuple[MemoryBank, MemoryBank]:
        return self.bank, self.large

    def live(self, bars: int) -> None:
        """One moment a bar, its outcome known two bars later; keys of eighths, whose products often tie."""
        for _ in range(bars):
            self.now += BAR_MS
            key = self.random.integers(-4, 5, 3) / 8 + np.array([1 / 64, 0, 0])
            label, outcome = int(self.random.integers(3)), float(self.random.standard_normal())
            symbol = SYMBOLS[int(self.random.integers(3))]
            for bank in self.both:
                if len(self.pending) > 1:
                    bank.settle(self.pending[-2], 0, outcome, self.now)
                entry_id = bank.append(key, symbol=symbol, bar_time=self.now, regime=label)
            self.pending.append(entry_id)

    def ask(self, **arguments: object) -> None:
        """The same question to both, about then and about the past."""
        query = self.random.integers(-4, 5, 3) / 8 + np.array([1 / 64, 0, 0])
        for as_of in (self.now, self.now - 20 * BAR_MS, self.now - int(self.random.integers(200)) * BAR_MS, 10**15):
            found = [bank.search(query, as_of=as_of, k=K, **arguments) for bank in self.both]
            assert_identical(*found)
            assert found[0].preferences.tobytes() == found[1].preferences.tobytes()
            assert self.bank.visible_count(as_of) == self.large.visible_count(as_of)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32),
    metric=st.sampled_from(list(Metric)),
    capacity=st.sampled_from([3, 20, 70]),
    sealed=st.sampled_from([1, 16, 50, 150]),
    policy=policies,
    symbols=st.sampled_from([None, ["ETHUSDT"], []]),
)
def test_a_bank_with_an_archive_answers_as_one_that_is_as_large(seed, metric, capacity, sealed, policy, symbols):
    twins = Twins(capacity, sealed, metric, seed)
    for bars in (10, 60, 40, 90):
        twins.live(bars)
        twins.ask()
        twins.ask(symbols=symbols)
        twins.ask(policy=policy, asker=Asker("BTCUSDT", seed % 3, twins.now))
        assert len(twins.bank) == len(twins.large)
        some = twins.random.integers(max(0, twins.bank.next_id - capacity - sealed), twins.bank.next_id, 3).tolist()
        for bank in twins.both:
            bank.evict(some)
        twins.ask()
        entries = [list(bank.entries()) for bank in twins.both]
        assert [entry.entry_id for entry in entries[0]] == [entry.entry_id for entry in entries[1]]
        for one, other in zip(*entries, strict=True):
            assert one.key.tobytes() == other.key.tobytes()
            assert (one.symbol, one.outcomes, one.settled_times) == (other.symbol, other.outcomes, other.settled_times)
            assert twins.bank.find(one.symbol, one.bar_time) == one.entry_id


def test_segments_large_enough_for_bounds_lose_no_neighbour(monkeypatch):
    """At real sizes, where a segment is scanned by bounds, filled at once and moment by moment."""
    monkeypatch.setattr(archive, "SMALLEST_SEGMENT", WORTHWHILE)
    capacity, count, dimension = 500, 2 * WORTHWHILE + 900, 12
    random = np.random.default_rng(3)
    keys = random.standard_normal((count + 600, dimension)) * np.arange(1, dimension + 1) ** -1.0
    keys = (keys / np.linalg.norm(keys, axis=1, keepdims=True)).astype(np.float32)
    config = BankConfig(capacity, dimension, (1,), 0, 0, Metric.COSINE, sealed=2 * count)
    banks = [MemoryBank(each, encoder_version="v1") for each in (config, replace(config, capacity=2 * count, sealed=0))]
    for bank in banks:
        bank.restore_state(columns(keys[:count]))
        for number in range(count, len(keys)):
            bank.settle(bank.append(keys[number], symbol="BTCUSDT", bar_time=number), 0, 0.5, number + 1)
    for query in keys[::4099] + 0.01:
        for as_of in (count // 2, len(keys)):
            assert_identical(*(bank.search(query, as_of=as_of, k=32) for bank in banks))


def columns(keys: np.ndarray) -> BankState:
    """Entries of one symbol, a bar each, whose outcomes are known."""
    times = np.arange(len(keys))
    return BankState(
        next_id=len(keys),
        last_times={"BTCUSDT": len(keys) - 1},
        names=("BTCUSDT",),
        ids=times,
        symbols=np.zeros(len(keys), dtype=np.int32),
        bar_times=times,
        regimes=np.zeros(len(keys), dtype=np.int32),
        keys=keys,
        outcomes=np.full((len(keys), 1), 0.5),
        settled_times=times[:, None] + 1,
        novelties=np.zeros(len(keys), dtype=np.float32),
        hits=np.zeros(len(keys), dtype=np.int32),
        last_hits=np.full(len(keys), NOT_YET, dtype=np.int64),
        credits=np.zeros(len(keys), dtype=np.int64),
    )


def test_what_comes_later_is_never_shown_to_an_earlier_question():
    """Two lives that part at some bar answer alike as of any time before it, the archive among them."""
    one, other = Twins(20, 100, seed=4), Twins(20, 100, seed=4)
    for twins in (one, other):
        twins.live(150)
    other.random = np.random.default_rng(99)
    parted = one.now
    for twins in (one, other):
        twins.live(15)
    query = np.array([0.5, 0.25, 0.1])
    for back in range(0, 120, 7):
        as_of = parted - back * BAR_MS
        found = [twins.bank.search(query, as_of=as_of, k=K) for twins in (one, other)]
        assert_identical(*found)
        assert (found[0].bar_times[found[0].mask] < as_of).all()


def test_a_moment_whose_outcome_is_not_known_when_it_leaves_the_ring_is_not_sealed():
    bank = MemoryBank(BankConfig(4, 2, (1, 9), 0, 0, Metric.COSINE, sealed=10), encoder_version="v1")
    for number in range(4):
        bank.append([1.0, number], symbol="BTCUSDT", bar_time=number)
    bank.settle(0, 0, 0.1, 5)
    for number in range(4, 6):
        bank.append([1.0, number], symbol="BTCUSDT", bar_time=number)
    assert [entry.entry_id for entry in bank.entries()] == [0, 2, 3, 4, 5]
    assert bank.take_changes().evicted == (1,)
    bank.settle(0, 1, 0.9, 20)
    assert bank.entry(0).outcomes == (0.1, None), "a sealed moment takes no more outcomes"
    bank.note(5, as_of=100, ids=[0], weights=[1.0])
    assert bank.entry(0).hits == 0 and not bank.take_changes().recollections


def test_an_archive_needs_the_oldest_to_make_room():
    with pytest.raises(
        MemoryBankError, match="sealed is 5 and eviction importance; only what leaves by age can be sealed"
    ):
        BankConfig(4, 2, (1,), 0, 0, Metric.COSINE, Eviction.IMPORTANCE, 1000, sealed=5)
    with pytest.raises(MemoryBankError, match="sealed is -1; give 0 or more entries"):
        BankConfig(4, 2, (1,), 0, 0, Metric.COSINE, sealed=-1)


# -- as files ---------------------------------------------------------------------------------------------------------


@dataclass
class Stored:
    """A bank with an archive in a database, and its files."""

    engine: sa.Engine
    folder: Path
    twins: Twins = field(default_factory=lambda: Twins(20, 100))

    def __post_init__(self) -> None:
        with self.engine.begin() as connection:
            self.bank_id = create_bank(connection, "archived", self.twins.bank.config, "v1")

    def save(self) -> None:
        with self.engine.begin() as connection:
            write_changes(connection, self.bank_id, self.twins.bank.take_changes(), self.twins.now)
        with self.engine.connect() as connection:
            save_snapshot(connection, self.bank_id, self.twins.bank, self.folder)

    def open(self) -> OpenedBank:
        with self.engine.connect() as connection:
            opened = open_bank(connection, self.bank_id, self.folder)
            assert opened.bank.digest() == load_bank(connection, self.bank_id).digest() == self.twins.bank.digest()
        return opened

    @property
    def files(self) -> list[Path]:
        return sorted(self.folder.glob("*.segments/*.segment"))


@pytest.fixture
def stored(engine: sa.Engine, tmp_path: Path) -> Stored:
    """After 150 bars: 20 in the ring, 100 sealed, in segments of 16, of which the first is half gone."""
    stored = Stored(engine, tmp_path)
    stored.twins.live(150)
    stored.save()
    return stored


def test_a_bank_opened_from_its_segments_goes_on_as_the_one_that_was_never_closed(stored):
    assert [path.stem.lstrip("0") for path in stored.files] == ["16", "32", "48", "64", "80", "96", "112"]
    opened = stored.open()
    assert (opened.rebuilt, opened.sealed_again, opened.unsaved) == (None, 0, None)
    stored.twins.bank = opened.bank
    stored.twins.live(40)
    stored.twins.ask()
    firsts = [path.stem.lstrip("0") for path in stored.files]
    assert firsts == ["64", "80", "96", "112", "128", "144"], "sealed ones become files at once, those gone are removed"
    stored.save()
    assert stored.open().sealed_again == 0


@pytest.mark.parametrize("harm", ["cut", "flip", "lose", "swap", "newer format"])
def test_a_harmed_segment_is_made_again_from_its_rows(stored, harm):
    path = stored.files[2]
    content = path.read_bytes()
    path.unlink()
    if harm == "cut":
        path.write_bytes(content[:-50])
    elif harm == "flip":
        path.write_bytes(content[:5000] + bytes([content[5000] ^ 1]) + content[5001:])
    elif harm == "swap":
        path.write_bytes(stored.files[0].read_bytes())
    elif harm == "newer format":
        path.write_bytes(content[:8] + bytes([SEGMENT_FORMAT + 1]) + content[9:])
    assert stored.open().sealed_again == 1
    assert stored.open().sealed_again == 0
    assert path.read_bytes() == content


def test_rows_are_believed_and_not_the_segment(stored):
    """An entry evicted elsewhere, and a life that parted after an older database was put back."""
    with stored.engine.begin() as connection:
        connection.execute(sa.text("UPDATE memory_entries SET evicted_time = 1 WHERE entry_id = 60"))
    stored.twins.bank.evict([60])
    assert stored.open().sealed_again == 0
    with stored.engine.begin() as connection:
        connection.execute(sa.text("UPDATE memory_settlements SET outcome = 7 WHERE entry_id = 75 AND horizon = 0"))
        opened = open_bank(connection, stored.bank_id, stored.folder)
    assert opened.sealed_again == 1 and opened.bank.entry(75).outcomes[0] == 7.0


def test_a_segment_of_which_nothing_is_held_any_more_is_left_out(stored):
    gone = range(64, 80)
    with stored.engine.begin() as connection:
        marked = "UPDATE memory_entries SET evicted_time = 1 WHERE entry_id BETWEEN 64 AND 79"
        assert connection.execute(sa.text(marked)).rowcount == len(gone)
    stored.twins.bank.evict(gone)
    opened = stored.open()
    assert opened.sealed_again == 0 and len(opened.bank) == 120 - len(gone)
    assert len(stored.files) == 6


def test_a_folder_that_cannot_be_written_keeps_segments_in_memory_and_says_so(stored):
    for path in stored.files:
        path.unlink()
    folder = stored.folder / f"{next(stored.folder.glob('*.segments')).name}"
    folder.rmdir()
    folder.write_text("in the way")
    opened = stored.open()
    assert opened.sealed_again == 7
    assert opened.unsaved is not None and "a sealed segment could not be kept in" in opened.unsaved


def test_the_archive_as_of_any_past_moment_is_that_of_the_moment(stored):
    digests = {stored.twins.now: stored.twins.bank.digest()}
    for _ in range(5):
        stored.twins.live(13)
        stored.save()
        digests[stored.twins.now] = stored.twins.bank.digest()
    for time, digest in digests.items():
        with stored.engine.connect() as connection:
            assert load_bank(connection, stored.bank_id, as_of=time).digest() == digest


def test_an_approximate_ring_has_an_exact_archive():
    config = BankConfig(9_000, 8, (1,), 0, 0, Metric.COSINE, index=IndexKind.APPROXIMATE, sealed=3_000)
    bank = MemoryBank(config, encoder_version="v1", record_changes=False)
    keys = np.random.default_rng(7).standard_normal((11_000, 8)).astype(np.float32)
    bank.restore_state(columns((keys / np.linalg.norm(keys, axis=1, keepdims=True)).astype(np.float32)))
    for number in range(0, 2_000, 100):
        assert bank.search(keys[number], as_of=11_001, k=4).ids[0] == number
