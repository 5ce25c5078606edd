"""One writer at a time for every bank; readers are not concerned.

A second writer would give ids that the first one is about to give.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import sqlalchemy as sa

from memory_store.database_lock import LockImpossible, LockTaken, hold_alone
from memory_store.records import MemoryBankError
from memory_store.schema import memory_banks


@contextmanager
def hold_bank(engine: sa.Engine, bank_id: int) -> Iterator[None]:
    """Be the only writer of a bank for as long as the context lasts; see ``hold_alone``.

    Raises:
        MemoryBankError: there is no such bank, somebody else holds it, or the lock cannot be made.
    """
    with engine.connect() as connection:
        name = connection.execute(sa.select(memory_banks.c.name).where(memory_banks.c.id == bank_id)).scalar()
    if name is None:
        raise MemoryBankError(f"memory bank {bank_id} is not in this database")
    with ExitStack() as stack:
        try:
            stack.enter_context(hold_alone(engine, f"bank-{bank_id}"))
        except LockTaken:
            raise MemoryBankError(
                f"memory bank {name!r} is being written by another process; stop that one, or write to another bank"
            ) from None
        except LockImpossible as problem:
            raise MemoryBankError(
                f"memory bank {name!r} cannot be written: {problem}; check the folder's permissions and space"
            ) from None
        yield
