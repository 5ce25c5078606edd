"""What has changed in a bank, and how a copy of it follows: as far as searches and what they find depend on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from memory_store.records import IntArray, KeyArray
from memory_store.ring import NEVER

if TYPE_CHECKING:
    from memory_store.holdings import Holdings

_FIELDS: Final = ("ids", "symbols", "bar_times", "regimes", "outcomes", "usable_from")
"""Arrays of the ring that a result or its time may depend on, besides keys; nobody asks a copy for hits and credits."""
_COUNTS: Final = ("size", "next_id", "key_norm", "settled_until", "disorder")


class Changes(NamedTuple):
    """What differs from what was told before."""

    written: IntArray
    """``[w]`` slots whose key is another."""
    keys: KeyArray
    """``[w, d]``."""
    slots: IntArray
    """``[m]`` slots of which anything else is, those that were written among them."""
    fields: tuple[npt.NDArray[Any], ...]
    """``[m, ...]`` each, in the order of ``_FIELDS``."""
    visible_from: IntArray
    """``[m]``."""
    names: tuple[str, ...]
    """Symbol of every number."""
    counts: tuple[Any, ...]
    """In the order of ``_COUNTS``."""


def changes_of(held: Holdings, written: Sequence[int], changed: Sequence[int]) -> Changes:
    """What to tell a copy.

    Args:
        held: what the bank holds.
        written: slots whose entry is another one, or gone.
        changed: slots of whose entry an outcome became known.
    """
    ring = held.ring
    own = np.unique(np.array(written, dtype=np.int64))
    slots = np.unique(np.array([*written, *changed], dtype=np.int64))
    return Changes(
        own,
        ring.keys[own],
        slots,
        tuple([getattr(ring, name)[slots] for name in _FIELDS]),
        ring.visible_from[slots],
        tuple(held.directory.names),
        tuple([getattr(held, name) for name in _COUNTS]),
    )


def follow(held: Holdings, changes: Changes) -> None:
    """Take in what has changed, as a copy that nobody writes to."""
    ring = held.ring
    for name, values in zip(_FIELDS, changes.fields, strict=True):
        getattr(ring, name)[changes.slots] = values
    ring.keys[changes.written] = changes.keys
    held.directory.names[:] = changes.names
    for name, value in zip(_COUNTS, changes.counts, strict=True):
        setattr(held, name, value)
    for slot in changes.written.tolist():
        ring.visibility.write(slot)
        held.finder.written(slot, held.next_id)
    for slot, time in zip(changes.slots.tolist(), changes.visible_from.tolist(), strict=True):
        if time < NEVER:
            ring.visibility.settle(slot, time)
