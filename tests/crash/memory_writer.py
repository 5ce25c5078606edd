"""Writers of a memory that live to be killed: ``python -m tests.crash.memory_writer URL SNAPSHOTS SEGMENT``.

Imports take longer than anything a writer does, so one process imports and forks a writer for every line that it reads.
A writer opens the memory, and appends, settles, remembers and commits until it dies. After every commit it says how far it
has come. What it writes is a function of the entry's number, so that a memory that was never killed can be compared.
"""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

import numpy as np
import sqlalchemy as sa

from memory_store import BankConfig, MemoryBank, Metric, archive
from memory_store.locking import hold_bank
from memory_store.opening import open_bank, save_snapshot
from memory_store.records import Eviction
from memory_store.schema import open_database
from memory_store.storage import find_bank, write_changes

NAME = "killed"
ENCODER = "v1"
BAR_MS = 1_000
CONFIG = BankConfig(48, 8, (1, 5), 1, 2 * BAR_MS, Metric.COSINE, Eviction.IMPORTANCE, 20 * BAR_MS)
PER_COMMIT = 3
COMMITS_PER_SNAPSHOT = 4
ARCHIVED = BankConfig(24, 8, (1, 5), 1, 2 * BAR_MS, Metric.COSINE, sealed=120)
SEGMENT = 16
"""Entries of a sealed segment of the latter: many are written, and some are dropped."""


def advance(bank: MemoryBank) -> None:
    """One bar: settle what matured, ask, append, remember who answered."""
    number = bank.next_id
    now = number * BAR_MS
    random = np.random.default_rng(number)
    for horizon, bars in enumerate(CONFIG.horizons):
        if number >= bars:
            bank.settle(number - bars, horizon, (number * 37 % 101 - 50) / 50, now)
    key = random.standard_normal(CONFIG.dimension).astype(np.float32)
    answer = bank.search(key, as_of=now, k=4)
    entry_id = bank.append(key, symbol="BTCUSDT", bar_time=now, regime=number % 3, novelty=number % 7 / 7)
    if answer.count:
        weights = np.arange(answer.count, 0, -1)
        bank.note(entry_id, as_of=now, ids=answer.ids[answer.mask], weights=weights)


def write(engine: sa.Engine, snapshots: Path) -> None:
    """Go on writing where the last writer died."""
    with engine.connect() as connection:
        bank_id = find_bank(connection, NAME)
        assert bank_id is not None
    with hold_bank(engine, bank_id):
        with engine.connect() as connection:
            bank = open_bank(connection, bank_id, snapshots).bank
        for commit in range(1_000_000):
            for _ in range(PER_COMMIT):
                advance(bank)
            with engine.begin() as connection:
                write_changes(connection, bank_id, bank.take_changes(), bank.next_id * BAR_MS)
            say(f"committed {bank.next_id}")
            if commit % COMMITS_PER_SNAPSHOT == 1:
                say("saving")
                with engine.connect() as connection:
                    save_snapshot(connection, bank_id, bank, snapshots)
                say("saved")


def say(text: str) -> None:
    """One line in one write: it arrives whole or not at all."""
    os.write(1, f"{text}\n".encode())


def main(url: str, snapshots: Path, segment: int) -> None:
    archive.SMALLEST_SEGMENT = segment
    for _ in sys.stdin:
        writer = os.fork()
        if writer == 0:
            try:
                write(open_database(url), snapshots)
            except BaseException:
                traceback.print_exc()
            os._exit(1)
        say(f"started {writer}")
        _, status = os.waitpid(writer, 0)
        say(f"ended {status}")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
