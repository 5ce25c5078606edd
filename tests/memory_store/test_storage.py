"""The durable memory, on a real SQLite and a real PostgreSQL."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memory_store import BankChanges, BankConfig, MemoryBank, MemoryBankError, Metric
from memory_store.check import compare_banks
from memory_store.opening import open_bank
from memory_store.records import Eviction
from memory_store.schema import (
    memory_banks,
    memory_entries,
    memory_recollections,
    memory_settlements,
    open_database,
)
from memory_store.storage import (
    StoredBank,
    bank_statistics,
    create_bank,
    find_bank,
    list_banks,
    load_bank,
    read_config,
    read_entries,
    read_recollections,
    write_changes,
)
from tests.memory_store.lives import BAR_MS, Life, config_of, load, new_life, save

CONFIG = BankConfig(capacity=20, dimension=5, horizons=(1, 4, 24), primary=1, embargo_ms=7, metric=Metric.COSINE)
LATE = 10**15


def key_of(number: int) -> np.ndarray:
    return np.random.default_rng(number).standard_normal(CONFIG.dimension).astype(np.float32)


def grow(bank: MemoryBank, first: int, count: int) -> None:
    for number in range(first, first + count):
        symbol = ("BTCUSDT", "ETHUSDT")[number % 2]
        entry_id = bank.append(key_of(number), symbol=symbol, bar_time=1000 + number, regime=number % 3)
        for horizon, ago in enumerate((1, 2, 9)):
            if entry_id >= ago:
                bank.settle(entry_id - ago, horizon, 0.1 * number / 3, 1001 + number)


def stored_bank(engine: sa.Engine, name: str = "paper") -> tuple[int, MemoryBank]:
    with engine.begin() as connection:
        bank_id = create_bank(connection, name, CONFIG, "v1")
        return bank_id, load_bank(connection, bank_id)


def write(engine: sa.Engine, bank_id: int, bank: MemoryBank, at_time: int) -> None:
    with engine.begin() as connection:
        write_changes(connection, bank_id, bank.take_changes(), at_time)


def test_a_loaded_bank_equals_the_bank_that_was_written(engine):
    """Through several turns of the ring, to the last bit, and ready to go on."""
    bank_id, bank = stored_bank(engine)
    for turn in range(9):
        grow(bank, 11 * turn, 11)
        write(engine, bank_id, bank, 5000 + turn)
        loaded = load(engine, bank_id)
        assert loaded.digest() == bank.digest()
        assert (loaded.next_id, len(loaded), loaded.config) == (bank.next_id, len(bank), bank.config)
        one, two = (each.search(key_of(3), as_of=LATE, k=6) for each in (bank, loaded))
        assert (one.ids.tobytes(), one.outcomes.tobytes()) == (two.ids.tobytes(), two.outcomes.tobytes())
    grow(loaded, 99, 11)
    write(engine, bank_id, loaded, 6000)
    grow(bank, 99, 11)
    assert load(engine, bank_id).digest() == bank.digest()


def test_a_loaded_bank_remembers_the_time_of_symbols_whose_entries_are_gone(engine):
    bank_id, bank = stored_bank(engine)
    bank.append(key_of(1), symbol="SOLUSDT", bar_time=900)
    grow(bank, 0, 30)
    write(engine, bank_id, bank, 1)
    with pytest.raises(MemoryBankError, match="SOLUSDT: the bar at 900 would come after"):
        load(engine, bank_id).append(key_of(1), symbol="SOLUSDT", bar_time=900)


def test_rows_keep_the_times_of_writing_settling_and_eviction(engine):
    bank_id, bank = stored_bank(engine)
    grow(bank, 0, 15)
    write(engine, bank_id, bank, 5000)
    grow(bank, 15, 10)
    write(engine, bank_id, bank, 6000)
    with engine.connect() as connection:
        rows = connection.execute(sa.select(memory_entries).order_by(memory_entries.c.entry_id)).all()
        settled = connection.execute(sa.select(memory_settlements).where(memory_settlements.c.entry_id == 3)).all()
    assert [row.written_time for row in rows] == [5000] * 15 + [6000] * 10
    assert [row.evicted_time for row in rows] == [6000] * 5 + [None] * 20
    assert {row.encoder_version for row in rows} == {"v1"}
    assert rows[7].key == bank.entry(7).key.astype("<f4").tobytes()
    assert sorted((row.horizon, row.outcome, row.settled_time) for row in settled) == [
        (0, 0.1 * 4 / 3, 1005),
        (1, 0.1 * 5 / 3, 1006),
        (2, 0.1 * 12 / 3, 1013),
    ]


def test_an_entry_that_came_and_went_between_two_writes_is_on_record(engine):
    bank_id, bank = stored_bank(engine)
    grow(bank, 0, 50)
    write(engine, bank_id, bank, 5000)
    with engine.connect() as connection:
        evicted = sa.select(sa.func.count()).where(memory_entries.c.evicted_time == 5000)
        assert connection.execute(evicted).scalar() == 30
        assert [entry.entry_id for entry in read_entries(connection, bank_id)] == list(range(30, 50))


def test_only_the_evicted_entries_are_marked_whatever_their_order(engine):
    bank_id, bank = stored_bank(engine)
    grow(bank, 0, 15)
    write(engine, bank_id, bank, 5000)
    with engine.begin() as connection:
        write_changes(connection, bank_id, BankChanges(evicted=(9, 2, 3, 14)), 6000)
        left = [entry.entry_id for entry in read_entries(connection, bank_id)]
    assert left == [0, 1, 4, 5, 6, 7, 8, 10, 11, 12, 13]


def test_what_the_callers_transaction_rolls_back_was_never_written(engine):
    bank_id, bank = stored_bank(engine)
    grow(bank, 0, 25)
    write(engine, bank_id, bank, 1)
    digest = bank.digest()
    grow(bank, 25, 9)
    with engine.connect() as connection:
        write_changes(connection, bank_id, bank.take_changes(), 2)
        connection.rollback()
    assert load(engine, bank_id).digest() == digest


def test_banks_in_one_database_do_not_mix(engine):
    first_id, first = stored_bank(engine, "paper")
    second_id, second = stored_bank(engine, "replay")
    grow(first, 0, 25)
    grow(second, 3, 40)
    write(engine, first_id, first, 1)
    write(engine, second_id, second, 1)
    assert load(engine, first_id).digest() == first.digest()
    assert load(engine, second_id).digest() == second.digest()
    with engine.connect() as connection:
        assert (find_bank(connection, "paper"), find_bank(connection, "live")) == (first_id, None)
        assert read_config(connection, second_id) == (CONFIG, "v1")


def test_one_name_is_one_bank_and_an_unknown_one_is_refused(engine):
    stored_bank(engine, "paper")
    with engine.begin() as connection:
        with pytest.raises(MemoryBankError, match="a memory bank named 'paper' exists already"):
            create_bank(connection, "paper", CONFIG, "v1")
        with pytest.raises(MemoryBankError, match="memory bank 77 is not in this database"):
            load_bank(connection, 77)


def test_the_database_refuses_a_second_entry_of_one_bar(engine):
    bank_id, bank = stored_bank(engine)
    bank.append(key_of(0), symbol="BTCUSDT", bar_time=5)
    write(engine, bank_id, bank, 1)
    other = MemoryBank(CONFIG, encoder_version="v1")
    other.restore([], next_id=1)
    other.append(key_of(1), symbol="BTCUSDT", bar_time=5)
    with pytest.raises(sa.exc.IntegrityError):
        write(engine, bank_id, other, 1)


def test_no_change_writes_nothing(engine):
    bank_id, bank = stored_bank(engine)
    write(engine, bank_id, bank, 1)
    assert len(load(engine, bank_id)) == 0


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("key", b"\x00" * 20, "entry 4 is damaged"),
        ("key", b"\x00" * 19, "entry 4 of memory bank 1 is damaged: its key has 19 bytes"),
        ("key", np.full(5, np.nan, dtype="<f4").tobytes(), "entry 4 is damaged"),
        ("encoder_version", "v0", "entry 4 was made by encoder 'v0', not by 'v1'"),
        ("bar_time", 1001, "BTCUSDT: the bar at 1001 would come after|is damaged"),
    ],
)
def test_a_damaged_row_is_named(engine, column, value, message):
    bank_id, bank = stored_bank(engine)
    grow(bank, 0, 8)
    write(engine, bank_id, bank, 1)
    with engine.begin() as connection:
        connection.execute(memory_entries.update().where(memory_entries.c.entry_id == 4).values({column: value}))
    with pytest.raises(MemoryBankError, match=message.replace("bank 1", f"bank {bank_id}")):
        load(engine, bank_id)


def test_an_outcome_before_its_own_bar_is_refused_when_loading(engine):
    bank_id, bank = stored_bank(engine)
    grow(bank, 0, 8)
    write(engine, bank_id, bank, 1)
    with engine.begin() as connection:
        row = memory_settlements.c.entry_id == 4
        connection.execute(memory_settlements.update().where(row).values(settled_time=1004))
    with pytest.raises(MemoryBankError, match="entry 4 is damaged"):
        load(engine, bank_id)


numbers = st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(numbers, st.integers(-(2**31), 2**31 - 1), st.booleans()), min_size=1, max_size=30))
def test_every_number_survives_the_database(engine, rows):
    """Outcomes, regimes and keys of any size come back to the last bit."""
    config = BankConfig(9, 2, (1, 2), 0, 0, Metric.INNER_PRODUCT)
    with engine.connect() as connection:
        bank_id = create_bank(connection, "numbers", config, "Ω")
        bank = load_bank(connection, bank_id)
        for number, (outcome, regime, settled) in enumerate(rows):
            key = [outcome % 1000, 1e-40]
            entry_id = bank.append(key, symbol="ÅÖ", bar_time=number - 5, regime=regime)
            if settled:
                bank.settle(entry_id, number % 2, outcome, 2**61)
        write_changes(connection, bank_id, bank.take_changes(), 2**61)
        assert load_bank(connection, bank_id).digest() == bank.digest()
        connection.rollback()


@pytest.mark.parametrize("eviction", list(Eviction))
def test_a_bank_that_lived_is_loaded_as_it_was_left(engine, eviction):
    """Hits, credits and what waits for an outcome follow from rows, whatever was evicted meanwhile; and it goes on alike."""
    bank_id, life = new_life(engine, config_of(eviction))
    for _ in range(6):
        life.live(12)
        save(engine, bank_id, life)
        loaded = load(engine, bank_id)
        assert loaded.digest() == life.bank.digest()
        assert [*map(repr, compare_banks(loaded, life.bank))] == []
    assert sum(entry.hits for entry in loaded.entries()) > 0
    assert any(entry.credit for entry in loaded.entries())
    other = Life(loaded, life.seed, life.now, ids={symbol: [*ids] for symbol, ids in life.ids.items()})
    for each in (life, other):
        each.live(30)
    assert other.bank.digest() == life.bank.digest()


@pytest.mark.parametrize("eviction", list(Eviction))
def test_the_bank_as_of_any_past_moment_is_the_bank_of_that_moment(engine, eviction):
    bank_id, life = new_life(engine, config_of(eviction), seed=3)
    past = [(0, life.bank.digest(), 0)]
    for _ in range(60):
        life.live(1)
        save(engine, bank_id, life)
        past.append((life.now, life.bank.digest(), life.bank.next_id))
    for time, digest, next_id in past:
        for moment in (time, time + BAR_MS - 1):
            then = load(engine, bank_id, as_of=moment)
            assert (then.digest(), then.next_id) == (digest, next_id)
    then = load(engine, bank_id, as_of=past[20][0])
    again = Life(
        then, life.seed, past[20][0], ids={s: [i for i in ids if i < then.next_id] for s, ids in life.ids.items()}
    )
    again.live(40)
    assert again.bank.digest() == life.bank.digest()


@pytest.mark.parametrize("eviction", list(Eviction))
def test_a_clock_that_ran_backwards_still_gives_a_bank_of_every_moment(engine, eviction):
    """A late bar is written on its own time: of entries that seem held together, those that left first are left out."""
    bank_id, life = new_life(engine, config_of(eviction, capacity=10))
    for number in range(30):
        life.live(1)
        with engine.begin() as connection:
            write_changes(connection, bank_id, life.bank.take_changes(), life.now - (number % 3) * 5 * BAR_MS)
    for time in range(0, life.now, BAR_MS):
        then = load(engine, bank_id, as_of=time)
        assert len(then) <= 10
        then.append(key_of(1), symbol="XRPUSDT", bar_time=time)


def test_recollections_are_stored_as_they_were_noted(engine):
    bank_id, life = new_life(engine, config_of())
    life.live(30)
    noted = life.bank.take_changes()
    with engine.begin() as connection:
        write_changes(connection, bank_id, noted, life.now)
        stored = list(read_recollections(connection, bank_id))
        early = list(read_recollections(connection, bank_id, as_of=20 * BAR_MS))
    assert len(stored) == len(noted.recollections) > 30
    for one, other in zip(stored, noted.recollections, strict=True):
        assert (one.asker_id, one.as_of) == (other.asker_id, other.as_of)
        assert (one.ids.tobytes(), one.weights.tobytes()) == (other.ids.tobytes(), other.weights.tobytes())
    assert [each.asker_id for each in early] == [each.asker_id for each in stored if each.as_of <= 20 * BAR_MS]


def test_a_decision_remembers_once(engine):
    bank_id, life = new_life(engine, config_of())
    life.live(20)
    changes = life.bank.take_changes()
    with engine.begin() as connection:
        write_changes(connection, bank_id, changes, 1)
    with pytest.raises(sa.exc.IntegrityError), engine.begin() as connection:
        write_changes(connection, bank_id, BankChanges(recollections=changes.recollections[:1]), 2)


def test_banks_are_listed_with_their_rules_and_counted_by_the_database(engine):
    config = config_of(Eviction.RESERVOIR)
    first_id, life = new_life(engine, config, "first")
    second_id, _ = new_life(engine, CONFIG, "second")
    life.live(60)
    save(engine, first_id, life)
    with engine.connect() as connection:
        assert list_banks(connection) == [
            StoredBank(first_id, "first", "v1", config),
            StoredBank(second_id, "second", "v1", CONFIG),
        ]
        counted, empty = (bank_statistics(connection, bank_id) for bank_id in (first_id, second_id))
    entries = list(life.bank.entries())
    primary = config.primary
    assert counted.held == len(entries) and counted.evicted == life.bank.next_id - len(entries) > 0
    assert counted.pending == sum(entry.outcomes[primary] is None for entry in entries) > 0
    assert dict(counted.symbols) == Counter(entry.symbol for entry in entries)
    assert dict(counted.regimes) == Counter(entry.regime for entry in entries)
    times = [entry.bar_time for entry in entries]
    assert (counted.first_bar_time, counted.last_bar_time) == (min(times), max(times))
    assert counted.recollections > 0
    assert (empty.held, empty.evicted, empty.symbols, empty.last_bar_time) == (0, 0, (), None)


def test_a_bank_that_forgot_most_of_a_long_past_is_loaded_alike(engine):
    """Few entries far apart are looked up one by one."""
    bank_id, life = new_life(engine, config_of(Eviction.IMPORTANCE, capacity=500))
    life.live(100)
    life.bank.evict([entry.entry_id for entry in life.bank.entries() if entry.entry_id % 40])
    save(engine, bank_id, life)
    assert load(engine, bank_id).digest() == life.bank.digest()


@pytest.mark.parametrize(
    ("table", "change", "message"),
    [
        (memory_recollections, {"ids": b"1234567"}, r"the neighbours of entry \d+ of memory bank \d+ are damaged"),
        (memory_recollections, {"weights": b""}, r"the neighbours of entry \d+ of memory bank \d+ are damaged"),
        (memory_recollections, {"ids": b""}, r"the neighbours of entry \d+ of memory bank \d+ are damaged"),
        (
            memory_settlements,
            {"horizon": 9},
            r"entry \d+ of memory bank \d+ is damaged: it has an outcome over horizon 9",
        ),
        (memory_entries, {"regime": 2**31}, r"entry \d+ is damaged: its regime 2147483648 does not fit 32 bits"),
        (memory_banks, {"metric": "manhattan"}, r"the rules of memory bank \d+ are damaged: .*manhattan"),
        (memory_banks, {"horizons": "1,x"}, r"the rules of memory bank \d+ are damaged"),
        (memory_banks, {"capacity": 0}, r"the rules of memory bank \d+ are damaged: capacity is 0"),
    ],
)
def test_rows_that_no_bank_can_have_written_are_named(engine, table, change, message):
    if engine.dialect.name != "sqlite" and "regime" in change:
        pytest.skip("PostgreSQL keeps such a number out itself")
    bank_id, life = new_life(engine, config_of())
    life.live(20)
    save(engine, bank_id, life)
    with engine.begin() as connection:
        of_one = table.c.id == bank_id if table is memory_banks else table.c.bank_id == bank_id
        if table is not memory_banks:
            column = next(iter(table.primary_key.columns.values()[1:]))
            last = sa.select(sa.func.max(column)).where(of_one).scalar_subquery()
            of_one = sa.and_(of_one, column == last)
        if table is memory_settlements:
            lowest = sa.select(sa.func.min(table.c.horizon)).where(of_one).scalar_subquery()
            of_one = sa.and_(of_one, table.c.horizon == lowest)
        connection.execute(table.update().where(of_one).values(change))
    with pytest.raises(MemoryBankError, match=message) as refused:
        load(engine, bank_id)
    assert "\n" not in str(refused.value)


def test_text_where_a_number_belongs_is_damage_said_in_one_sentence(tmp_path):
    """SQLite keeps whatever it is given."""
    engine = open_database(f"sqlite:///{tmp_path / 'memory.sqlite'}")
    bank_id, life = new_life(engine, config_of())
    life.live(10)
    save(engine, bank_id, life)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE memory_entries SET bar_time = 'noon' WHERE entry_id = 3")
    with pytest.raises(MemoryBankError, match=f"rows of memory bank {bank_id} are damaged: .*; restore the database"):
        load(engine, bank_id)
    engine.dispose()


@pytest.mark.parametrize("pages", [0, 1, 3])
def test_a_full_disk_writes_nothing_and_the_changes_can_be_written_later(tmp_path, pages):
    engine = open_database(f"sqlite:///{tmp_path / 'memory.sqlite'}")
    allowed = [1_000_000]
    sa.event.listen(
        engine, "checkout", lambda driver, *_: driver.execute(f"PRAGMA max_page_count={allowed[-1]}").close()
    )
    bank_id, life = new_life(engine, config_of(Eviction.IMPORTANCE))
    life.live(30)
    save(engine, bank_id, life)
    before = load(engine, bank_id).digest()
    life.live(200)
    changes = life.bank.take_changes()
    with engine.connect() as connection:
        allowed.append(connection.exec_driver_sql("PRAGMA page_count").scalar_one() + pages)
    with pytest.raises(sa.exc.OperationalError, match="full"), engine.begin() as connection:
        write_changes(connection, bank_id, changes, life.now)
    assert load(engine, bank_id).digest() == before
    allowed.append(1_000_000)
    with engine.begin() as connection:
        write_changes(connection, bank_id, changes, life.now)
    assert load(engine, bank_id).digest() == life.bank.digest()
    engine.dispose()


WRITER = """
import sys
import sqlalchemy as sa
from memory_store.records import Eviction
from memory_store.schema import open_database
from memory_store.storage import load_bank, write_changes
from tests.memory_store.lives import Life
url, bank_id, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
engine = open_database(url)
with engine.connect() as connection:
    life = Life(load_bank(connection, bank_id))
