"""What a bank occupies and how fast it opens, measured in processes of their own: ``python -m benchmarks.footprint``."""

from __future__ import annotations

import ctypes
import gc
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.banks import ENCODER, PRIMARY, RunningBank
from benchmarks.harness import LATEST, BenchmarkError
from benchmarks.keys import KeyStream
from memory_store import BankChanges, MemoryBank, Settlement
from memory_store.opening import open_bank, save_snapshot
from memory_store.reading import load_bank
from memory_store.records import IndexKind
from memory_store.registry import create_bank, find_bank
from memory_store.schema import open_database
from memory_store.storage import write_changes

_STATUS: Final = Path("/proc/self/status")
_ROOT: Final = LATEST.parent.parent
_NAME: Final = "benchmark"
_ENTRIES_AT_ONCE: Final = 8192


@dataclass(frozen=True, slots=True)
class Footprint:
    """One full bank."""

    bank_bytes: int
    """Resident memory that it occupies beyond the process without it, index included."""
    open_seconds: float
    """From its snapshot."""
    answer_seconds: float
    """The first search after opening, which makes the index."""
    rebuild_seconds: float
    """From its rows, without a snapshot."""


def measure_footprint(stream: KeyStream, size: int, index: IndexKind) -> Footprint:
    """Fill a bank with the first keys of a stream, weigh it, store it, and open it again.

    Raises:
        BenchmarkError: the system does not say how much memory a process uses, or a process failed.
    """
    if not _STATUS.exists():
        raise BenchmarkError(f"memory per entry is read from {_STATUS}, which this system does not have; use Linux")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "keys.npy", stream.keys[:size])
        np.save(folder / "times.npy", np.array(stream.bar_times[:size]))
        np.save(folder / "symbols.npy", np.array(stream.symbols[:size]))
        arguments = (name, str(size), index.value)
        tasks = [child("benchmarks.footprint", task, *arguments) for task in _TASKS]
        return Footprint(**{name: value for answer in tasks for name, value in answer.items()})


def child(module: str, *arguments: str) -> dict[str, Any]:
    """What a process answers in which a module does a task.

    Raises:
        BenchmarkError: it failed.
    """
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True)
    if done.returncode:
        reason = " ".join(done.stderr.strip().splitlines()[-1:])
        raise BenchmarkError(f"a process that was to {arguments[0]} a memory bank failed: {reason}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _weigh(folder: Path, size: int, index: IndexKind) -> dict[str, Any]:
    keys = np.load(folder / "keys.npy", mmap_mode="r")
    stream = KeyStream(
        keys,
        np.load(folder / "symbols.npy").tolist(),
        np.load(folder / "times.npy").tolist(),
        "in a process of its own",
    )
    # What the libraries need once is no part of the bank.
    RunningBank(stream, 256, index).advance_to(300)
    before = resident_bytes()
    running = RunningBank(stream, size, index)
    running.advance_to(size)
    running.ask(0)
    weight = resident_bytes() - before
    _store(running.bank, folder)
    return {"bank_bytes": weight}


def resident_bytes() -> int:
    """Anonymous memory of this process: without mapped files, without what the allocator keeps for later."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    for line in _STATUS.read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(":")
        if name == "RssAnon":
            return 1024 * int(value.split()[0])
    raise BenchmarkError(f"{_STATUS} has no RssAnon; the kernel is too old to weigh a process")


def _store(bank: MemoryBank, folder: Path) -> None:
    """Write a bank and its snapshot."""
    engine = open_database(_url(folder))
    with engine.begin() as connection:
        bank_id = create_bank(connection, _NAME, bank.config, ENCODER)
        for changes in _as_changes(bank):
            write_changes(connection, bank_id, changes, 0)
    with engine.connect() as connection:
        save_snapshot(connection, bank_id, bank, folder)
    engine.dispose()


def _as_changes(bank: MemoryBank) -> Iterator[BankChanges]:
    entries = bank.entries()
    while appended := tuple(islice(entries, _ENTRIES_AT_ONCE)):
        known = [(one.entry_id, one.outcomes[PRIMARY], one.settled_times[PRIMARY]) for one in appended]
        settled = [Settlement(i, PRIMARY, y, t) for i, y, t in known if y is not None and t is not None]
        yield BankChanges(appended, tuple(settled))


def _open(folder: Path, size: int, index: IndexKind) -> dict[str, Any]:
    with open_database(_url(folder)).connect() as connection:
        bank_id = _stored(find_bank(connection, _NAME))
        started = time.perf_counter()
        opened = open_bank(connection, bank_id, folder)
        open_seconds = time.perf_counter() - started
    if opened.rebuilt is not None:
        raise BenchmarkError(f"the snapshot was not used: {opened.rebuilt}")
    started = time.perf_counter()
    opened.bank.search(np.load(folder / "keys.npy", mmap_mode="r")[0], as_of=2**60, k=32)
    return {"open_seconds": open_seconds, "answer_seconds": time.perf_counter() - started}


def _rebuild(folder: Path, size: int, index: IndexKind) -> dict[str, Any]:
    with open_database(_url(folder)).connect() as connection:
        bank_id = _stored(find_bank(connection, _NAME))
        started = time.perf_counter()
        load_bank(connection, bank_id)
        return {"rebuild_seconds": time.perf_counter() - started}


def _stored(bank_id: int | None) -> int:
    if bank_id is None:
        raise BenchmarkError("the memory bank was never stored")
    return bank_id


def _url(folder: Path) -> str:
    return f"sqlite:///{folder / 'memory.sqlite'}"


_TASKS: Final[Mapping[str, Callable[[Path, int, IndexKind], dict[str, Any]]]] = {
    "weigh": _weigh,
    "open": _open,
    "rebuild": _rebuild,
}

if __name__ == "__main__":
    task, place, entries, kind = sys.argv[1:]
    print(json.dumps(_TASKS[task](Path(place), int(entries), IndexKind(kind))))
