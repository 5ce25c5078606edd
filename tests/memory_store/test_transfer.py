"""Export, import and merge of banks, on a real SQLite and a real PostgreSQL."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from memory_store import BankConfig, MemoryBank, MemoryBankError, Metric
from memory_store.check import compare_banks
from memory_store.merging import merge_banks
from memory_store.records import Eviction
from memory_store.schema import memory_banks, memory_entries, memory_recollections, memory_settlements, open_database
from memory_store.storage import create_bank, find_bank, list_banks, write_changes
from memory_store.transfer import export_bank, import_bank, read_export
from tests.memory_store.lives import BAR_MS, Life, config_of, load, new_life, save


def lived(engine: sa.Engine, config: BankConfig, name: str = "paper", *, bars: int = 60) -> tuple[int, Life]:
    bank_id, life = new_life(engine, config, name)
    for _ in range(bars):
        life.live(1)
        save(engine, bank_id, life)
    return bank_id, life


def exported(engine: sa.Engine, bank_id: int, path: Path) -> Path:
    with engine.connect() as connection:
        export_bank(connection, bank_id, path)
    return path


def rows_of(engine: sa.Engine, bank_id: int) -> list[list[tuple[object, ...]]]:
    """All rows of a bank without its id."""
    with engine.connect() as connection:
        return [
            [
                tuple(row)[1:]
                for row in connection.execute(sa.select(t).where(t.c.bank_id == bank_id).order_by(*t.primary_key))
            ]
            for t in (memory_entries, memory_settlements, memory_recollections)
        ]


# -- export and import -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("eviction", list(Eviction))
def test_an_imported_bank_has_the_same_rows_and_so_the_same_past(engine, tmp_path, eviction):
    """In another database or this one; whatever the size of the parts that it is written in."""
    bank_id, life = lived(engine, config_of(eviction))
    path = tmp_path / "bank.parquet"
    with engine.connect() as connection:
        export_bank(connection, bank_id, path, rows_at_once=17)
    assert pq.ParquetFile(path).num_row_groups > 5
    elsewhere = open_database(f"sqlite:///{tmp_path / 'elsewhere.sqlite'}")
    for database, name in ((engine, "copy"), (elsewhere, None)):
        with database.begin() as connection:
            copied = import_bank(connection, path, name=name)
            assert find_bank(connection, name or "paper") == copied
        assert rows_of(database, copied) == rows_of(engine, bank_id)
        assert load(database, copied).digest() == life.bank.digest()
        half = 30 * BAR_MS
        assert load(database, copied, as_of=half).digest() == load(engine, bank_id, as_of=half).digest()
    elsewhere.dispose()


def test_an_export_says_what_it_is_and_other_programs_can_read_it(engine, tmp_path):
    bank_id, life = lived(engine, config_of())
    path = tmp_path / "bank.parquet"
    with engine.connect() as connection:
        said = export_bank(connection, bank_id, path, note="made from my candles")
    assert said == read_export(path)
    assert said.note == "made from my candles"
    assert (said.name, said.encoder_version, said.config, said.entries) == (
        "paper",
        "v1",
        config_of(),
        life.bank.next_id,
    )
    table = pq.read_table(path)
    assert table.num_rows == life.bank.next_id
    held = {entry.entry_id: entry for entry in life.bank.entries()}
    for row in table.to_pylist():
        assert (row["evicted_time"] is None) == (row["entry_id"] in held)
        if (entry := held.get(row["entry_id"])) is not None:
            assert row["outcomes"] == [*entry.outcomes] and row["settled_times"] == [*entry.settled_times]
            assert np.array(row["key"], dtype=np.float32).tobytes() == entry.key.tobytes()
            assert (row["symbol"], row["bar_time"], row["regime"]) == (entry.symbol, entry.bar_time, entry.regime)
    assert any(row["recalled_ids"] for row in table.to_pylist())


def test_an_empty_bank_can_be_exported_and_imported(engine, tmp_path):
    bank_id, _ = new_life(engine, config_of())
    path = exported(engine, bank_id, tmp_path / "bank.parquet")
    with engine.begin() as connection:
        assert len(load(engine, bank_id)) == 0
        copied = import_bank(connection, path, name="copy")
        assert [bank.name for bank in list_banks(connection)] == ["paper", "copy"]
    assert len(load(engine, copied)) == 0


def test_a_name_that_is_taken_is_refused(engine, tmp_path):
    bank_id, _ = lived(engine, config_of(), bars=3)
    path = exported(engine, bank_id, tmp_path / "bank.parquet")
    with (
        engine.begin() as connection,
        pytest.raises(MemoryBankError, match="a memory bank named 'paper' exists already"),
    ):
        import_bank(connection, path)


def rewritten(path: Path, **columns: object) -> None:
    """The same export with other values in its last row."""
    table = pq.read_table(path)
    for name, value in columns.items():
        place = table.schema.get_field_index(name)
        values = [*table.column(name).to_pylist()[:-1], value]
        table = table.set_column(place, table.schema.field(name), pa.array(values, table.schema.field(name).type))
    pq.write_table(table, path)


def described(path: Path, **changes: object) -> None:
    """The same export that says something else about itself."""
    table = pq.read_table(path)
    said = json.loads(table.schema.metadata[b"memory_store"]) | changes
    pq.write_table(table.replace_schema_metadata({b"memory_store": json.dumps(said).encode()}), path)


def without_a_column(path: Path) -> None:
    pq.write_table(pq.read_table(path).drop_columns(["regime"]), path)


def without_metadata(path: Path) -> None:
    pq.write_table(pq.read_table(path).replace_schema_metadata(None), path)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-50])


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (cut, "cannot be read as an export of a memory bank"),
        (lambda path: path.write_text("symbol,bar_time"), "cannot be read as an export of a memory bank"),
        (lambda path: path.unlink(), "is not there; check its name"),
        (without_metadata, "is no export of a memory bank"),
        (without_a_column, "has other columns than its format 2"),
        (lambda path: described(path, format=3), "has format 3, this version knows 2; update it"),
        (lambda path: described(path, config={}), "what the export .* says about itself is damaged"),
        (lambda path: described(path, config=7), "what the export .* says about itself is damaged"),
        (lambda path: rewritten(path, entry_id=0), "is damaged: "),
        (lambda path: rewritten(path, key=[0.0] * 5), "entry 9 is damaged: no memory would have stored such a key"),
        (
            lambda path: rewritten(path, key=[float("nan")] * 5),
            "entry 9 is damaged: no memory would have stored such a key",
        ),
        (lambda path: rewritten(path, settled_times=[5, None], outcomes=[None, None]), "is damaged: "),
        (lambda path: rewritten(path, settled_times=[5, None], outcomes=[1.0, None]), "entry 9 is damaged: no memory"),
        (lambda path: rewritten(path, recalled_ids=None), "is damaged: "),
        (lambda path: rewritten(path, recalled_ids=[1, 2]), "neighbours of entry 9|is damaged"),
    ],
)
def test_a_file_that_is_no_whole_export_is_refused_in_one_sentence_and_leaves_no_bank(engine, tmp_path, harm, message):
    bank_id, life = new_life(engine, config_of())
    while life.bank.next_id < 9:
        life.live(1)
    found = life.bank.search(np.ones(5), as_of=life.now, k=1)
    last = life.bank.append(np.ones(5), symbol="LAST", bar_time=life.now)
    life.bank.note(last, as_of=life.now, ids=found.ids, weights=[1.0])
    assert last >= 9
    save(engine, bank_id, life)
    path = exported(engine, bank_id, tmp_path / "bank.parquet")
    harm(path)
    refused = pytest.raises(MemoryBankError, match=message.replace("entry 9", f"entry {last}"))
    with refused as problem, engine.begin() as connection:
        import_bank(connection, path, name="copy")
    assert "\n" not in str(problem.value)
    with engine.connect() as connection:
        assert find_bank(connection, "copy") is None


FULL = """
import resource, signal, sys
from pathlib import Path
from memory_store.schema import open_database
from memory_store.transfer import export_bank
engine = open_database(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with engine.connect() as connection:
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
    export_bank(connection, int(sys.argv[2]), Path(sys.argv[3]))
"""


def test_a_full_disk_is_said_and_leaves_the_earlier_export(engine, tmp_path):
    bank_id, _ = lived(engine, config_of(), bars=40)
    path = exported(engine, bank_id, tmp_path / "bank.parquet")
    before = path.read_bytes()
    url = engine.url.render_as_string(hide_password=False)
    done = subprocess.run([sys.executable, "-c", FULL, url, str(bank_id), str(path)], capture_output=True, text=True)
    assert "MemoryBankError: the export" in done.stderr and "could not be written: " in done.stderr
    assert path.read_bytes() == before
    assert list(tmp_path.glob("*.tmp")) == []


# -- merge -------------------------------------------------------------------------------------------------------

PLAIN = BankConfig(capacity=10, dimension=2, horizons=(1, 2), primary=0, embargo_ms=0, metric=Metric.INNER_PRODUCT)


def bank_of(engine: sa.Engine, name: str, moments: list[tuple[str, int, float]], config: BankConfig = PLAIN) -> int:
    """A bank of moments (symbol, bar time, first number of the key), each with its first outcome known."""
    with engine.begin() as connection:
        bank_id = create_bank(connection, name, config, "v1")
        bank = MemoryBank(config, encoder_version="v1")
        for symbol, bar_time, number in moments:
            entry_id = bank.append([number, 1.0], symbol=symbol, bar_time=bar_time, novelty=number / 8)
            bank.settle(entry_id, 0, number, bar_time + 1)
        write_changes(connection, bank_id, bank.take_changes(), 99)
    return bank_id


def merged(engine: sa.Engine, *bank_ids: int, capacity: int | None = None) -> MemoryBank:
    with engine.begin() as connection:
        bank_id = merge_banks(connection, bank_ids, "all", at_time=100, capacity=capacity)
    return load(engine, bank_id)


def test_merged_moments_come_in_the_order_of_time_and_then_of_symbols(engine):
    one = bank_of(engine, "one", [("B", 1, 1.0), ("B", 3, 2.0), ("A", 5, 3.0)])
    two = bank_of(engine, "two", [("C", 1, 4.0), ("A", 3, 5.0)])
    bank = merged(engine, one, two)
    assert [(e.entry_id, e.bar_time, e.symbol, e.outcomes) for e in bank.entries()] == [
        (0, 1, "B", (1.0, None)),
        (1, 1, "C", (4.0, None)),
        (2, 3, "A", (5.0, None)),
        (3, 3, "B", (2.0, None)),
        (4, 5, "A", (3.0, None)),
    ]
    assert bank.config == replace(PLAIN, capacity=20)
    with engine.connect() as connection:
        times = connection.execute(
            sa.select(memory_entries.c.written_time).where(memory_entries.c.bank_id > two)
        ).scalars()
        assert set(times) == {100}


def test_a_moment_of_two_banks_is_kept_once_with_what_either_knows(engine):
    one = bank_of(engine, "one", [("A", 1, 1.0), ("A", 2, 2.0)])
    two = bank_of(engine, "two", [("A", 1, 1.0), ("B", 2, 3.0)])
    with engine.begin() as connection:
        connection.execute(
            memory_settlements.insert().values(bank_id=two, entry_id=0, horizon=1, outcome=0.5, settled_time=7)
        )
        connection.execute(
            memory_entries.update()
            .where(memory_entries.c.bank_id == two, memory_entries.c.entry_id == 0)
            .values(novelty=0.1)
        )
    for order in ((one, two), (two, one)):
        with engine.begin() as connection:
            connection.execute(memory_banks.update().where(memory_banks.c.name == "all").values(name=f"not {order}"))
        bank = merged(engine, *order)
        assert [(e.symbol, e.bar_time) for e in bank.entries()] == [("A", 1), ("A", 2), ("B", 2)]
        first = bank.entry(0)
        assert (first.outcomes, first.settled_times, first.novelty) == ((1.0, 0.5), (2, 7), float(np.float32(0.1)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"key": np.array([1.0, 2.0], dtype="<f4").tobytes()},
            r"about A at 1: key\[1\] is 1.0 and 2.0; rebuild one of them",
        ),
        ({"regime": 4}, "about A at 1: regime is 0 and 4"),
        ({"outcome": 1.5}, r"about A at 1: outcome\[0\] is \(1.0, 2\) and \(1.5, 2\)"),
        ({"settled_time": 3}, r"about A at 1: outcome\[0\] is \(1.0, 2\) and \(1.0, 3\)"),
    ],
)
def test_banks_that_disagree_about_a_moment_are_not_merged(engine, change, message):
    one = bank_of(engine, "one", [("A", 1, 1.0)])
    two = bank_of(engine, "two", [("A", 1, 1.0)])
    table = memory_entries if set(change) & set(memory_entries.c.keys()) else memory_settlements
    with engine.begin() as connection:
        connection.execute(table.update().where(table.c.bank_id == two).values(change))
    with pytest.raises(MemoryBankError, match=f"memory banks 'one' and 'two' disagree {message}"):
        merged(engine, one, two)
    with engine.connect() as connection:
        assert find_bank(connection, "all") is None


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (replace(PLAIN, embargo_ms=1), "embargo_ms is 0 and 1"),
        (replace(PLAIN, horizons=(1, 3)), r"horizons is \(1, 2\) and \(1, 3\)"),
        (replace(PLAIN, eviction=Eviction.RESERVOIR, half_life_ms=9), "eviction is .*FIFO.* and .*RESERVOIR"),
    ],
)
def test_only_banks_of_one_kind_are_merged(engine, other, message):
    one, two = bank_of(engine, "one", []), bank_of(engine, "two", [], other)
    with pytest.raises(MemoryBankError, match=f"memory banks 'one' and 'two' cannot be merged: {message}"):
        merged(engine, one, two)
    with pytest.raises(MemoryBankError, match="two or more different memory banks"):
        merged(engine, one, one)


def test_banks_of_different_encoders_are_not_merged(engine):
    one, two = bank_of(engine, "one", []), bank_of(engine, "two", [])
    with engine.begin() as connection:
        connection.execute(memory_banks.update().where(memory_banks.c.id == two).values(encoder_version="v2"))
    with pytest.raises(MemoryBankError, match="encoder_version is 'v1' and 'v2'"):
        merged(engine, one, two)


def test_entries_that_do_not_fit_are_refused_and_those_that_just_do_are_taken(engine):
    one = bank_of(engine, "one", [("A", time, 1.0) for time in range(5)])
    two = bank_of(engine, "two", [("B", time, 1.0) for time in range(5)])
    with pytest.raises(MemoryBankError, match="hold 10 different entries, more than a capacity of 9; give at least 10"):
        merged(engine, one, two, capacity=9)
    assert len(merged(engine, one, two, capacity=10)) == 10


def test_what_decisions_remembered_is_merged_with_them(engine):
    """Moments that came in order keep their ids: then nothing but the capacity differs from the bank alone."""
    bank_id, life = new_life(engine, config_of(capacity=500))
    life.forgetful = False
    life.live(60)
    save(engine, bank_id, life)
    other = bank_of(engine, "other", [], replace(life.bank.config, capacity=3))
    found = [(each.field, each.left, each.right) for each in compare_banks(merged(engine, other, bank_id), life.bank)]
    assert found == [("capacity", 503, 500)]
    assert any(entry.credit for entry in life.bank.entries())


def test_recollections_with_a_neighbour_that_is_gone_are_left_out(engine):
    bank_id, life = lived(engine, config_of(capacity=20))
    other = bank_of(engine, "other", [], replace(life.bank.config, capacity=3))
    bank = merged(engine, bank_id, other)
    assert len(bank) == len(life.bank)
    assert sum(entry.hits for entry in bank.entries()) <= sum(entry.hits for entry in life.bank.entries())


def test_nobody_writes_between_what_a_merge_reads_and_what_it_writes(tmp_path):
    """SQLite would refuse the merge's own writing then."""
    engine = open_database(f"sqlite:///{tmp_path / 'memory.sqlite'}")
    one, two = bank_of(engine, "one", [("A", 1, 1.0)]), bank_of(engine, "two", [("B", 1, 1.0)])
    other = sqlite3.connect(tmp_path / "memory.sqlite", timeout=0)
    refused = []

    def write_meanwhile(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("SELECT memory_settlements"):
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                other.execute("UPDATE memory_banks SET name = 'three' WHERE name = 'two'")
            refused.append(statement)

    sa.event.listen(engine, "after_cursor_execute", write_meanwhile)
    with engine.begin() as connection:
        merge_banks(connection, (one, two), "all", at_time=100)
    assert refused
    other.close()
    engine.dispose()
