"""All that a bank holds: every entry is in its ring or in its archive, and the indexes over them are told."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256

import numpy as np

from memory_store.archive import Archive, archive_of
from memory_store.digest import content_digest
from memory_store.directory import Directory
from memory_store.eviction import make_evictor
from memory_store.finding import Finder
from memory_store.recollections import Recollections
from memory_store.records import TIME_LIMIT, BankConfig, Entry, KeyArray, Recollection
from memory_store.restoration import BankState, Refilled, refill, refill_from_entries, state_of, state_of_entries
from memory_store.ring import EMPTY, Ring


class Holdings:
    """The parts of a bank. It checks nothing that a caller may get wrong: that is for the bank.

    Args:
        config: of the bank.
        parts: the ring and what belongs to it; empty ones by default.
        archive: what is sealed; nothing by default.
        next_id: the id that the next entry gets.
    """

    __slots__ = (
        "archive",
        "config",
        "directory",
        "disorder",
        "evictor",
        "finder",
        "key_norm",
        "next_id",
        "recollections",
        "ring",
        "settled_until",
        "size",
    )

    def __init__(
        self, config: BankConfig, parts: Refilled | None = None, archive: Archive | None = None, *, next_id: int = 0
    ) -> None:
        if parts is None:
            ring = Ring(config)
            parts = Refilled(ring, Directory(ring), Recollections(ring), 0.0)
        self.config = config
        self.ring, self.directory, self.recollections, longest = parts
        self.archive = Archive(config) if archive is None else archive
        self.key_norm = max(longest, self.archive.longest)
        """Upper bound of the lengths of all keys."""
        self.evictor = make_evictor(self.ring)
        self.finder = Finder(self.ring, self.archive)
        self.next_id = next_id
        self.size = int(np.count_nonzero(self.ring.ids != EMPTY))
        """Entries in the ring."""
        self.settled_until = -TIME_LIMIT
        """When the latest outcome became known, milliseconds."""
        self.disorder = 0
        """How often something happened that no outlook survives."""

    def __len__(self) -> int:
        return self.size + len(self.archive)

    # -- coming and going -------------------------------------------------------------------------------------------

    def make_room(self, regime: int) -> list[int]:
        """Let whoever has to leave before the next entry comes, of this regime; returns ids of those evicted."""
        leaving = self.evictor.due(self.next_id, regime)
        if not self.config.sealed:
            if leaving is None:
                return []
            self.remove(leaving)
            return [leaving]
        evicted = []
        if leaving is not None:
            number = self.ring.symbols[self.ring.slots.slot(leaving)]
            if not self.archive.take(self.ring, leaving, self.directory.names[number]):
                evicted.append(leaving)
            self.remove(leaving)
        gone = self.archive.advance(self.next_id - self.config.capacity)
        return evicted if gone is None else [*evicted, gone]

    def write(self, key: KeyArray, length: float, symbol: str, bar_time: int, regime: int, novelty: float) -> int:
        """Put the next entry into the ring, which has room; returns its slot."""
        number = self.directory.add(symbol, bar_time, self.next_id)
        slot = self.ring.write(self.next_id, key, number, bar_time, regime, novelty)
        self.evictor.added(slot)
        self.key_norm = max(self.key_norm, length)
        self.next_id += 1
        self.finder.written(slot, self.next_id)
        self.size += 1
        return slot

    def remove(self, entry_id: int) -> None:
        """Take an entry out of the ring."""
        slot = self.ring.slots.slot(entry_id)
        number = self.ring.symbols.item(slot)
        self.evictor.removing(slot)
        self.recollections.forget(entry_id)
        self.ring.clear(slot)
        self.directory.removed(number)
        self.size -= 1

    # -- looking ----------------------------------------------------------------------------------------------------

    def counted(self) -> Ring:
        """The ring, with all hits and credits in it."""
        self.recollections.count()
        return self.ring

    def visible_count(self, as_of: int) -> int:
        """How many entries are visible at a time."""
        return int(np.count_nonzero(self.ring.visible_from <= as_of)) + self.archive.visible(as_of)

    def find(self, symbol: str, bar_time: int) -> int | None:
        """Id of the entry of a bar, if it is held."""
        found = self.directory.find(symbol, bar_time)
        return self.archive.find(symbol, bar_time) if found is None else found

    def entry(self, entry_id: int, encoder_version: str) -> Entry | None:
        """A copy of an entry, if it is held."""
        slot = self.ring.find(entry_id)
        if slot is None:
            return self.archive.entry(entry_id, encoder_version)
        return self.counted().entry(slot, self.directory.names[self.ring.symbols[slot]], encoder_version)

    def ids(self) -> Iterator[int]:
        """Ids of all entries, increasing."""
        yield from self.archive.ids()
        yield from self.ring.ids[self.ring.slots_in_order()].tolist()

    def digest(self, encoder_version: str) -> str:
        """See ``MemoryBank.digest``."""
        ring = content_digest(self.counted(), self.directory.names, self.recollections, encoder_version)
        return sha256(f"{ring} {self.archive.digest()}".encode()).hexdigest() if self.config.sealed else ring

    def unsealed_state(self) -> BankState:
        """A copy of all that is in the ring."""
        return state_of(self.counted(), self.directory, self.recollections, next_id=self.next_id)

    def state(self) -> BankState:
        """A copy of everything, sealed entries as if no decision had used them."""
        return self.archive.state_with(self.unsealed_state())

    # -- from storage -----------------------------------------------------------------------------------------------

    def with_archive(self, archive: Archive) -> Holdings:
        """The same with another archive."""
        parts = Refilled(self.ring, self.directory, self.recollections, self.key_norm)
        held = Holdings(self.config, parts, archive, next_id=self.next_id)
        held.settled_until, held.disorder = self.settled_until, self.disorder
        return held


def holdings_of_state(
    config: BankConfig, state: BankState, recollections: Iterable[Recollection], outcomes: Mapping[int, float]
) -> Holdings:
    """See ``MemoryBank.restore_state``.

    Raises:
        MemoryBankError: the state does not fit the config, or is damaged.
    """
    if not config.sealed:
        return Holdings(config, refill(config, state, recollections, outcomes), next_id=state.next_id)
    noted = list(recollections)
    archive, unsealed = archive_of(config, state)
    known = {**outcomes, **archive.outcomes_of([*noted, *unsealed.recollections])}
    return Holdings(config, refill(config, unsealed, noted, known), archive, next_id=state.next_id)


def holdings_of_entries(
    config: BankConfig,
    encoder_version: str,
    entries: Iterable[Entry],
    *,
    next_id: int,
    last_times: Mapping[str, int],
    recollections: Iterable[Recollection],
    outcomes: Mapping[int, float],
) -> Holdings:
    """See ``MemoryBank.restore``.

    Raises:
        MemoryBankError: entries are out of order, do not fit the config, or are of another encoder.
    """
    if config.sealed:
        held = list(entries)
        state = state_of_entries(config, encoder_version, held, next_id=next_id, last_times=last_times)
        return holdings_of_state(config, state, recollections, outcomes)
    parts = refill_from_entries(
        config,
        encoder_version,
        entries,
        next_id=next_id,
        last_times=last_times,
        recollections=recollections,
        outcomes=outcomes,
    )
    return Holdings(config, parts, next_id=next_id)
