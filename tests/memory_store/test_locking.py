"""One writer for every bank, on a real SQLite and a real PostgreSQL, with real processes."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import sqlalchemy as sa

from memory_store import MemoryBankError
from memory_store.locking import hold_bank
from memory_store.schema import open_database
from tests.memory_store.lives import config_of, load, new_life, save

HOLDER = """
import sys
from memory_store.locking import hold_bank
from memory_store.schema import open_database
with hold_bank(open_database(sys.argv[1]), int(sys.argv[2])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_process_holds(engine: sa.Engine, bank_id: int) -> Iterator[subprocess.Popen[str]]:
    url = engine.url.render_as_string(hide_password=False)
    command = [sys.executable, "-c", HOLDER, url, str(bank_id)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        try:
            yield holder
        finally:
            holder.kill()


@pytest.fixture
def banks(engine: sa.Engine) -> tuple[int, int]:
    return new_life(engine, config_of(), "first")[0], new_life(engine, config_of(), "second")[0]


def test_a_second_writer_is_refused_and_readers_and_other_banks_are_not(engine, banks):
    first, second = banks
    with another_process_holds(engine, first):
        with pytest.raises(MemoryBankError) as refused, hold_bank(engine, first):
            raise AssertionError
        assert str(refused.value) == (
            "memory bank 'first' is being written by another process; stop that one, or write to another bank"
        )
        assert len(load(engine, first)) == 0
        with hold_bank(engine, second):
            pass


def test_a_process_that_is_killed_lets_go(engine, banks):
    with another_process_holds(engine, banks[0]) as holder:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        if engine.dialect.name != "sqlite":
            wait_for_the_server(engine)
        with hold_bank(engine, banks[0]):
            pass


def wait_for_the_server(engine: sa.Engine) -> None:
    """A server notices that a client is gone when it next reads from it, so its lock is waited for."""
    with engine.connect() as connection:
        connection.execute(sa.text("SET lock_timeout = '30s'"))
        key = connection.execute(
            sa.text("SELECT (classid::bigint << 32) | objid::bigint FROM pg_locks WHERE locktype = 'advisory'")
        ).scalar()
        if key is not None:
            connection.execute(sa.text(f"SELECT pg_advisory_lock({key}), pg_advisory_unlock({key})"))


def test_a_bank_can_be_held_again_once_it_is_let_go(engine, banks):
    """Also after what was done with it failed; and not twice at a time, even in one process."""
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), hold_bank(engine, banks[0]):
            1 / 0  # noqa: B018
    refused = pytest.raises(MemoryBankError, match="'first' is being written")
    with hold_bank(engine, banks[0]), refused, hold_bank(engine, banks[0]):
        raise AssertionError


def test_the_holder_writes_while_others_read(engine):
    bank_id, life = new_life(engine, config_of())
    with hold_bank(engine, bank_id):
        life.live(5)
        save(engine, bank_id, life)
        assert load(engine, bank_id).digest() == life.bank.digest()


def test_there_is_nothing_to_hold_where_there_is_no_bank(engine):
    with pytest.raises(MemoryBankError, match="memory bank 5 is not in this database"), hold_bank(engine, 5):
        raise AssertionError


def test_a_link_to_a_database_is_the_same_database(tmp_path):
    engine = open_database(f"sqlite:///{tmp_path / 'memory.sqlite'}")
    bank_id, _ = new_life(engine, config_of())
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "link.sqlite"
    link.symlink_to(tmp_path / "memory.sqlite")
    other = open_database(f"sqlite:///{link}")
    with (
        hold_bank(engine, bank_id),
        pytest.raises(MemoryBankError, match="is being written"),
        hold_bank(other, bank_id),
    ):
        raise AssertionError
    for each in (engine, other):
        each.dispose()


def test_a_database_in_memory_has_no_other_users():
    engine = open_database("sqlite://")
    bank_id, _ = new_life(engine, config_of())
    with hold_bank(engine, bank_id):
        pass
    engine.dispose()


def test_a_lock_that_cannot_be_made_is_one_sentence(tmp_path):
    engine = open_database(f"sqlite:///{tmp_path / 'memory.sqlite'}")
    bank_id, _ = new_life(engine, config_of())
    (tmp_path / f"memory.sqlite.bank-{bank_id}.lock").mkdir()
    refused = pytest.raises(MemoryBankError, match=r"memory bank 'paper' cannot be written: its lock .* cannot be made")
    with refused, hold_bank(engine, bank_id):
        raise AssertionError
    engine.dispose()
