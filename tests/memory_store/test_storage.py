"""The durable memory, on a real SQLite and a real PostgreSQL."""

from __future__ import annotations

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memory_store import BankChanges, BankConfig, MemoryBank, MemoryBankError, Metric
from memory_store.storage import (
    create_bank,
    find_bank,
    load_bank,
    memory_entries,
    memory_settlements,
    read_config,
    read_entries,
    write_changes,
)

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


def save(engine: sa.Engine, bank_id: int, bank: MemoryBank, at_time: int) -> None:
    with engine.begin() as connection:
        write_changes(connection, bank_id, bank.take_changes(), at_time)


def load(engine: sa.Engine, bank_id: int) -> MemoryBank:
    with engine.connect() as connection:
        return load_bank(connection, bank_id)


def test_a_loaded_bank_equals_the_bank_that_was_written(engine):
    """Through several turns of the ring, to the last bit, and ready to go on."""
    bank_id, bank = stored_bank(engine)
    for turn in range(9):
        grow(bank, 11 * turn, 11)
        save(engine, bank_id, bank, 5000 + turn)
        loaded = load(engine, bank_id)
        assert loaded.digest() == bank.digest()
        assert (loaded.next_id, len(loaded), loaded.config) == (bank.next_id, len(bank), bank.config)
        one, two = (each.search(key_of(3), as_of=LATE, k=6) for each in (bank, loaded))
        assert (one.ids.tobytes(), one.outcomes.tobytes()) == (two.ids.tobytes(), two.outcomes.tobytes())
    grow(loaded, 99, 11)
    save(engine, bank_id, loaded, 6000)
    grow(bank, 99, 11)
    assert load(engine, bank_id).digest() == bank.digest()


def test_a_loaded_bank_remembers_the_time_of_symbols_whose_entries_are_gone(engine):
    bank_id, bank = stored_bank(engine)
    bank.append(key_of(1), symbol="SOLUSDT", bar_time=900)
    grow(bank, 0, 30)
    save(engine, bank_id, bank, 1)
    with pytest.raises(MemoryBankError, match="SOLUSDT: the bar at 900 would come after"):
        load(engine, bank_id).append(key_of(1), symbol="SOLUSDT", bar_time=900)


def test_rows_keep_the_times_of_writing_settling_and_eviction(engine):
    bank_id, bank = stored_bank(engine)
    grow(bank, 0, 15)
    save(engine, bank_id, bank, 5000)
    grow(bank, 15, 10)
    save(engine, bank_id, bank, 6000)
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
    save(engine, bank_id, bank, 5000)
    with engine.connect() as connection:
        evicted = sa.select(sa.func.count()).where(memory_entries.c.evicted_time == 5000)
        assert connection.execute(evicted).scalar() == 30
        assert [entry.entry_id for entry in read_entries(connection, bank_id)] == list(range(30, 50))


def test_only_the_evicted_entries_are_marked_whatever_their_order(engine):
    bank_id, bank = stored_bank(engine)
    grow(bank, 0, 15)
    save(engine, bank_id, bank, 5000)
    with engine.begin() as connection:
        write_changes(connection, bank_id, BankChanges(evicted=(9, 2, 3, 14)), 6000)
        left = [entry.entry_id for entry in read_entries(connection, bank_id)]
    assert left == [0, 1, 4, 5, 6, 7, 8, 10, 11, 12, 13]


def test_what_the_callers_transaction_rolls_back_was_never_written(engine):
    bank_id, bank = stored_bank(engine)
    grow(bank, 0, 25)
    save(engine, bank_id, bank, 1)
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
    save(engine, first_id, first, 1)
    save(engine, second_id, second, 1)
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
    save(engine, bank_id, bank, 1)
    other = MemoryBank(CONFIG, encoder_version="v1")
    other.restore([], next_id=1)
    other.append(key_of(1), symbol="BTCUSDT", bar_time=5)
    with pytest.raises(sa.exc.IntegrityError):
        save(engine, bank_id, other, 1)


def test_no_change_writes_nothing(engine):
    bank_id, bank = stored_bank(engine)
    save(engine, bank_id, bank, 1)
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
    save(engine, bank_id, bank, 1)
    with engine.begin() as connection:
        connection.execute(memory_entries.update().where(memory_entries.c.entry_id == 4).values({column: value}))
    with pytest.raises(MemoryBankError, match=message.replace("bank 1", f"bank {bank_id}")):
        load(engine, bank_id)


def test_an_outcome_before_its_own_bar_is_refused_when_loading(engine):
    bank_id, bank = stored_bank(engine)
    grow(bank, 0, 8)
    save(engine, bank_id, bank, 1)
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
