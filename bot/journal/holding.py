"""One bot at a time trades a run, however many share its journal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import sqlalchemy as sa

from bot.errors import StorageError, UsageError
from memory_store.file_lock import database_file, held_lock, take_lock


@contextmanager
def hold_run(engine: sa.Engine, run_id: str) -> Iterator[None]:
    """See ``Journal.hold_run``."""
    if engine.dialect.name != "sqlite":
        with _hold_session(engine, run_id):
            yield
        return
    with engine.connect() as connection:
        place = database_file(connection)
    if place is None:
        yield
        return
    with _hold_file(place.with_name(f"{place.name}.{run_id}.lock"), run_id):
        yield


@contextmanager
def _hold_file(path: Path, run_id: str) -> Iterator[None]:
    try:
        descriptor = take_lock(path)
    except BlockingIOError:
        raise _taken(run_id) from None
    except OSError as problem:
        raise StorageError(
            f"run {run_id} cannot be traded: its lock {path} cannot be made ({problem.strerror}); check the folder's "
            "permissions and space"
        ) from None
    with held_lock(descriptor, path):
        yield


@contextmanager
def _hold_session(engine: sa.Engine, run_id: str) -> Iterator[None]:
    key = sa.func.hashtextextended(f"recall run {run_id}", 0)
    with engine.connect() as connection:
        held = connection.execute(sa.select(sa.func.pg_try_advisory_lock(key))).scalar_one()
        connection.commit()  # The lock belongs to the session; a transaction left open for weeks would harm the server.
        if not held:
            raise _taken(run_id)
        try:
            yield
        finally:
            # Where the server is gone, so is the lock, and what happened inside is the error to see.
            with suppress(sa.exc.DBAPIError):
                connection.execute(sa.select(sa.func.pg_advisory_unlock(key)))
                connection.commit()


def _taken(run_id: str) -> UsageError:
    return UsageError(
        f"run {run_id} is being traded by another process on the same journal; stop that one, or begin a new run with --new"
    )
