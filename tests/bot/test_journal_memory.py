"""The memory's tables in a journal: of an older format, of a newer one, and opened from snapshots."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from bot.errors import StorageError
from bot.journal import Journal
from memory_store.schema import MEMORY_FORMAT, memory_format, read_format
from tests.bot.test_journal import bank_of, record_of

TO_FORMAT_1 = """
DROP TABLE memory_format;
DROP TABLE memory_recollections;
DROP INDEX memory_entries_held;
ALTER TABLE memory_entries DROP COLUMN novelty;
ALTER TABLE memory_banks DROP COLUMN eviction;
ALTER TABLE memory_banks DROP COLUMN half_life_ms;
ALTER TABLE memory_banks DROP COLUMN outcome_scale;
ALTER TABLE memory_banks DROP COLUMN index_kind;
ALTER TABLE memory_banks DROP COLUMN sealed
"""


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'journal.sqlite'}"


def test_a_journal_with_the_memory_of_an_older_version_goes_on(url: str) -> None:
    bank = bank_of(6)
    with closing(Journal(url, durable=True)) as journal:
        bank_id = journal.create_run(record_of(), bank=bank)
        assert bank_id is not None
        with journal.engine.begin() as connection:
            for statement in TO_FORMAT_1.split(";"):
                connection.exec_driver_sql(statement)
            assert read_format(connection) == 1
    with closing(Journal(url, durable=True)) as journal:
        assert journal.load_bank(bank_id).digest() == bank.digest()
        with journal.engine.connect() as connection:
            assert read_format(connection) == MEMORY_FORMAT


def test_a_journal_with_the_memory_of_a_newer_version_is_refused_and_left_as_it_is(url: str) -> None:
    with closing(Journal(url, durable=True)) as journal, journal.engine.begin() as connection:
        connection.execute(memory_format.update().values(version=MEMORY_FORMAT + 1))
    with pytest.raises(StorageError, match=rf"journal .* cannot be used: the memory .* has format {MEMORY_FORMAT + 1}"):
        Journal(url, durable=True)
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        assert read_format(connection) == MEMORY_FORMAT + 1
    engine.dispose()


def test_a_memory_is_opened_from_its_snapshot_the_second_time(url: str, tmp_path: Path) -> None:
    bank = bank_of(6)
    with closing(Journal(url, durable=True)) as journal:
        bank_id = journal.create_run(record_of(), bank=bank)
        assert bank_id is not None
        for rebuilt in ("there was none", None):
            opened = journal.open_bank(bank_id, tmp_path / "snapshots")
            assert (opened.rebuilt, opened.unsaved, opened.bank.digest()) == (rebuilt, None, bank.digest())
