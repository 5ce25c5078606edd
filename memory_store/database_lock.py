"""One holder at a time for something in a database, by a name; the lock goes with its process however that ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import sqlalchemy as sa

from memory_store.file_lock import database_file, held_lock, take_lock


class LockTaken(Exception):
    """Somebody else holds it."""


class LockImpossible(Exception):
    """The lock cannot be made; the message is a clause that says which and why."""


@contextmanager
def hold_alone(engine: sa.Engine, name: str) -> Iterator[None]:
    """Be the only holder of a name for as long as the context lasts.

    On SQLite the lock is a file beside the database; on PostgreSQL it belongs to a session of its own
    (https://www.postgresql.org/docs/current/explicit-locking.html#ADVISORY-LOCKS). A database in memory has no other users.

    Args:
        engine: of the database.
        name: of what is held, fit for the name of a file.

    Raises:
        LockTaken: somebody else holds it.
        LockImpossible: the file cannot be made.
    """
    if engine.dialect.name != "sqlite":
        with _hold_session(engine, name):
            yield
        return
    with engine.connect() as connection:
        place = database_file(connection)
    if place is None:
        yield
        return
    path = place.with_name(f"{place.name}.{name}.lock")
    try:
        descriptor = take_lock(path)
    except BlockingIOError:
        raise LockTaken(name) from None
    except OSError as problem:
        raise LockImpossible(f"its lock {path} cannot be made ({problem.strerror})") from None
    with held_lock(descriptor, path):
        yield


@contextmanager
def _hold_session(engine: sa.Engine, name: str) -> Iterator[None]:
    key = sa.func.hashtextextended(name, 0)
    with engine.connect() as connection:
        held = connection.execute(sa.select(sa.func.pg_try_advisory_lock(key))).scalar_one()
        connection.commit()  # The lock belongs to the session; a transaction left open for weeks would harm the server.
        if not held:
            raise LockTaken(name)
        try:
            yield
        finally:
            # Where the server is gone, so is the lock, and what happened inside is the error to see.
            with suppress(sa.exc.DBAPIError):
                connection.execute(sa.select(sa.func.pg_advisory_unlock(key)))
                connection.commit()
