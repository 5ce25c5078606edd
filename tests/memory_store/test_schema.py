"""The memory's tables: made, migrated, refused; on a real SQLite and a real PostgreSQL."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from memory_store import BankConfig, MemoryBank, MemoryBankError, Metric, open_database
from memory_store.schema import (
    MEMORY_FORMAT,
    memory_entries,
    memory_format,
    memory_metadata,
    memory_recollections,
    prepare_tables,
    read_format,
)
from memory_store.storage import create_bank, load_bank, read_config, write_changes
from tests.memory_store.lives import config_of, load, new_life, save

FORMAT_1 = """
CREATE TABLE memory_banks (
    id {serial}, name TEXT NOT NULL, encoder_version TEXT NOT NULL, capacity BIGINT NOT NULL, dimension INTEGER NOT NULL,
    horizons TEXT NOT NULL, primary_horizon INTEGER NOT NULL, embargo_ms BIGINT NOT NULL, metric TEXT NOT NULL,
    PRIMARY KEY (id), UNIQUE (name));
CREATE TABLE memory_entries (
    bank_id INTEGER NOT NULL, entry_id BIGINT NOT NULL, symbol TEXT NOT NULL, bar_time BIGINT NOT NULL, key {blob} NOT NULL,
    regime INTEGER NOT NULL, encoder_version TEXT NOT NULL, written_time BIGINT NOT NULL, evicted_time BIGINT,
    PRIMARY KEY (bank_id, entry_id), UNIQUE (bank_id, symbol, bar_time),
    FOREIGN KEY(bank_id) REFERENCES memory_banks (id));
CREATE TABLE memory_settlements (
    bank_id INTEGER NOT NULL, entry_id BIGINT NOT NULL, horizon INTEGER NOT NULL, outcome {double} NOT NULL,
    settled_time BIGINT NOT NULL, PRIMARY KEY (bank_id, entry_id, horizon),
    FOREIGN KEY(bank_id, entry_id) REFERENCES memory_entries (bank_id, entry_id)) {without_rowid};
