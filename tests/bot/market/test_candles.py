"""The candle store on a real disk: what it keeps, what it refuses, and what a crash can do to it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.errors import StorageError
from bot.market.candles import MAX_PARTS, AppendResult, CandleStore
from bot.market.importing import read_candle_file
from bot.market.validation import DataError
from strategies.bars import BarSeries, Calendar, parse_time
from tests.bot.market.candle_examples import START, changed, walk, without

HOUR = 3_600_000


@pytest.fixture
def store(tmp_path: Path) -> CandleStore:
    return CandleStore(tmp_path / "candles")


def part_files(store: CandleStore, symbol: str = "BTCUSDT", interval: str = "60") -> list[Path]:
    return sorted((store.root / symbol / interval).glob("*.parquet"))


def test_bars_come_back_to_the_bit_and_numbered_from_zero(store: CandleStore) -> None:
    series = walk(500)
    assert store.append(series, source="file") == AppendResult(added=500, already_there=0)
    assert store.load("BTCUSDT", "60").digest() == series.digest()


def test_a_repeated_append_adds_nothing_and_changes_no_file(store: CandleStore) -> None:
    store.append(walk(500), source="file")
    files = {path: path.read_bytes() for path in part_files(store)}
    assert store.append(walk(500).slice(100, 300), source="file") == AppendResult(added=0, already_there=200)
    assert {path: path.read_bytes() for path in part_files(store)} == files


def test_an_overlapping_append_adds_what_is_new(store: CandleStore) -> None:
    store.append(walk(300).slice(0, 200), source="file")
    assert store.append(walk(300).slice(150, 300), source="bybit") == AppendResult(added=100, already_there=50)
    assert store.load("BTCUSDT", "60").digest() == walk(300).digest()


def test_an_empty_append_leaves_no_trace(store: CandleStore) -> None:
    assert store.append(BarSeries.empty("BTCUSDT", "60"), source="file") == AppendResult(0, 0)
    assert not store.root.exists()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 10)), min_size=1, max_size=60))
def test_appending_in_any_chopping_with_any_overlap_is_one_append(pieces: list[tuple[int, int]]) -> None:
    whole = without(walk(1000), 7, 100, 101, 102, 350)
    with tempfile.TemporaryDirectory() as folder:
        store, position = CandleStore(Path(folder)), 0
        for length, overlap in pieces:
            store.append(whole.slice(max(0, position - overlap), position + length), source="file")
            position = min(len(whole), position + length)
        store.append(whole.slice(position, len(whole)), source="file")
        assert store.load("BTCUSDT", "60").digest() == whole.digest()
        store.compact("BTCUSDT", "60")
        assert store.load("BTCUSDT", "60").digest() == whole.digest()
        assert len(part_files(store)) == 1


@pytest.fixture(scope="module")
def chopped(tmp_path_factory: pytest.TempPathFactory) -> CandleStore:
    """A store of several parts and, in the first, several row groups."""
    store = CandleStore(tmp_path_factory.mktemp("chopped"))
    whole = without(walk(140_000, interval="1"), 5, 66_000, 66_001, 139_990)
    for start, stop in ((0, 139_000), (139_000, 139_500), (139_500, 139_501), (139_501, len(whole))):
        store.append(whole.slice(start, stop), source="file")
    return store


@settings(max_examples=60, deadline=None)
@given(start=st.none() | st.integers(-10, 140_010), end=st.none() | st.integers(-10, 140_010), shift=st.integers(0, 1))
def test_loading_a_span_is_filtering_the_whole(
    chopped: CandleStore, start: int | None, end: int | None, shift: int
) -> None:
    whole = without(walk(140_000, interval="1"), 5, 66_000, 66_001, 139_990)
    first = None if start is None else START + start * 60_000 + shift
    last = None if end is None else START + end * 60_000 + shift
    loaded, wanted = chopped.load("BTCUSDT", "1", first, last), whole.span(first, last)
    assert len(loaded) == len(wanted)
    if len(wanted):
        assert loaded.digest() == wanted.digest()


def test_an_empty_span_is_numbered_by_the_bars_before_it(store: CandleStore) -> None:
    store.append(walk(10), source="file")
    store.append(walk(20).slice(10, 20), source="file")
    assert store.load("BTCUSDT", "60", START + 50 * HOUR).first_ordinal == 20
    assert store.load("BTCUSDT", "60", START + 15 * HOUR, START + 15 * HOUR).first_ordinal == 15
    assert store.load("BTCUSDT", "60", None, START).first_ordinal == 0


def test_a_symbol_that_is_not_stored_loads_as_no_bars(store: CandleStore) -> None:
    assert len(store.load("NOPE", "60")) == 0
    assert store.last_open_time("NOPE", "60") is None
    assert store.describe("NOPE", "60") is None
    assert store.compact("NOPE", "60") == 0
    assert store.list() == []


def test_a_bar_that_differs_from_the_stored_one_is_refused_with_both_closes(store: CandleStore) -> None:
    series = walk(50)
    store.append(series, source="file")
    close = (series.high[30] + series.low[30]) / 2
    with pytest.raises(DataError, match=rf"BTCUSDT 60: the bar at 2024-01-02T06:00Z .*another close.*{close:.6g}"):
        store.append(changed(series, "close", 30, close).slice(20, 50), source="bybit")
    assert store.load("BTCUSDT", "60").digest() == series.digest()


@pytest.mark.parametrize("column", ["volume", "high"])
def test_every_column_counts_when_bars_are_compared(store: CandleStore, column: str) -> None:
    series = walk(50)
    store.append(series, source="file")
    with pytest.raises(DataError, match=f"another {column} than the stored one"):
        store.append(changed(series, column, 30, 1e6), source="bybit")


def test_earlier_bars_are_refused_unless_prepended_on_purpose(store: CandleStore) -> None:
    whole = walk(100)
    store.append(whole.slice(60, 80), source="file")
    with pytest.raises(DataError, match=r"stored from 2024-01-03T12:00Z on .* start at 2024-01-01T00:00Z.*--prepend"):
        store.append(whole, source="file")
    assert len(store.load("BTCUSDT", "60")) == 20
    result = store.append(whole, source="file", prepend=True)
    assert result == AppendResult(added=80, already_there=20)
    assert store.load("BTCUSDT", "60").digest() == whole.digest()
    assert store.load("BTCUSDT", "60", START + 60 * HOUR).first_ordinal == 60


def test_a_bar_that_would_fill_a_gap_is_refused(store: CandleStore) -> None:
    store.append(without(walk(50), 20), source="file")
    with pytest.raises(DataError, match="the bar at 2024-01-01T20:00Z would fill a gap"):
        store.append(walk(50), source="bybit")


@pytest.mark.parametrize(("column", "value"), [("close", np.nan), ("low", -1.0), ("volume", -1.0), ("high", 1.0)])
def test_only_sound_bars_are_stored(store: CandleStore, column: str, value: float) -> None:
    with pytest.raises(DataError, match="first at 2024-01-01T03:00Z"):
        store.append(changed(walk(10), column, 3, value), source="file")
    assert store.list() == []


def test_a_series_keeps_its_calendar(store: CandleStore) -> None:
    store.append(walk(10), source="file")
    with pytest.raises(DataError, match="calendar 'continuous' and these bars have 'sessions'"):
        store.append(replace(walk(20), calendar=Calendar.SESSIONS), source="yfinance")
    store.append(walk(10, symbol="AAPL", calendar=Calendar.SESSIONS), source="yfinance")
    assert store.load("AAPL", "60").calendar is Calendar.SESSIONS


@pytest.mark.parametrize("symbol", ["", "..", ".", "../BTC", "BTC/USDT", "btcusdt", "-A", "A" * 41, "BTC USDT", "A\n"])
def test_a_symbol_that_could_leave_the_folder_is_refused(store: CandleStore, symbol: str) -> None:
    for action in (lambda: store.load(symbol, "60"), lambda: store.append(walk(3, symbol=symbol), source="x")):
        with pytest.raises(DataError, match=r"symbol .* needs up to 40 capitals"):
            action()


@pytest.mark.parametrize("symbol", ["BTCUSDT", "BRK-B", "1000PEPEUSDT", "BTC_26DEC", "A.B", "A" * 40])
def test_the_symbols_of_venues_and_exchanges_are_accepted(store: CandleStore, symbol: str) -> None:
    store.append(walk(3, symbol=symbol), source="x")
    assert len(store.load(symbol, "60")) == 3


def test_an_interval_that_is_none_is_refused(store: CandleStore) -> None:
    with pytest.raises(DataError, match=r"interval '\.\./x' cannot be stored"):
        store.load("BTCUSDT", "../x")


def test_the_list_says_what_is_stored(store: CandleStore) -> None:
    store.append(walk(30, symbol="ETHUSDT"), source="file")
    store.append(walk(40, interval="D"), source="bybit")
    store.append(walk(50), source="file")
    store.append(walk(70), source="bybit")
    (store.root / "notes").mkdir()
    (store.root / "notes" / "x").mkdir()
    (store.root / "notes" / "x" / "meta.json").write_text("{}")
    rows = [(s.symbol, s.interval, s.source, s.bars, s.first_open, s.last_open) for s in store.list()]
    assert rows == [
        ("BTCUSDT", "60", "file+bybit", 70, START, START + 69 * HOUR),
        ("BTCUSDT", "D", "bybit", 40, START, START + 39 * 24 * HOUR),
        ("ETHUSDT", "60", "file", 30, START, START + 29 * HOUR),
    ]
    assert all(stored.bytes > 0 for stored in store.list())
    assert store.last_open_time("ETHUSDT", "60") == START + 29 * HOUR


def test_appending_bar_by_bar_keeps_the_number_of_parts_small(store: CandleStore) -> None:
    series = walk(300)
    store.append(series.slice(0, 100), source="file")
    for row in range(100, 300):
        store.append(series.slice(row, row + 1), source="bybit")
        assert len(part_files(store)) <= MAX_PARTS
    assert store.load("BTCUSDT", "60").digest() == series.digest()


def test_bars_from_before_1970_are_bars(store: CandleStore) -> None:
    series = walk(60, interval="D", start=parse_time("1969-12-01"))
    store.append(series.slice(0, 20), source="file")
    store.append(series.slice(20, 60), source="file")
    assert store.load("BTCUSDT", "D").digest() == series.digest()


# -- crashes -----------------------------------------------------------------------------------------------------------


def test_a_half_written_file_of_a_crash_is_ignored_and_then_swept(store: CandleStore) -> None:
    store.append(walk(50), source="file")
    [part] = part_files(store)
    strays = [part.with_name("1704250800000_1704300000000.parquet.77.tmp"), part.with_name("meta.json.77.tmp")]
    for stray in strays:
        stray.write_bytes(part.read_bytes()[:100])
    assert store.load("BTCUSDT", "60").digest() == walk(50).digest()
    store.append(walk(60), source="file")
    assert not any(stray.exists() for stray in strays)
    assert store.load("BTCUSDT", "60").digest() == walk(60).digest()


def test_a_merge_that_was_cut_off_before_it_removed_the_old_parts_counts_no_bar_twice(store: CandleStore) -> None:
    whole = walk(90)
    for start in range(0, 90, 30):
        store.append(whole.slice(start, start + 30), source="file")
    old = {path: path.read_bytes() for path in part_files(store)}
    assert store.compact("BTCUSDT", "60") == 3
    for path in list(old)[1:]:
        path.write_bytes(old[path])
    assert store.load("BTCUSDT", "60").digest() == whole.digest()
    assert store.load("BTCUSDT", "60", START + 50 * HOUR).first_ordinal == 50
    [stored] = store.list()
    assert stored.bars == 90
    store.append(walk(95), source="file")
    assert len(part_files(store)) == 2
    assert store.load("BTCUSDT", "60").digest() == walk(95).digest()


def test_a_crash_before_the_first_part_binds_the_series_to_nothing(store: CandleStore) -> None:
    store.append(replace(walk(5), calendar=Calendar.SESSIONS), source="file")
    part_files(store)[0].unlink()
    assert store.list() == []
    assert len(store.load("BTCUSDT", "60")) == 0
    store.append(walk(10), source="bybit")
    assert store.load("BTCUSDT", "60").calendar is Calendar.CONTINUOUS
    assert [stored.source for stored in store.list()] == ["bybit"]


@pytest.mark.parametrize("cut", [0, 4, 300, -20])
def test_a_truncated_part_is_named_with_the_fix_and_the_fix_works(store: CandleStore, cut: int) -> None:
    store.append(walk(50), source="file")
    store.append(walk(80), source="file")
    damaged = part_files(store)[1]
    damaged.write_bytes(damaged.read_bytes()[:cut])
    with pytest.raises(DataError, match=rf"{damaged} is damaged .*delete it and every later file") as refused:
        store.load("BTCUSDT", "60")
    assert "\n" not in str(refused.value)
    with pytest.raises(DataError, match=str(damaged)):
        store.list()
    damaged.unlink()
    store.append(walk(80), source="file")
    assert store.load("BTCUSDT", "60").digest() == walk(80).digest()


def test_a_flipped_bit_in_a_part_is_found(store: CandleStore) -> None:
    store.append(walk(5000), source="file")
    [part] = part_files(store)
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 4
    part.write_bytes(content)
    with pytest.raises(DataError, match=rf"{part} is damaged"):
        store.load("BTCUSDT", "60")


def test_a_foreign_file_with_the_name_of_a_part_is_refused(store: CandleStore) -> None:
    store.append(walk(50), source="file")
    pq.write_table(pa.table({"price": [1.0]}), part_files(store)[0])
    with pytest.raises(DataError, match="columns are not those of the candle store"):
        store.load("BTCUSDT", "60")


def test_parts_that_overlap_as_no_crash_leaves_them_are_refused(store: CandleStore) -> None:
    store.append(walk(50), source="file")
    other = CandleStore(store.root.parent / "other")
    other.append(walk(80).slice(40, 80), source="file")
    stray = part_files(other)[0]
    stray.rename(part_files(store)[0].with_name(stray.name))
    with pytest.raises(DataError, match=rf"and {stray.name} overlap; delete the second"):
        store.load("BTCUSDT", "60")


@pytest.mark.parametrize("content", ["", "{", '{"symbol": 1}', None, '{"symbol":"X","interval":"1"}'])
def test_a_damaged_description_is_named_with_the_fix(store: CandleStore, content: str | None) -> None:
    store.append(walk(50), source="file")
    meta = store.root / "BTCUSDT" / "60" / "meta.json"
    if content is None:
        meta.unlink()
    else:
        meta.write_text(content)
    with pytest.raises(DataError, match=rf"{meta} is .*; delete {meta.parent} and fetch again"):
        store.load("BTCUSDT", "60")


def test_a_description_that_was_copied_from_another_series_is_refused(store: CandleStore) -> None:
    store.append(walk(50), source="file")
    meta = store.root / "BTCUSDT" / "60" / "meta.json"
    meta.write_text(json.dumps({**json.loads(meta.read_text()), "symbol": "ETHUSDT"}))
    with pytest.raises(DataError, match="describes ETHUSDT 60"):
        store.load("BTCUSDT", "60")


WRITER = """
import sys
from pathlib import Path
from bot.market.candles import CandleStore
from tests.bot.market.candle_examples import walk
store, whole = CandleStore(Path(sys.argv[1])), walk(20_000)
for row in range(0, len(whole), 3):
    store.append(whole.slice(row, row + 3), source="file")
    print(row + 3, flush=True)
