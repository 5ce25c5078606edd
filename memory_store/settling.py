"""Whether an outcome may be recorded with an entry."""

from __future__ import annotations

import math

from memory_store.records import TIME_LIMIT, MemoryBankError
from memory_store.ring import Ring


def slot_to_settle(
    ring: Ring, entry_id: int, horizon: int, outcome: float, settled_time: int, *, next_id: int
) -> int | None:
    """The slot of an entry that is to get an outcome; ``None`` where the entry is gone or has this very outcome.

    Args:
        ring: the entries.
        entry_id: which.
        horizon: index into the config's horizons.
        outcome: over this horizon.
        settled_time: when it became known, milliseconds.
        next_id: the id that the next append gets.

    Raises:
        MemoryBankError: see ``MemoryBank.settle``.
    """
    if not 0 <= entry_id < next_id:
        raise MemoryBankError(f"entry {entry_id} cannot be settled: this memory has given no such id")
    if not 0 <= horizon < len(ring.config.horizons):
        raise MemoryBankError(f"horizon {horizon} is no index into the {len(ring.config.horizons)} horizons")
    slot = ring.find(entry_id)
    if slot is None:
        return None
    if not math.isfinite(outcome):
        raise MemoryBankError(f"outcome of entry {entry_id} is {outcome}; leave it pending until it is a number")
    bar_time = ring.bar_times.item(slot)
    if not bar_time < settled_time < TIME_LIMIT:
        raise MemoryBankError(
            f"outcome of entry {entry_id} is said to be known at {settled_time}, which is not after its bar {bar_time}"
        )
    known = ring.settlement(slot, horizon)
    if known is None:
        return slot
    if known != (outcome, settled_time):
        raise MemoryBankError(
            f"outcome of entry {entry_id} over horizon {horizon} is {known[0]!r} known at {known[1]}; "
            f"it cannot become {outcome!r} known at {settled_time}"
        )
    return None