INSERT INTO memory_banks VALUES (7, 'old', 'v1', 4, 2, '1,24', 1, 10, 'inner_product');
"""
"""What the first version of this package made, and a bank in it."""
KEYS = np.arange(12, dtype="<f4").reshape(6, 2)


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sa.Engine]:
    """A database without tables, of both kinds in turn."""
    local = f"sqlite:///{tmp_path / 'memory.sqlite'}"
    engine = sa.create_engine(local if request.param == "sqlite" else request.getfixturevalue("postgres_url"))
    memory_metadata.drop_all(engine)  # a server is shared by all tests of a worker, and others leave their tables
    yield engine
    memory_metadata.drop_all(engine)
    engine.dispose()


@pytest.fixture
def old(empty: sa.Engine) -> sa.Engine:
    """A database of format 1 with six entries, two of them evicted."""
    words = {"serial": "INTEGER NOT NULL", "blob": "BLOB", "double": "DOUBLE", "without_rowid": "WITHOUT ROWID"}
    if empty.dialect.name != "sqlite":
        words = {"serial": "SERIAL", "blob": "BYTEA", "double": "DOUBLE PRECISION", "without_rowid": ""}
    with empty.begin() as connection:
        for statement in FORMAT_1.format(**words).split(";"):
            if statement.strip():
                connection.exec_driver_sql(statement)
        entry = sa.text(
            "INSERT INTO memory_entries VALUES (7, :id, :symbol, :time, :key, :regime, 'v1', :time, :evicted)"
        )
        settlement = sa.text("INSERT INTO memory_settlements VALUES (7, :id, :horizon, :outcome, :time)")
        for number, key in enumerate(KEYS):
            evicted = 50 if number < 2 else None
            row = {"id": number, "symbol": "BTCUSDT", "time": number, "key": key.tobytes(), "regime": number % 3}
            connection.execute(entry, {**row, "evicted": evicted})
            for horizon in range(2 if number < 5 else 1):
                row = {"id": number, "horizon": horizon, "outcome": number / 3, "time": number + horizon + 1}
                connection.execute(settlement, row)
    return empty


def old_bank() -> MemoryBank:
    """The same bank, made by living."""
    config = BankConfig(
        capacity=4, dimension=2, horizons=(1, 24), primary=1, embargo_ms=10, metric=Metric.INNER_PRODUCT
    )
    bank = MemoryBank(config, encoder_version="v1")
    for number, key in enumerate(KEYS):
        bank.append(key, symbol="BTCUSDT", bar_time=number, regime=number % 3)
        for horizon in range(2 if number < 5 else 1):
            bank.settle(number, horizon, number / 3, number + horizon + 1)
    return bank


def structure(engine: sa.Engine) -> dict[str, object]:
    """Columns, keys and indexes of all tables of the memory."""
    inspector = sa.inspect(engine)
    return {
        table: (
            [
                {name: str(column[name]) for name in ("name", "nullable", "type")}
                for column in inspector.get_columns(table)
            ],
            inspector.get_pk_constraint(table)["constrained_columns"],
            sorted(str(index["column_names"]) for index in inspector.get_indexes(table)),
        )
        for table in memory_metadata.tables
    }


def test_new_tables_say_their_format_and_are_made_once(empty):
    with empty.begin() as connection:
        assert read_format(connection) is None
        prepare_tables(connection)
        assert read_format(connection) == MEMORY_FORMAT
    bank_id, life = new_life(empty, config_of())
    life.live(10)
    save(empty, bank_id, life)
    with empty.begin() as connection:
        prepare_tables(connection)
    assert load(empty, bank_id).digest() == life.bank.digest()


def test_a_bank_of_format_1_is_migrated_and_is_what_it_was(old):
    """Its entries, outcomes, evictions; by the rules that there were; ready for what the new format can hold."""
    with old.begin() as connection:
        assert read_format(connection) == 1
        prepare_tables(connection)
        assert read_format(connection) == MEMORY_FORMAT
    bank = load(old, 7)
    assert bank.digest() == old_bank().digest()
    assert (bank.next_id, len(bank), bank.config) == (6, 4, old_bank().config)
    assert len(load(old, 7, as_of=49)) == 4 and load(old, 7, as_of=1).find("BTCUSDT", 0) == 0
    with old.begin() as connection:
        entry_id = bank.append([1.0, 2.0], symbol="BTCUSDT", bar_time=99, novelty=0.25)
        bank.note(entry_id, as_of=99, ids=[4], weights=[1.0])
        write_changes(connection, 7, bank.take_changes(), 99)
        assert create_bank(connection, "new", config_of(), "v1") != 7
    assert load(old, 7).digest() == bank.digest()


def test_a_bank_of_format_2_is_migrated_and_is_what_it_was(empty):
    """It had no archive, and has none now; a new one may."""
    with empty.begin() as connection:
        prepare_tables(connection)
    bank_id, life = new_life(empty, config_of())
    life.live(30)
    save(empty, bank_id, life)
    with empty.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE memory_banks DROP COLUMN sealed")
        connection.execute(memory_format.update().values(version=2))
        assert read_format(connection) == 2
        prepare_tables(connection)
        assert read_format(connection) == MEMORY_FORMAT
        assert read_config(connection, bank_id)[0] == life.bank.config
        archived = replace(config_of(), sealed=7)
        assert read_config(connection, create_bank(connection, "archived", archived, "v1"))[0] == archived
    assert load(empty, bank_id).digest() == life.bank.digest()


def test_migrated_tables_are_those_that_are_made_today(old):
    with old.begin() as connection:
        prepare_tables(connection)
    migrated = structure(old)
    memory_metadata.drop_all(old)
    with old.begin() as connection:
        prepare_tables(connection)
    assert migrated == structure(old)


def test_a_migration_that_fails_changes_nothing(old):
    """Something of its own stands in the way of the last step."""
    with old.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE memory_recollections (mine INTEGER)")
    with pytest.raises(sa.exc.DBAPIError), old.begin() as connection:
        prepare_tables(connection)
    with old.begin() as connection:
        assert read_format(connection) == 1
        assert "novelty" not in {column["name"] for column in sa.inspect(connection).get_columns("memory_entries")}
        connection.exec_driver_sql("DROP TABLE memory_recollections")
    with old.begin() as connection:
        prepare_tables(connection)
    assert load(old, 7).digest() == old_bank().digest()


def test_a_newer_format_is_refused_in_one_sentence_and_left_alone(empty):
    with empty.begin() as connection:
        prepare_tables(connection)
        connection.execute(memory_format.update().values(version=MEMORY_FORMAT + 1))
    with empty.begin() as connection:
        with pytest.raises(MemoryBankError) as refused:
            prepare_tables(connection)
        assert str(refused.value) == (
            f"the memory in this database has format {MEMORY_FORMAT + 1}, this version knows {MEMORY_FORMAT}; update it or "
            "use another database"
        )
        assert read_format(connection) == MEMORY_FORMAT + 1


def test_tables_that_do_not_say_their_format_are_not_touched(empty):
    with empty.begin() as connection:
        prepare_tables(connection)
        connection.execute(memory_format.delete())
    with empty.begin() as connection, pytest.raises(MemoryBankError, match="memory_format is empty"):
        prepare_tables(connection)


OPENER = """
import sys
from memory_store.schema import open_database
from memory_store.storage import list_banks
with open_database(sys.argv[1]).connect() as connection:
    print([bank.name for bank in list_banks(connection)])
