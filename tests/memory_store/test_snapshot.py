"""Opening banks from snapshots: always the bank that the database has, and said where the snapshot was no good."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memory_store import MemoryBankError
from memory_store.opening import OpenedBank, open_bank, save_snapshot
from memory_store.records import Eviction
from memory_store.schema import memory_banks, memory_entries, memory_recollections, memory_settlements
from memory_store.snapshot import SNAPSHOT_FORMAT, snapshot_path
from tests.memory_store.lives import Life, config_of, load, new_life, save


def opened(engine: sa.Engine, bank_id: int, folder: Path, *, refresh: bool = False) -> OpenedBank:
    with engine.connect() as connection:
        return open_bank(connection, bank_id, folder, refresh=refresh)


def keep(engine: sa.Engine, bank_id: int, life: Life, folder: Path) -> Path:
    with engine.connect() as connection:
        return save_snapshot(connection, bank_id, life.bank, folder)


@pytest.mark.parametrize("eviction", list(Eviction))
def test_a_snapshot_and_the_rows_written_since_give_the_bank(engine, tmp_path, eviction):
    """Whatever happened since: entries came and went, askers were settled and then forgotten."""
    bank_id, life = new_life(engine, config_of(eviction, capacity=60))
    for since in (0, 1, 2, 5, 8):
        life.live(30)
        save(engine, bank_id, life)
        keep(engine, bank_id, life, tmp_path)
        held = {entry.entry_id for entry in life.bank.entries()}
        for _ in range(since):
            life.live(1)
            save(engine, bank_id, life)
        found = opened(engine, bank_id, tmp_path)
        assert (found.rebuilt, found.bank.digest()) == (None, life.bank.digest())
        assert found.entries_since == len({entry.entry_id for entry in life.bank.entries()} - held)
        assert found.bank.next_id == life.bank.next_id
    other = Life(found.bank, life.seed, life.now, ids={symbol: [*ids] for symbol, ids in life.ids.items()})
    for each in (life, other):
        each.live(60)
    assert other.bank.digest() == life.bank.digest()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32),
    eviction=st.sampled_from(Eviction),
    capacity=st.integers(1, 60),
    spans=st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=1, max_size=8),
)
def test_any_life_with_snapshots_at_any_time_is_opened_as_it_was_left(
    engine, tmp_path, seed, eviction, capacity, spans
):
    """Used or not, whenever it was written: with the snapshot and without there is one bank."""
    bank_id, life = new_life(engine, config_of(eviction, capacity=capacity), f"{seed} {spans} {eviction} {capacity}")
    for bars, kept in spans:
        life.live(bars)
        save(engine, bank_id, life)
        assert opened(engine, bank_id, tmp_path).bank.digest() == life.bank.digest()
        if kept:
            keep(engine, bank_id, life, tmp_path)
            found = opened(engine, bank_id, tmp_path)
            assert (found.rebuilt, found.entries_since) == (None, 0)
    assert load(engine, bank_id).digest() == life.bank.digest()
    with engine.begin() as connection:
        connection.execute(memory_banks.update().where(memory_banks.c.id == bank_id).values(name=f"done {bank_id}"))


def test_an_empty_bank_has_a_snapshot_too(engine, tmp_path):
    bank_id, life = new_life(engine, config_of())
    keep(engine, bank_id, life, tmp_path)
    found = opened(engine, bank_id, tmp_path)
    assert (found.rebuilt, found.bank.digest()) == (None, life.bank.digest())


def test_symbols_that_came_since_or_are_gone_are_named(engine, tmp_path):
    bank_id, life = new_life(engine, config_of(capacity=6))
    life.bank.append([1, 2, 3, 4, 5], symbol="GONE", bar_time=1)
    life.live(4)
    save(engine, bank_id, life)
    keep(engine, bank_id, life, tmp_path)
    life.bank.append([5, 4, 3, 2, 1], symbol="AAA", bar_time=2)
    save(engine, bank_id, life)
    found = opened(engine, bank_id, tmp_path)
    assert (found.rebuilt, found.bank.digest()) == (None, life.bank.digest())
    assert found.bank.find("AAA", 2) == life.bank.next_id - 1
    with pytest.raises(MemoryBankError, match="GONE: the bar at 1"):
        found.bank.append([1, 2, 3, 4, 5], symbol="GONE", bar_time=1)


def test_refreshing_writes_a_snapshot_where_there_was_none_and_where_it_got_old(engine, tmp_path):
    bank_id, life = new_life(engine, config_of())
    life.live(20)
    save(engine, bank_id, life)
    assert opened(engine, bank_id, tmp_path / "new", refresh=True).rebuilt == "there was none"
    assert opened(engine, bank_id, tmp_path / "new", refresh=True).entries_since == 0
    life.live(4)
    save(engine, bank_id, life)
    assert opened(engine, bank_id, tmp_path / "new", refresh=True).entries_since > 0
    found = opened(engine, bank_id, tmp_path / "new", refresh=True)
    assert (found.rebuilt, found.entries_since) == (None, 0)
    assert [path.suffix for path in (tmp_path / "new").iterdir()] == [".snapshot"]


def test_a_folder_that_cannot_be_written_does_not_keep_a_bank_from_opening(engine, tmp_path):
    bank_id, life = new_life(engine, config_of())
    life.live(20)
    save(engine, bank_id, life)
    (tmp_path / "taken").write_text("a file where a folder should be")
    found = opened(engine, bank_id, tmp_path / "taken", refresh=True)
    assert found.bank.digest() == life.bank.digest()
    assert found.rebuilt is not None and found.rebuilt.startswith("it could not be read")
    assert found.unsaved is not None and "could not be written: " in found.unsaved and "\n" not in found.unsaved


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 100)


def cut_short(path: Path) -> None:
    os.truncate(path, 10)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def lengthen(path: Path) -> None:
    os.truncate(path, path.stat().st_size + 1)


def remove(path: Path) -> None:
    path.unlink()


def overwrite(path: Path) -> None:
    path.write_bytes(b"something else entirely, by somebody else" * 9)


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def change(offset: int, content: bytes) -> Callable[[Path], None]:
    def changed(path: Path) -> None:
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(content)

    return changed


def flip_late(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (remove, "there was none"),
        (cut, r"it has \d+ bytes instead of \d+"),
        (lengthen, r"it has \d+ bytes instead of \d+"),
        (cut_short, "it has only 10 bytes"),
        (empty, "it could not be read"),
        (make_folder, "it could not be read"),
        (overwrite, "it is no snapshot"),
        (change(8, bytes([SNAPSHOT_FORMAT + 1])), f"it has format {SNAPSHOT_FORMAT + 1}, this version reads"),
        (change(40, b"?"), "its header is damaged"),
        (flip_late, r"its \w+ are damaged"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_harmed_snapshot_is_not_used_and_it_is_said_why(engine, tmp_path, harm, reason):
    bank_id, life = new_life(engine, config_of())
    life.live(30)
    save(engine, bank_id, life)
    harm(keep(engine, bank_id, life, tmp_path))
    found = opened(engine, bank_id, tmp_path)
    assert found.rebuilt is not None
    assert re.match(reason, found.rebuilt)
    assert found.bank.digest() == life.bank.digest()


def test_every_byte_counts(engine, tmp_path):
    """Whichever byte is changed, the bank is the right one."""
    bank_id, life = new_life(engine, config_of(capacity=8))
    life.live(6)
    save(engine, bank_id, life)
    path = keep(engine, bank_id, life, tmp_path)
    whole = path.read_bytes()
    for offset in range(0, len(whole), 13):
        change(offset, bytes([whole[offset] ^ 0x40]))(path)
        assert opened(engine, bank_id, tmp_path).bank.digest() == life.bank.digest()
        path.write_bytes(whole)


def test_a_snapshot_of_another_bank_is_not_used(engine, tmp_path):
    """Neither one that was moved, nor one of a bank of the same name by other rules."""
    bank_id, life = new_life(engine, config_of(), "one")
    other_id, other = new_life(engine, config_of(), "two", seed=5)
    for each_id, each in ((bank_id, life), (other_id, other)):
        each.live(20)
        save(engine, each_id, each)
    keep(engine, other_id, other, tmp_path).rename(snapshot_path(tmp_path, "one"))
    found = opened(engine, bank_id, tmp_path)
    assert (found.rebuilt, found.bank.digest()) == ("it is of memory bank 'two'", life.bank.digest())
    keep(engine, bank_id, life, tmp_path)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE memory_banks SET capacity = 41 WHERE name = 'one'")
    assert opened(engine, bank_id, tmp_path).rebuilt == "it is of a bank with another encoder or other rules"


@pytest.mark.parametrize(
    ("lost", "reason"),
    [
        ("entry", "it is ahead of the database: it goes up to entry"),
        ("outcome", "it differs from the database in the outcomes of entry"),
        ("recollection", "it counts other entries or recollections than the database has"),
    ],
)
def test_a_snapshot_that_is_ahead_of_the_database_is_not_used(engine, tmp_path, lost, reason):
    """The database was put back to an earlier day: what it lost is not to be seen."""
    bank_id, life = new_life(engine, config_of(Eviction.IMPORTANCE))
    life.live(30)
    save(engine, bank_id, life)
    keep(engine, bank_id, life, tmp_path)
    last, settled = life.bank.next_id - 1, life.ids["BTCUSDT"][-2]
    with engine.begin() as connection:
        if lost == "outcome":
            connection.execute(memory_settlements.delete().where(memory_settlements.c.entry_id == settled))
        else:
            connection.execute(memory_recollections.delete().where(memory_recollections.c.asker_id == last))
        if lost == "entry":
            connection.execute(memory_entries.delete().where(memory_entries.c.entry_id == last))
    found = opened(engine, bank_id, tmp_path)
    assert found.rebuilt is not None and found.rebuilt.startswith(reason)
    assert found.bank.digest() == load(engine, bank_id).digest() != life.bank.digest()


@pytest.mark.parametrize("otherwise", [False, True], ids=["never", "otherwise"])
def test_credit_for_an_outcome_that_the_database_lost_is_not_kept_though_its_asker_is_gone(engine, tmp_path, otherwise):
    """The database was put back to an earlier day, and the asker evicted before its outcome came, or when another had come."""
    bank_id, life = new_life(engine, config_of(Eviction.IMPORTANCE))
    life.live(30)
    save(engine, bank_id, life)
    keep(engine, bank_id, life, tmp_path)
    asker, entry, settlement = memory_recollections.c.asker_id, memory_entries.c, memory_settlements.c
    with engine.begin() as connection:
        settled = (settlement.entry_id == asker) & (settlement.horizon == life.bank.config.primary)
        held = (entry.entry_id == asker) & entry.evicted_time.is_(None)
        lost = connection.execute(sa.select(sa.func.max(asker)).where(settled, held)).scalar_one()
        row = settlement.entry_id == lost
        changed = memory_settlements.update().values(outcome=settlement.outcome + 1.0)
        connection.execute((changed if otherwise else memory_settlements.delete()).where(row))
        connection.execute(memory_entries.update().where(entry.entry_id == lost).values(evicted_time=1))
    found = opened(engine, bank_id, tmp_path)
    assert found.bank.digest() == load(engine, bank_id).digest()
    reason = "it differs from the database in the outcomes" if otherwise else "it counts credit for other outcomes"
    assert found.rebuilt is not None and found.rebuilt.startswith(reason)


def test_an_eviction_that_the_database_lost_is_undone(engine, tmp_path):
    bank_id, life = new_life(engine, config_of(Eviction.IMPORTANCE))
    life.live(30)
    save(engine, bank_id, life)
    keep(engine, bank_id, life, tmp_path)
    with engine.begin() as connection:
        gone = sa.select(sa.func.max(memory_entries.c.entry_id)).where(memory_entries.c.evicted_time.is_not(None))
        lost = connection.execute(gone).scalar_one()
        kept = next(entry.entry_id for entry in life.bank.entries() if entry.entry_id < lost)
        connection.execute(
            memory_entries.update()
            .where(memory_entries.c.entry_id.in_([lost, kept]))
            .values(evicted_time=sa.case((memory_entries.c.entry_id == kept, 1), else_=None))
        )
    found = opened(engine, bank_id, tmp_path)
    assert found.rebuilt == "it is ahead of the database: it lacks entries that are held"
    assert found.bank.find(*next((e.symbol, e.bar_time) for e in found.bank.entries() if e.entry_id == lost)) == lost


@pytest.mark.parametrize("column", ["regime", "novelty", "bar_time", "symbol"])
def test_a_row_that_was_changed_by_hand_is_believed(engine, tmp_path, column):
    """A database put back to an earlier day may have gone another way since."""
    bank_id, life = new_life(engine, config_of())
    life.live(30)
    save(engine, bank_id, life)
    keep(engine, bank_id, life, tmp_path)
    value = {"regime": 77, "novelty": 0.125, "bar_time": memory_entries.c.bar_time + 1, "symbol": "XRPUSDT"}[column]
    with engine.begin() as connection:
        connection.execute(
            memory_entries.update().where(memory_entries.c.entry_id == life.bank.next_id - 1).values({column: value})
        )
    found = opened(engine, bank_id, tmp_path)
    assert found.rebuilt is not None and found.rebuilt.startswith("it differs from the database between entries")
    assert found.bank.digest() == load(engine, bank_id).digest() != life.bank.digest()


def test_a_stale_snapshot_is_not_used(engine, tmp_path):
    bank_id, life = new_life(engine, config_of())
    life.live(10)
    save(engine, bank_id, life)
    keep(engine, bank_id, life, tmp_path)
    life.live(20)
    save(engine, bank_id, life)
    found = opened(engine, bank_id, tmp_path)
    assert found.rebuilt is not None and found.rebuilt.startswith("it is stale: ")
    assert found.bank.digest() == life.bank.digest()


def test_damaged_rows_are_named_with_a_snapshot_as_without(engine, tmp_path):
    bank_id, life = new_life(engine, config_of())
    life.live(30)
    save(engine, bank_id, life)
    keep(engine, bank_id, life, tmp_path)
    life.live(2)
    save(engine, bank_id, life)
    last = life.bank.next_id - 1
    with engine.begin() as connection:
        connection.execute(memory_entries.update().where(memory_entries.c.entry_id == last).values(key=b"\0" * 20))
    with pytest.raises(MemoryBankError, match=f"entry {last} is damaged"):
        opened(engine, bank_id, tmp_path)


def test_only_what_is_in_the_database_becomes_a_snapshot(engine, tmp_path):
    bank_id, life = new_life(engine, config_of())
    life.live(5)
    with pytest.raises(
        MemoryBankError, match=r"memory bank 'paper' holds \d+ entries up to number \d+, the database 0"
    ):
        keep(engine, bank_id, life, tmp_path)
    assert list(tmp_path.glob("*.snapshot")) == []


def test_any_name_of_a_bank_is_a_name_of_a_file(engine, tmp_path):
    names = ["a/b", "..", "Ω" * 300, "a b?*", "x" * 200, "x" * 201]
    paths = {snapshot_path(tmp_path, name) for name in names}
    assert len(paths) == len(names) and all(path.parent == tmp_path for path in paths)
    for name in names:
        bank_id, life = new_life(engine, config_of(), name)
        life.live(3)
        save(engine, bank_id, life)
        keep(engine, bank_id, life, tmp_path)
        assert opened(engine, bank_id, tmp_path).rebuilt is None


FULL = """
import resource, signal, sys
from pathlib import Path
from memory_store.opening import save_snapshot
from memory_store.schema import open_database
from memory_store.storage import load_bank
engine = open_database(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with engine.connect() as connection:
    bank = load_bank(connection, int(sys.argv[2]))
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
    save_snapshot(connection, int(sys.argv[2]), bank, Path(sys.argv[3]))
"""


def test_a_full_disk_is_said_and_leaves_the_earlier_snapshot(engine, tmp_path):
    bank_id, life = new_life(engine, config_of())
    life.live(30)
    save(engine, bank_id, life)
    path = keep(engine, bank_id, life, tmp_path)
    before = path.read_bytes()
    url = engine.url.render_as_string(hide_password=False)
    command = [sys.executable, "-c", FULL, url, str(bank_id), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert "MemoryBankError: the snapshot" in done.stderr and "could not be written: File too large" in done.stderr
    assert path.read_bytes() == before
    assert list(tmp_path.glob("*.tmp")) == []