for step in range(steps):
    life.live(1)
    with engine.begin() as connection:
        write_changes(connection, bank_id, life.bank.take_changes(), life.now)
        connection.execute(sa.text(f"UPDATE committed SET digest = '{life.bank.digest()}'"))
"""


def test_a_reader_never_sees_half_of_what_a_writer_writes_meanwhile(engine, tmp_path):
    """Another process commits step after step; every load gives the bank of one of them, whole, also from snapshots."""
    bank_id, life = new_life(engine, config_of(Eviction.IMPORTANCE))
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE committed (digest TEXT)"))
        connection.execute(sa.text(f"INSERT INTO committed VALUES ('{life.bank.digest()}')"))
    url = engine.url.render_as_string(hide_password=False)
    seen = set()
    with subprocess.Popen([sys.executable, "-c", WRITER, url, str(bank_id), "150"]) as writer:
        while writer.poll() is None:
            with engine.connect() as connection:
                if len(seen) % 2:
                    loaded = open_bank(connection, bank_id, tmp_path / "snapshots").bank.digest()
                else:
                    loaded = load_bank(connection, bank_id).digest()
                assert loaded == connection.execute(sa.text("SELECT digest FROM committed")).scalar_one()
            seen.add(loaded)
    assert writer.returncode == 0
    assert len(seen) > 3
    with engine.begin() as connection:
        connection.execute(sa.text("DROP TABLE committed"))
