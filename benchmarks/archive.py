"""An archive of millions: how fast it opens and answers and what it occupies, in processes of its own.

``python -m benchmarks.archive TASK FOLDER ENTRIES`` is one of these processes.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.banks import EMBARGO_MS, ENCODER, HORIZONS, NEIGHBOURS, PRIMARY
from benchmarks.footprint import child, resident_bytes
from benchmarks.harness import BenchmarkError, Measurement, benchmark
from benchmarks.keys import HOUR_MS, Keys, synthetic_keys
from memory_store import BankConfig, MemoryBank, Metric
from memory_store.opening import open_bank
from memory_store.registry import create_bank, find_bank
from memory_store.rows import KEY_TYPE
from memory_store.schema import memory_entries, memory_settlements, open_database
from memory_store.storage import insert_rows
from memory_store.vectors import prepare

SEED: Final = 29
ENTRIES: Final = 4_000_000
RING: Final = 262_144
ASKED: Final = 60
"""Moments later than all entries that are asked for."""
CHECKED: Final = 5
_NAME: Final = "archive"
_ROWS: Final = 65_536
_STEP: Final = 97


@benchmark("archive_query_ms_4000000", "archive_open_s_4000000", "archive_bytes_over_raw_4000000", seed=SEED)
def measure_archive(seed: int) -> Mapping[str, Measurement]:
    """Four million moments, of which the newest 262,144 lie in the ring."""
    return archive_figures(seed, ENTRIES)


def archive_figures(seed: int, entries: int) -> dict[str, Measurement]:
    """The same for any number of moments."""
    stream = synthetic_keys(seed, entries + ASKED * _STEP)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "keys.npy", stream.keys)
        np.save(folder / "times.npy", np.array(stream.bar_times))
        np.save(folder / "symbols.npy", np.array(stream.symbols))
        made = child("benchmarks.archive", "store", name, str(entries))
        found = made | child("benchmarks.archive", "open", name, str(entries))
        files = sum(path.stat().st_size for path in folder.rglob("*.segment"))
    raw = stream.keys[:entries].nbytes
    stage = (
        f"{entries:,} entries of {stream.description}, {RING:,} in the ring and the others in {found['segments']} sealed "
        "segments, one thread, files in the page cache"
    )
    return {
        "archive_query_ms_4000000": Measurement(
            1e3 * found["query_seconds"],
            "ms",
            f"k {NEIGHBOURS}, exact: of {CHECKED} queries all neighbours are those of a scan of all keys; {stage}; median of "
            f"{ASKED}, the slowest {1e3 * found['slowest_seconds']:.1f} ms",
        ),
        "archive_open_s_4000000": Measurement(
            found["open_seconds"],
            "s",
            f"checksums and a sample of rows compared; {stage}; the first search, which makes the ring's index, "
            f"{found['answer_seconds']:.2f} s; from rows alone {found['rebuild_seconds']:.0f} s",
        ),
        "archive_bytes_over_raw_4000000": Measurement(
            found["bank_bytes"] / raw,
            "x",
            f"{found['bank_bytes'] / 2**20:,.0f} MiB of memory of its own after {ASKED} queries, ring and its index included; "
            f"the segments' files, which the system may drop from memory, have {files / 2**20:,.0f} MiB; {stage}",
        ),
    }


def _config(entries: int, dimension: int) -> BankConfig:
    return BankConfig(RING, dimension, HORIZONS, PRIMARY, EMBARGO_MS, Metric.COSINE, sealed=entries - RING)


def _store(folder: Path, entries: int) -> dict[str, Any]:
    """Write the rows of a bank, and let it make its segments of them."""
    stored = np.load(folder / "keys.npy", mmap_mode="r")
    config = _config(entries, stored.shape[1])
    engine = open_database(_url(folder))
    with engine.begin() as connection:
        bank_id = create_bank(connection, _NAME, config, ENCODER)
    for first, last in pairwise([*range(0, entries, _ROWS), entries]):
        keys = prepare(np.array(stored[first:last]), config, "key")[0].astype(KEY_TYPE)
        with engine.begin() as connection:
            insert_rows(connection, memory_entries, list(_entry_rows(folder, bank_id, keys, first, last)))
            insert_rows(connection, memory_settlements, list(_settlement_rows(folder, bank_id, first, last, entries)))
    _, seconds = _opened(folder)
    return {"rebuild_seconds": seconds}


def _entry_rows(folder: Path, bank_id: int, keys: Keys, first: int, last: int) -> Iterator[tuple[Any, ...]]:
    times = np.load(folder / "times.npy", mmap_mode="r")[first:last].tolist()
    symbols = np.load(folder / "symbols.npy", mmap_mode="r")[first:last].tolist()
    for entry_id, key, time_, symbol in zip(range(first, last), keys, times, symbols, strict=True):
        yield bank_id, entry_id, symbol, time_, key.tobytes(), 0, ENCODER, time_ + HOUR_MS, None, 0.0


def _settlement_rows(folder: Path, bank_id: int, first: int, last: int, entries: int) -> Iterator[tuple[Any, ...]]:
    """Outcomes of all that are old enough."""
    times = np.load(folder / "times.npy", mmap_mode="r")
    span = (HORIZONS[PRIMARY] + 1) * HOUR_MS
    newest = int(times[entries - 1]) + HOUR_MS
    for entry_id, time_ in zip(range(first, last), times[first:last].tolist(), strict=True):
        if time_ + span <= newest:
            yield bank_id, entry_id, PRIMARY, 1e-3 * (entry_id % 21 - 10), time_ + span


def _open(folder: Path, entries: int) -> dict[str, Any]:
    stored = np.load(folder / "keys.npy", mmap_mode="r")
    queries = np.array(stored[entries : entries + ASKED * _STEP : _STEP])
    now = int(np.load(folder / "times.npy", mmap_mode="r")[entries - 1]) + HOUR_MS
    before = resident_bytes()
    bank, open_seconds = _opened(folder)
    seconds = []
    for query in queries:
        started = time.perf_counter()
        bank.search(query, as_of=now, k=NEIGHBOURS)
        seconds.append(time.perf_counter() - started)
    weight = resident_bytes() - before
    for query in queries[:: ASKED // CHECKED]:
        found = bank.search(query, as_of=now, k=NEIGHBOURS)
        if not np.allclose(found.scores, _best_scores(stored, query, found.visible), atol=1e-6):
            raise BenchmarkError("the archive missed a neighbour")
    return {
        "open_seconds": open_seconds,
        "answer_seconds": seconds[0],
        "query_seconds": statistics.median(seconds[1:]),
        "slowest_seconds": max(seconds[1:]),
        "bank_bytes": weight,
        "segments": len(list(folder.rglob("*.segment"))),
    }


def _best_scores(keys: Keys, query: Keys, visible: int) -> Keys:
    """The best scores of the first ``visible`` keys, those that are old enough, best first."""
    scores = np.concatenate([keys[start : min(start + _ROWS, visible)] @ query for start in range(0, visible, _ROWS)])
    best: Keys = -np.sort(-scores[np.argpartition(scores, -NEIGHBOURS)[-NEIGHBOURS:]])
    return best


def _opened(folder: Path) -> tuple[MemoryBank, float]:
    """The bank, and seconds that opening it took."""
    with open_database(_url(folder)).connect() as connection:
        bank_id = find_bank(connection, _NAME)
        assert bank_id is not None
        started = time.perf_counter()
        bank = open_bank(connection, bank_id, folder, record_changes=False).bank
        return bank, time.perf_counter() - started


def _url(folder: Path) -> str:
    return f"sqlite:///{folder / 'memory.sqlite'}"


_TASKS: Final[Mapping[str, Callable[[Path, int], dict[str, Any]]]] = {"store": _store, "open": _open}

if __name__ == "__main__":
    task, place, count = sys.argv[1:]
    print(json.dumps(_TASKS[task](Path(place), int(count))))
