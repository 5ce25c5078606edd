"""One writer at a time for every bank; readers are not concerned.

A second writer would give ids that the first one is about to give. The lock goes with its process however that ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import sqlalchemy as sa

from memory_store.file_lock import database_file, held_lock, take_lock
from memory_store.records import MemoryBankError
from memory_store.schema import memory_banks


@contextmanager
def hold_bank(engine: sa.Engine, bank_id: int) -> Iterator[None]:
    """Be the only writer of a bank for as long as the context lasts.

    On SQLite the lock is a file beside the database; on PostgreSQL it belongs to a session of its own
    (https://www.postgresql.org/docs/current/explicit-locking.html#ADVISORY-LOCKS). A database in memory has no other users.

    Raises:
        MemoryBankError: there is no such bank, somebody else holds it, or the file cannot be made.
    """
    with engine.connect() as connection:
        name = connection.execute(sa.select(memory_banks.c.name).where(memory_banks.c.id == bank_id)).scalar()
        place = database_file(connection)
    if name is None:
        raise MemoryBankError(f"memory bank {bank_id} is not in this database")
    if engine.dialect.name != "sqlite":
        with _hold_session(engine, bank_id, name):
            yield
    elif place is None:
        yield
    else:
        with _hold_file(place.with_name(f"{place.name}.bank-{bank_id}.lock"), name):
            yield


@contextmanager
def _hold_file(path: Path, name: str) -> Iterator[None]:
    try:
        descriptor = take_lock(path)
    except BlockingIOError:
        raise _taken(name) from None
    except OSError as problem:
        raise MemoryBankError(
            f"memory bank {name!r} cannot be written: its lock {path} cannot be made ({problem.strerror}); check the "
            "folder's permissions and space"
        ) from None
    with held_lock(descriptor, path):
        yield


@contextmanager
def _hold_session(engine: sa.Engine, bank_id: int, name: str) -> Iterator[None]:
    key = sa.func.hashtextextended(f"memory bank {bank_id}", 0)
    with engine.connect() as connection:
        held = connection.execute(sa.select(sa.func.pg_try_advisory_lock(key))).scalar_one()
        connection.commit()  # The lock belongs to the session; a transaction left open for weeks would harm the server.
        if not held:
            raise _taken(name)
        try:
            yield
        finally:
            # Where the server is gone, so is the lock, and what happened inside is the error to see.
            with suppress(sa.exc.DBAPIError):
                connection.execute(sa.select(sa.func.pg_advisory_unlock(key)))
                connection.commit()


def _taken(name: str) -> MemoryBankError:
    return MemoryBankError(
        f"memory bank {name!r} is being written by another process; stop that one, or write to another bank"
    )
