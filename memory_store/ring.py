"""Where a bank's entries lie: one array per field, slots overwritten as entries leave."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from memory_store.credit import credit_in_outcomes
from memory_store.index import BLOCK
from memory_store.ranking import NOBODY
from memory_store.records import BankConfig, BoolArray, Entry, Eviction, IntArray, KeyArray, ScoreArray
from memory_store.slots import FreeSlots, Slots, TurningSlots
from memory_store.visibility import Visibility

NEVER: Final = np.iinfo(np.int64).max
"""A time that does not come: what is pending, and what is no entry, is usable from then on."""
NOT_YET: Final = np.iinfo(np.int64).min
"""The last hit of an entry that nobody used."""
EMPTY: Final = NOBODY
"""Id of a slot without entry."""


_numbers = count()


class Rows(NamedTuple):
    """Copies of what lies at some slots, ``[...]``."""

    ids: IntArray
    names: npt.NDArray[Any]
    """Symbols."""
    keys: KeyArray
    """``[..., dimension]``."""
    outcomes: ScoreArray
    """``[..., horizons]``."""
    usable_from: IntArray
    """``[..., horizons]``."""
    bar_times: IntArray
    regimes: IntArray


class Ring:
    """Arrays over slots.

    All fields of an entry are written by one call into one slot, and nothing ever moves: while an entry is held, its slot
    is the same. A slot without entry has the id ``EMPTY`` and is visible from ``NEVER``.
    """

    __slots__ = (
        "bar_times",
        "config",
        "credits",
        "hits",
        "ids",
        "keys",
        "last_hits",
        "novelties",
        "number",
        "outcomes",
        "regimes",
        "slots",
        "symbols",
        "usable_from",
        "visibility",
        "visible_from",
    )

    def __init__(self, config: BankConfig) -> None:
        self.config = config
        self.number = next(_numbers)
        """Tells it from all others of this process."""
        self.slots: Slots = TurningSlots(config.capacity) if config.eviction is Eviction.FIFO else FreeSlots()
        size = -(-config.capacity // BLOCK) * BLOCK
        self.ids: IntArray = np.full(size, EMPTY, dtype=np.int64)
        self.keys: KeyArray = np.zeros((size, config.dimension), dtype=np.float32)
        self.symbols: npt.NDArray[np.int32] = np.zeros(size, dtype=np.int32)
        self.bar_times: IntArray = np.zeros(size, dtype=np.int64)
        self.regimes: npt.NDArray[np.int32] = np.zeros(size, dtype=np.int32)
        self.novelties: KeyArray = np.zeros(size, dtype=np.float32)
        self.hits: npt.NDArray[np.int32] = np.zeros(size, dtype=np.int32)
        self.last_hits: IntArray = np.full(size, NOT_YET, dtype=np.int64)
        self.credits: IntArray = np.zeros(size, dtype=np.int64)
        """In the units of ``memory_store.credit``."""
        self.outcomes: ScoreArray = np.full((size, len(config.horizons)), np.nan, dtype=np.float64)
        self.usable_from: IntArray = np.full((size, len(config.horizons)), NEVER, dtype=np.int64)
        """Per horizon: when its outcome was known, plus the embargo."""
        self.visible_from: IntArray = np.full(size, NEVER, dtype=np.int64)
        """``usable_from`` of the primary horizon; written through ``visibility`` once a search was made."""
        self.visibility = Visibility(self.visible_from)

    def find(self, entry_id: int) -> int | None:
        """Slot of an entry, ``None`` if it is not here."""
        if entry_id < 0:
            return None
        slot = self.slots.slot(entry_id)
        return slot if self.ids.item(slot) == entry_id else None

    def holds(self, entry_id: int) -> bool:
        """Whether this entry is here."""
        return self.find(entry_id) is not None

    def locate(self, ids: IntArray) -> tuple[IntArray, BoolArray]:
        """Slots of entries, and whether they are here, both ``[n]``; elsewhere the slot is of no meaning."""
        slots = self.slots.slots(ids)
        return slots, self.still(ids, slots)

    def still(self, ids: IntArray, slots: IntArray) -> BoolArray:
        """Which entries that had these slots are here yet; never ``EMPTY``."""
        held: BoolArray = (self.ids[slots] == ids) & (ids >= 0)
        return held

    def rows(self, symbol_names: list[str], slots: IntArray) -> Rows:
        """What lies at some slots, of any shape; without meaning where there is no entry.

        Args:
            symbol_names: symbol of every number.
            slots: ``[...]``.
        """
        names = np.array([*symbol_names, ""], dtype=object)
        return Rows(
            # Several times as fast as an index.
            self.ids.take(slots),
            names.take(self.symbols.take(slots)),
            self.keys.take(slots, axis=0),
            self.outcomes.take(slots, axis=0),
            self.usable_from.take(slots, axis=0),
            self.bar_times.take(slots),
            self.regimes.take(slots).astype(np.int64),
        )

    def write(self, entry_id: int, key: KeyArray, symbol: int, bar_time: int, regime: int, novelty: float = 0.0) -> int:
        """Put an entry that nobody has used, all its horizons pending, into a free slot; returns the slot."""
        slot = self.slots.take(entry_id)
        self._put(slot, entry_id, key, symbol, bar_time, regime, novelty)
        self.visibility.write(slot)
        return slot

    def write_all(
        self,
        ids: IntArray,
        keys: KeyArray,
        symbols: Sequence[int],
        bar_times: IntArray,
        regimes: IntArray,
        novelties: KeyArray,
    ) -> list[int]:
        """As ``write`` of one after the other, in place of what lies in their slots, where slots turn; returns the slots.

        Args:
            ids: ``[n]`` that follow each other, no more than there are slots.
            keys: ``[n, dimension]``.
            symbols: ``[n]``, as the next three.
            bar_times: milliseconds.
            regimes: labels.
            novelties: of their bars.
        """
        slots = self.slots.slots(ids)
        self._put(slots, ids, keys, symbols, bar_times, regimes, novelties)
        written: list[int] = slots.tolist()
        for slot in written:
            self.visibility.write(slot)
        return written

    def _put(
        self, slots: int | IntArray, ids: Any, keys: KeyArray, symbols: Any, times: Any, regimes: Any, novelties: Any
    ) -> None:
        """Fields of an entry in its slot, or of several in theirs."""
        self.ids[slots] = ids
        self.keys[slots] = keys
        self.symbols[slots] = symbols
        self.bar_times[slots] = times
        self.regimes[slots] = regimes
        self.novelties[slots] = novelties
        self.hits[slots] = 0
        self.last_hits[slots] = NOT_YET
        self.credits[slots] = 0
        self.outcomes[slots] = np.nan
        self.usable_from[slots] = NEVER

    def clear(self, slot: int) -> None:
        """Take the entry of a slot away."""
        self.ids[slot] = EMPTY
        self.visibility.write(slot)
        self.slots.release(slot)

    def settle(self, slot: int, horizon: int, outcome: float, settled_time: int) -> None:
        """Record the outcome of one horizon of an entry."""
        usable_from = settled_time + self.config.embargo_ms
        self.outcomes[slot, horizon] = outcome
        self.usable_from[slot, horizon] = usable_from
        if horizon == self.config.primary:
            self.visibility.settle(slot, usable_from)

    def settle_all(self, slots: IntArray, horizons: IntArray, outcomes: ScoreArray, settled_times: IntArray) -> None:
        """As ``settle`` of one after the other, ``[n]`` each, none twice."""
        usable_from = settled_times + self.config.embargo_ms
        self.outcomes[slots, horizons] = outcomes
        self.usable_from[slots, horizons] = usable_from
        primary = horizons == self.config.primary
        for slot, time in zip(slots[primary].tolist(), usable_from[primary].tolist(), strict=True):
            self.visibility.settle(slot, time)

    def settlement(self, slot: int, horizon: int) -> tuple[float, int] | None:
        """Outcome and time known of one horizon of an entry; ``None`` while pending."""
        usable_from = self.usable_from.item(slot, horizon)
        if usable_from == NEVER:
            return None
        return float(self.outcomes[slot, horizon]), usable_from - self.config.embargo_ms

    def entry(self, slot: int, symbol: str, encoder_version: str) -> Entry:
        """A copy of an entry."""
        key = self.keys[slot].copy()
        key.flags.writeable = False
        settlements = [self.settlement(slot, horizon) for horizon in range(len(self.config.horizons))]
        last_hit = int(self.last_hits[slot])
        return Entry(
            entry_id=int(self.ids[slot]),
            symbol=symbol,
            bar_time=int(self.bar_times[slot]),
            key=key,
            regime=int(self.regimes[slot]),
            encoder_version=encoder_version,
            outcomes=tuple(None if known is None else known[0] for known in settlements),
            settled_times=tuple(None if known is None else known[1] for known in settlements),
            novelty=float(self.novelties[slot]),
            hits=int(self.hits[slot]),
            last_hit=None if last_hit == NOT_YET else last_hit,
            credit=credit_in_outcomes(int(self.credits[slot]), self.config.outcome_scale),
        )

    def slots_in_order(self) -> IntArray:
        """Slots of all entries, oldest first."""
        occupied = np.flatnonzero(self.ids != EMPTY)
        return occupied[np.argsort(self.ids[occupied])]

    def scanned(self, next_id: int) -> int:
        """Slots that a scan must cover, at least one block of them, when ids below ``next_id`` were given."""
        return max(1, -(-self.slots.used(next_id) // BLOCK)) * BLOCK
