"""Where a bank's entries lie: one array per field, overwritten in a circle."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from memory_store.index import BLOCK
from memory_store.records import BankConfig, BoolArray, Entry, IntArray, KeyArray, ScoreArray

NEVER: Final = np.iinfo(np.int64).max
"""A time that does not come: what is pending, and what is no entry, is usable from then on."""
EMPTY: Final = -1
"""Id of a slot without entry."""


class Ring:
    """Arrays over slots. An entry's slot is its id modulo the capacity, so eviction is first in, first out.

    All fields of an entry are written by one call into one slot, and nothing ever moves.
    """

    __slots__ = ("bar_times", "config", "ids", "keys", "outcomes", "regimes", "symbols", "usable_from", "visible_from")

    def __init__(self, config: BankConfig) -> None:
        self.config = config
        slots = -(-config.capacity // BLOCK) * BLOCK
        self.ids: IntArray = np.full(slots, EMPTY, dtype=np.int64)
        self.keys: KeyArray = np.zeros((slots, config.dimension), dtype=np.float32)
        self.symbols: npt.NDArray[np.int32] = np.zeros(slots, dtype=np.int32)
        self.bar_times: IntArray = np.zeros(slots, dtype=np.int64)
        self.regimes: npt.NDArray[np.int32] = np.zeros(slots, dtype=np.int32)
        self.outcomes: ScoreArray = np.full((slots, len(config.horizons)), np.nan, dtype=np.float64)
        self.usable_from: IntArray = np.full((slots, len(config.horizons)), NEVER, dtype=np.int64)
        """Per horizon: when its outcome was known, plus the embargo."""
        self.visible_from: IntArray = np.full(slots, NEVER, dtype=np.int64)
        """``usable_from`` of the primary horizon, contiguous for the scan."""

    def holds(self, entry_id: int) -> bool:
        """Whether this entry is here."""
        return entry_id >= 0 and int(self.ids[entry_id % self.config.capacity]) == entry_id

    def write(self, entry_id: int, key: KeyArray, symbol: int, bar_time: int, regime: int) -> None:
        """Put an entry, all its horizons pending, where its id belongs."""
        slot = entry_id % self.config.capacity
        self.ids[slot] = entry_id
        self.keys[slot] = key
        self.symbols[slot] = symbol
        self.bar_times[slot] = bar_time
        self.regimes[slot] = regime
        self.outcomes[slot] = np.nan
        self.usable_from[slot] = NEVER
        self.visible_from[slot] = NEVER

    def settle(self, entry_id: int, horizon: int, outcome: float, settled_time: int) -> None:
        """Record the outcome of one horizon of an entry that is here."""
        slot = entry_id % self.config.capacity
        usable_from = settled_time + self.config.embargo_ms
        self.outcomes[slot, horizon] = outcome
        self.usable_from[slot, horizon] = usable_from
        if horizon == self.config.primary:
            self.visible_from[slot] = usable_from

    def settlement(self, entry_id: int, horizon: int) -> tuple[float, int] | None:
        """Outcome and time known of one horizon of an entry that is here; ``None`` while pending."""
        slot = entry_id % self.config.capacity
        usable_from = int(self.usable_from[slot, horizon])
        if usable_from == NEVER:
            return None
        return float(self.outcomes[slot, horizon]), usable_from - self.config.embargo_ms

    def entry(self, entry_id: int, symbol: str, encoder_version: str) -> Entry:
        """A copy of an entry that is here."""
        slot = entry_id % self.config.capacity
        key = self.keys[slot].copy()
        key.flags.writeable = False
        settlements = [self.settlement(entry_id, horizon) for horizon in range(len(self.config.horizons))]
        return Entry(
            entry_id=entry_id,
            symbol=symbol,
            bar_time=int(self.bar_times[slot]),
            key=key,
            regime=int(self.regimes[slot]),
            encoder_version=encoder_version,
            outcomes=tuple(None if known is None else known[0] for known in settlements),
            settled_times=tuple(None if known is None else known[1] for known in settlements),
        )

    def slots_in_order(self) -> IntArray:
        """Slots of all entries, oldest first."""
        occupied = np.flatnonzero(self.ids != EMPTY)
        return occupied[np.argsort(self.ids[occupied])]

    def scanned(self, next_id: int) -> int:
        """Slots that a scan must cover, at least one block of them, when ids below ``next_id`` were given."""
        return max(1, -(-min(next_id, self.config.capacity) // BLOCK)) * BLOCK

    def hidden(self, as_of: int, scanned: int) -> BoolArray:
        """Which of the first slots hold nothing that may be seen at a time."""
        return self.visible_from[:scanned] > as_of