"""


@pytest.mark.parametrize("appends", [1, 35, 120])
def test_a_killed_writer_loses_nothing_that_it_reported_and_leaves_a_usable_store(
    store: CandleStore, appends: int
) -> None:
    command = [sys.executable, "-c", WRITER, str(store.root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3]) as process:
        assert process.stdout is not None
        for _ in range(appends):
            reported = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
    loaded = store.load("BTCUSDT", "60")
    assert len(loaded) >= reported
    assert loaded.digest() == walk(20_000).slice(0, len(loaded)).digest()
    store.append(walk(20_000).slice(0, len(loaded) + 10), source="file")
    assert store.load("BTCUSDT", "60").digest() == walk(20_000).slice(0, len(loaded) + 10).digest()


FULL_DISK = """
import resource, sys
from pathlib import Path
from bot.errors import StorageError
from bot.market.candles import CandleStore
from tests.bot.market.candle_examples import walk
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
try:
    CandleStore(Path(sys.argv[1])).append(walk(20_000), source="file")
except StorageError as error:
    print(error)
"""


def test_a_full_disk_is_one_sentence_and_leaves_the_store_as_it_was(store: CandleStore) -> None:
    store.append(walk(20), source="file")
    command = [sys.executable, "-c", FULL_DISK, str(store.root)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3])
    assert done.stdout.startswith(f"candles cannot be written under {store.root / 'BTCUSDT' / '60'}")
    assert done.stdout.count("\n") == 1
    assert not list(store.root.rglob("*.tmp"))
    assert store.load("BTCUSDT", "60").digest() == walk(20).digest()


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"candles cannot be written under .*Not a directory"):
        CandleStore(tmp_path / "file").append(walk(3), source="file")


def test_several_writers_of_the_same_bars_store_each_bar_once(store: CandleStore) -> None:
    whole, failures = walk(400), []

    def write(step: int) -> None:
        try:
            for row in range(0, len(whole), step):
                CandleStore(store.root).append(whole.slice(max(0, row - 50), row + step), source="file")
                CandleStore(store.root).load("BTCUSDT", "60")
        except DataError as error:
            failures.append(error)

    writers = [threading.Thread(target=write, args=(step,)) for step in (7, 10, 13)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert failures == []
    assert store.load("BTCUSDT", "60").digest() == whole.digest()


# -- real candles ------------------------------------------------------------------------------------------------------


def test_five_years_of_hours_that_came_in_parts_load_as_they_were(store: CandleStore, real_data: Path) -> None:
    series = read_candle_file(real_data / "bybit_linear_BTCUSDT_1h.parquet", "BTCUSDT", "60")
    for row in range(0, len(series), 1000):
        store.append(series.slice(row, row + 1000), source="bybit")
    loaded = store.load("BTCUSDT", "60")
    assert loaded.digest() == series.digest()
    assert len(loaded) == 50_582
