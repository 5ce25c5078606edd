"""SIGKILL at any moment of a memory's writing: no entry that was acknowledged is lost, and none is there twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import sqlalchemy as sa

from memory_store import BankConfig, MemoryBank, archive
from memory_store.opening import open_bank
from memory_store.schema import open_database
from memory_store.storage import create_bank, load_bank
from tests.crash.memory_writer import ARCHIVED, CONFIG, ENCODER, NAME, PER_COMMIT, SEGMENT, advance

ROOT = Path(__file__).parents[2]


@dataclass
class Killer:
    """Starts writers, kills them, and looks at what they leave, beside a memory that nobody ever killed."""

    folder: Path
    seed: int
    config: BankConfig = CONFIG
    acknowledged: int = 0
    killed_after: Counter[str] = field(default_factory=Counter)
    """What the writers said last."""
    opened: Counter[str | None] = field(default_factory=Counter)
    """Why snapshots were not used; ``None`` where they were."""

    def __post_init__(self) -> None:
        self.url = f"sqlite:///{self.folder / 'memory.sqlite'}"
        self.snapshots = self.folder / "snapshots"
        self.engine = open_database(self.url)
        with self.engine.begin() as connection:
            self.bank_id = create_bank(connection, NAME, self.config, ENCODER)
        self.random = random.Random(self.seed)
        self.untouched = MemoryBank(self.config, encoder_version=ENCODER, record_changes=False)
        place = (self.url, str(self.snapshots), str(SEGMENT))
        command = [sys.executable, "-m", "tests.crash.memory_writer", *place]
        self.starter = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def kill_one(self) -> None:
        """Let a writer run for some commits, and a moment longer; then kill it."""
        assert self.starter.stdin is not None
        self.starter.stdin.write("go\n")
        self.starter.stdin.flush()
        wanted, commits, writer, last = self.random.randrange(8), 0, 0, "started"
        while writer == 0 or commits < wanted:
            word, number = self.heard()
            assert word != "ended", "the writer ended by itself; its error is above"
            if word == "started":
                writer = number
            else:
                last, commits = word, commits + (word == "committed")
        # Somewhere in what comes next: in opening, which takes longest, or in a commit or a snapshot.
        threading.Event().wait(self.random.random() * (0.03 if commits == 0 else 0.003))
        os.kill(writer, signal.SIGKILL)
        while (said := self.heard())[0] != "ended":
            last = said[0]
        assert said[1] == signal.SIGKILL, "the writer ended by itself; its error is above"
        self.killed_after[last] += 1

    def heard(self) -> tuple[str, int]:
        """The next thing that the writer or its starter said, commits taken down as acknowledged."""
        assert self.starter.stdout is not None
        line = self.starter.stdout.readline()
        assert line, "the writers' starter ended; its error is above"
        word, _, number = line.strip().partition(" ")
        if word == "committed":
            self.acknowledged = int(number)
        return word, int(number or 0)

    def check(self) -> None:
        """The database holds every acknowledged entry once, whole transactions only, and what follows from them."""
        with self.engine.connect() as connection:
            written, distinct, next_id = connection.execute(
                sa.text("SELECT count(*), count(DISTINCT bar_time), coalesce(max(entry_id) + 1, 0) FROM memory_entries")
            ).one()
            assert written == distinct == next_id, "an entry is there twice, or one is missing"
            assert self.acknowledged <= next_id <= self.acknowledged + PER_COMMIT, "an acknowledged entry was lost"
            assert next_id % PER_COMMIT == 0, "half a transaction is there"
            while self.untouched.next_id < next_id:
                advance(self.untouched)
            from_rows = load_bank(connection, self.bank_id)
            opened = open_bank(connection, self.bank_id, self.snapshots, refresh=False)
        expected = self.untouched.digest()
        assert from_rows.digest() == expected
        assert opened.bank.digest() == expected
        self.acknowledged = next_id
        self.opened[opened.rebuilt] += 1

    def close(self) -> None:
        self.starter.communicate()
        self.engine.dispose()


def kill_often(folder: Path, kills: int, seed: int, config: BankConfig = CONFIG) -> Killer:
    killer = Killer(folder, seed, config)
    try:
        for _ in range(kills):
            killer.kill_one()
            killer.check()
    finally:
        killer.close()
    return killer


def test_ten_kills_lose_nothing_acknowledged_and_double_nothing(tmp_path: Path):
    assert kill_often(tmp_path, 10, seed=2).acknowledged > 0


@pytest.mark.parametrize("kills", [12, pytest.param(100, marks=pytest.mark.slow)])
def test_kills_of_a_memory_with_an_archive_lose_and_double_nothing(
    kills: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """While segments are sealed, written as files, and dropped."""
    monkeypatch.setattr(archive, "SMALLEST_SEGMENT", SEGMENT)
    killer = kill_often(tmp_path, kills, seed=3, config=ARCHIVED)
    assert killer.acknowledged > ARCHIVED.capacity + 2 * SEGMENT, "nothing was sealed"
    files = list(killer.snapshots.glob("*.segments/*.segment"))
    assert 0 < len(files) <= ARCHIVED.sealed // SEGMENT + 2


@pytest.mark.slow
def test_a_hundred_kills_lose_nothing_acknowledged_and_double_nothing(tmp_path: Path):
    """While it is opened, while it is written, and while a snapshot of it is saved."""
    killer = kill_often(tmp_path, 100, seed=1)
    assert killer.acknowledged > 3 * CONFIG.capacity, "too little was written to mean anything"
    assert min(killer.killed_after[word] for word in ("started", "committed", "saving")) > 0, "not all stages were hit"
    assert killer.opened[None] > 0, "no snapshot was ever used"
    strays = [each.name for each in killer.snapshots.iterdir()]
    assert len(strays) <= 2, f"files of snapshots that were never finished pile up: {strays}"