"""


def openers(engine: sa.Engine) -> list[str]:
    """What three processes say that open a database at once."""
    url = engine.url.render_as_string(hide_password=False)
    command = [sys.executable, "-c", OPENER, url]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    answers = [process.communicate()[0].strip() for process in processes]
    assert [process.returncode for process in processes] == [0] * 3
    return answers


def test_any_number_of_processes_may_make_the_tables_at_once(empty):
    assert openers(empty) == ["[]"] * 3


def test_any_number_of_processes_may_migrate_at_once(old):
    assert openers(old) == ["['old']"] * 3
    assert load(old, 7).digest() == old_bank().digest()


def test_one_url_is_all_that_is_needed(tmp_path):
    """A memory alone: no bot, no journal."""
    url = f"sqlite:///{tmp_path / 'memory.sqlite'}"
    engine = open_database(url)
    with engine.begin() as connection:
        bank_id = create_bank(connection, "mine", config_of(), "v1")
        bank = load_bank(connection, bank_id)
        bank.append(np.ones(5), symbol="sensor", bar_time=1)
        write_changes(connection, bank_id, bank.take_changes(), 1)
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    engine.dispose()
    again = open_database(url)
    with again.connect() as connection:
        assert load_bank(connection, bank_id).digest() == bank.digest()
        assert read_config(connection, bank_id) == (config_of(), "v1")
        assert connection.execute(sa.select(sa.func.count()).select_from(memory_entries)).scalar() == 1
        assert connection.execute(sa.select(sa.func.count()).select_from(memory_recollections)).scalar() == 0
    again.dispose()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("not a url", "'not a url' is no database URL; write sqlite:///PATH or postgresql"),
        ("sqlite:////nowhere/at/all/memory.sqlite", "could not be opened: unable to open database file; check the URL"),
        ("oracle9://x/y", "needs a package that is not installed"),
        (
            "postgresql+psycopg://u:secret@127.0.0.1:1/x",
            r"postgresql\+psycopg://u:\*\*\*@127.0.0.1:1/x could not be opened",
        ),
    ],
)
def test_a_database_that_cannot_be_opened_is_one_sentence(url, message):
    with pytest.raises(MemoryBankError, match=message) as refused:
        open_database(url)
    assert "\n" not in str(refused.value) and "secret" not in str(refused.value)


def test_a_file_that_is_no_database_is_one_sentence(tmp_path):
    path = tmp_path / "memory.sqlite"
    path.write_bytes(b"these are my notes, not a database at all" * 100)
    with pytest.raises(MemoryBankError, match="could not be opened: file is not a database"):
        open_database(f"sqlite:///{path}")


def test_a_newer_database_is_refused_by_its_url(tmp_path):
    url = f"sqlite:///{tmp_path / 'memory.sqlite'}"
    engine = open_database(url)
    with engine.begin() as connection:
        connection.execute(memory_format.update().values(version=9))
    engine.dispose()
    with pytest.raises(MemoryBankError, match="has format 9"):
        open_database(url)
