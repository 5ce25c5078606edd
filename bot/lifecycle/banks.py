"""The banks of one run: one for each model that it has decided with, the newest in force, the others kept.

The first is named as the run is, those after it by counting on: ``RUN.2``, ``RUN.3``. A bank is written before the step
that swaps to it is committed, piece by piece, so that the run's own commits wait for one piece at most. Until then no
event names it, and whatever a crash leaves of it is removed before the next one is written.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from bot.errors import StorageError
from bot.journal import Journal
from bot.journal.memories import split_changes
from memory_store import MemoryBank
from memory_store.database_lock import LockImpossible, LockTaken, hold_alone

ENTRIES_AT_ONCE: Final = 256
"""Some ten milliseconds of writing on SQLite, where a decision that is to be committed meanwhile waits."""
_PAUSE_S: Final = 0.005
"""Between two pieces: SQLite's waiting writers look again after some milliseconds only."""
_PATIENCE_S: Final = 30.0
_LOOK_AGAIN_S: Final = 0.1


@contextmanager
def hold_preparation(journal: Journal, run_id: str) -> Iterator[None]:
    """Be the only one who prepares a memory for a run.

    A process whose bot was killed ends by itself, but not at the same moment, so it is waited for.

    Raises:
        StorageError: another process goes on preparing one.
    """
    deadline = time.monotonic() + _PATIENCE_S
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(hold_alone(journal.engine, f"{run_id}.preparation"))
                break
            except LockTaken:
                if time.monotonic() > deadline:
                    raise StorageError(f"another process prepares a memory for run {run_id}; stop it") from None
                time.sleep(_LOOK_AGAIN_S)
            except LockImpossible as problem:
                raise StorageError(f"no memory can be prepared for run {run_id}: {problem}; check the folder") from None
        yield


def next_bank(journal: Journal, run_id: str) -> str:
    """Name of the bank that the next swap of a run brings."""
    return f"{run_id}.{len(journal.read_swaps(run_id)) + 2}"


def drop_orphan(journal: Journal, run_id: str) -> bool:
    """Remove what a preparation left behind that never came to its swap; returns whether there was anything.

    Call it while holding the preparation.
    """
    bank_id = journal.find_bank(next_bank(journal, run_id))
    if bank_id is None:
        return False
    journal.drop_bank(bank_id, at_once=ENTRIES_AT_ONCE)
    return True


def clear_preparation(journal: Journal, run_id: str) -> None:
    """Remove what a preparation left behind when its bot was killed, if anything.

    Raises:
        StorageError: another process goes on preparing a memory for this run.
    """
    if journal.find_bank(next_bank(journal, run_id)) is not None:
        with hold_preparation(journal, run_id):
            drop_orphan(journal, run_id)


def write_bank(journal: Journal, name: str, bank: MemoryBank, *, at_time: int) -> int:
    """Store a bank that was just filled, piece by piece; returns its id.

    Args:
        journal: where to.
        name: of the bank, free.
        bank: recording changes, of which none has been taken.
        at_time: written as the time of writing, milliseconds on the clock of its bars.
    """
    bank_id = journal.begin_bank(name, bank)
    for piece in split_changes(bank.take_changes(), ENTRIES_AT_ONCE):
        journal.extend_bank(bank_id, piece, at_time=at_time)
        time.sleep(_PAUSE_S)
    return bank_id
