"""One bot at a time trades a run, however many share its journal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import sqlalchemy as sa

from bot.errors import StorageError, UsageError
from memory_store.database_lock import LockImpossible, LockTaken, hold_alone


@contextmanager
def hold_run(engine: sa.Engine, run_id: str) -> Iterator[None]:
    """See ``Journal.hold_run``."""
    with ExitStack() as stack:
        try:
            stack.enter_context(hold_alone(engine, run_id))
        except LockTaken:
            raise UsageError(
                f"run {run_id} is being traded by another process on the same journal; stop that one, or begin a new run "
                "with --new"
            ) from None
        except LockImpossible as problem:
            raise StorageError(
                f"run {run_id} cannot be traded: {problem}; check the folder's permissions and space"
            ) from None
        yield
