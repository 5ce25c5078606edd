"""The archive of a bank: entries that the ring had no room for any more, in sealed segments, searched together with it.

An entry comes here when the ring turns, if its primary outcome is known by then; else it is evicted, as it is in any bank.
What is here changes no more: later outcomes over other horizons, hits and credit are not kept. It leaves when as many as
``sealed`` have come after it, or when it is evicted by its id. Everything is a function of ids, never of time.

Where the bank numbers places, those of the archive are negative: the entry of id ``i`` has the place ``-1 - i``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import reduce
from typing import Final, Protocol

import numpy as np

from memory_store.columns import joined, only
from memory_store.index import BLOCK, best_first
from memory_store.question import Question
from memory_store.records import BankConfig, Entry, IntArray, KeyArray, MemoryBankError, Recollection, ScoreArray
from memory_store.restoration import BankState, check_rows, check_shapes
from memory_store.ring import NEVER, Ring, Rows
from memory_store.segments import Eligible, Segment

SMALLEST_SEGMENT: Final = 2**16
"""Enough for an index that scans bounds, see ``memory_store.pruned``."""
LARGEST_SEGMENT: Final = 2**18
"""Entries of a segment: more take longer to seal, in the middle of a run; fewer make searches slower."""
_SEGMENTS: Final = 16
"""So many segments at first, as an archive grows."""


def segment_entries(config: BankConfig) -> int:
    """Entries of every segment; those with ids from a multiple of it to the next."""
    return max(SMALLEST_SEGMENT, min(LARGEST_SEGMENT, config.sealed // _SEGMENTS // BLOCK * BLOCK))


class Keeper(Protocol):
    """Keeps sealed segments elsewhere than in memory."""

    def keep(self, segment: Segment) -> Segment:
        """Keep a segment; returns what stands for it from now on."""

    def drop(self, first: int) -> None:
        """Forget the segment that begins with an id."""


class Archive:
    """Segments in the order of ids, the last of them being filled.

    Args:
        config: of the bank.
    """

    def __init__(self, config: BankConfig) -> None:
        self._config = config
        self._entries = segment_entries(config)
        self.segments: list[Segment] = []
        self._keeper: Keeper | None = None

    def __len__(self) -> int:
        return sum(segment.count for segment in self.segments)

    # -- coming and going -------------------------------------------------------------------------------------------

    def take(self, ring: Ring, entry_id: int, symbol: str) -> bool:
        """Take over an entry that the ring holds and has to give up; ``False`` where its outcome is not known."""
        slot = ring.slots.slot(entry_id)
        if ring.visible_from[slot] == NEVER:
            return False
        self._segment_of(entry_id).take(ring, slot, symbol)
        return True

    def advance(self, leaving: int) -> int | None:
        """The ring has given up the entry of this id, if it held it; returns the id of the one that leaves the archive for it.

        A segment whose ids have all come is sealed, one whose ids have all gone is dropped.
        """
        if self.segments and self.segments[-1].first == leaving + 1 - self._entries:
            self._seal()
        expired = leaving - self._config.sealed
        if not self.segments or expired < self.segments[0].first:
            return None
        gone = expired if self.forget(expired) else None
        if expired + 1 >= self.segments[0].first + self._entries:
            dropped = self.segments.pop(0)
            if self._keeper is not None:
                self._keeper.drop(dropped.first)
        return gone

    def _seal(self) -> None:
        """All ids of the last segment have come."""
        segment = self.segments[-1]
        segment.seal()
        if self._keeper is not None:
            self.segments[-1] = self._keeper.keep(segment)

    def keep_in(self, keeper: Keeper) -> None:
        """Let sealed segments be kept there, those that are in memory and those to come."""
        self._keeper = keeper
        self.segments = [
            keeper.keep(segment) if segment.sealed and not segment.mapped else segment for segment in self.segments
        ]

    def add(self, segment: Segment) -> None:
        """Take over a whole segment, of ids above all that are here; nothing, where all of it is gone."""
        if segment.count:
            self.segments.append(segment)

    def forget(self, entry_id: int) -> bool:
        """Evict an entry; whether it was here."""
        segment = self._holding(entry_id)
        if segment is not None:
            segment.forget(entry_id)
        return segment is not None

    def fill(self, state: BankState) -> None:
        """Take over entries of an archive that was kept as columns, ids increasing and above all that are here.

        Raises:
            MemoryBankError: one is damaged.
        """
        check_rows(self._config, state)
        known = state.settled_times[:, self._config.primary] != NEVER
        starts = state.ids // self._entries * self._entries
        for first in np.unique(starts[known]).tolist():
            rows = np.flatnonzero((starts == first) & known)
            self._segment_of(first).fill(state, rows, self._config)
            if state.next_id - self._config.capacity >= first + self._entries:
                self._seal()

    def _segment_of(self, entry_id: int) -> Segment:
        """The segment that an entry belongs to, which is the last or a new one."""
        first = entry_id // self._entries * self._entries
        if not self.segments or self.segments[-1].first < first:
            self.segments.append(Segment.empty(self._config, first, self._entries))
        return self.segments[-1]

    def _holding(self, entry_id: int) -> Segment | None:
        return next((segment for segment in self.segments if segment.holds(entry_id)), None)

    # -- asking -----------------------------------------------------------------------------------------------------

    @property
    def longest(self) -> float:
        """Upper bound of the lengths of all keys."""
        return max((segment.longest for segment in self.segments), default=0.0)

    def find(self, symbol: str, bar_time: int) -> int | None:
        """Id of the entry of a bar, if it is here."""
        found = (segment.find(symbol, bar_time) for segment in self.segments)
        return next((entry_id for entry_id in found if entry_id is not None), None)

    def visible(self, as_of: int) -> int:
        """How many entries are visible at a time."""
        nobody: KeyArray = np.empty((0, 0), dtype=np.float32)
        question = Question(nobody, np.empty(0), as_of, 1)
        return sum(part.visible for part in self.eligible(question))

    def eligible(self, question: Question) -> list[Eligible]:
        """What a search may choose from, of every segment."""
        return [segment.eligible(question, self._config.primary) for segment in self.segments]

    def add_nearest(
        self, slots: IntArray, scores: ScoreArray, ids: IntArray, question: Question, parts: list[Eligible], k: int
    ) -> tuple[IntArray, ScoreArray]:
        """Places and scores of the ``k`` nearest of the ring and the archive, best first, equal scores in the order of ids.

        Args:
            slots: ``[n]`` of the nearest in the ring.
            scores: ``[n]`` theirs, best first.
            ids: ``[n]`` theirs.
            question: the search.
            parts: from ``eligible``.
            k: neighbours wanted.
        """
        for segment, part in zip(self.segments, parts, strict=True):
            if not part.eligible:
                continue
            known = float(scores[k - 1]) if len(scores) >= k else -np.inf
            found, worth = segment.nearest(question, part.hidden, min(k, part.eligible), known)
            slots, scores = np.concatenate((slots, -1 - found)), np.concatenate((scores, worth))
            ids = np.concatenate((ids, found))
            best = best_first(scores, ids, k)
            slots, scores, ids = slots[best], scores[best], ids[best]
        return slots, scores

    def rows(self, ring: Ring, symbol_names: list[str], places: IntArray) -> Rows:
        """What ring and archive hold at some places, of any shape."""
        rows = ring.rows(symbol_names, np.maximum(places, 0))
        for segment in self.segments:
            numbers = -1 - places - segment.first
            here = (places < 0) & (numbers >= 0) & (numbers < len(segment.gone))
            if here.any():
                numbers = numbers[here]
                rows.ids[here] = segment.first + numbers
                rows.names[here] = np.array(segment.names, dtype=object)[segment.symbols[numbers]]
                for name in ("keys", "outcomes", "usable_from", "bar_times", "regimes"):
                    getattr(rows, name)[here] = getattr(segment, name)[numbers]
        return rows

    def entry(self, entry_id: int, encoder_version: str) -> Entry | None:
        """A copy of an entry, if it is here, as if no decision had used it."""
        segment = self._holding(entry_id)
        if segment is None:
            return None
        row, embargo = entry_id - segment.first, self._config.embargo_ms
        key = segment.keys[row].copy()
        key.flags.writeable = False
        usable = segment.usable_from[row].tolist()
        outcomes = segment.outcomes[row].tolist()
        return Entry(
            entry_id=entry_id,
            symbol=segment.names[segment.symbols[row]],
            bar_time=int(segment.bar_times[row]),
            key=key,
            regime=int(segment.regimes[row]),
            encoder_version=encoder_version,
            outcomes=tuple(None if time == NEVER else y for y, time in zip(outcomes, usable, strict=True)),
            settled_times=tuple(None if time == NEVER else time - embargo for time in usable),
            novelty=float(segment.novelties[row]),
        )

    def ids(self) -> Iterator[int]:
        """Ids of all entries, increasing."""
        for segment in self.segments:
            yield from (segment.first + np.flatnonzero(~segment.gone)).tolist()

    def states(self, next_id: int) -> Iterator[BankState]:
        """The entries of every segment as columns, as if no decision had used them."""
        for segment in self.segments:
            yield segment.state(np.flatnonzero(~segment.gone), self._config, next_id=next_id)

    def state_with(self, ring: BankState) -> BankState:
        """All entries as columns, those of the ring after those of the archive."""
        whole = reduce(joined, (*self.states(ring.next_id), ring))
        return replace(whole, recollections=ring.recollections, recalled=ring.recalled)

    def outcomes_of(self, recollections: Iterable[Recollection]) -> dict[int, float]:
        """Primary outcomes of those that recollections name and that are here."""
        found: dict[int, float] = {}
        named = [np.append(recollection.ids, recollection.asker_id) for recollection in recollections]
        ids = np.unique(np.concatenate([np.empty(0, dtype=np.int64), *named]))
        for segment in self.segments:
            rows = ids - segment.first
            rows = rows[(rows >= 0) & (rows < len(segment.gone))]
            for row in rows[~segment.gone[rows]].tolist():
                found[segment.first + row] = float(segment.outcomes[row, self._config.primary])
        return found

    def digest(self) -> str:
        """SHA-256 over all entries in the order of their ids, in hexadecimal."""
        digest = hashlib.sha256()
        for state in self.states(0):
            digest.update("\n".join([state.names[number] for number in state.symbols.tolist()]).encode())
            for column in (state.ids, state.bar_times, state.settled_times, state.regimes.astype(np.int64)):
                digest.update(column.astype("<i8").tobytes())
            for values in (state.keys, state.novelties):
                digest.update(values.astype("<f4").tobytes())
            digest.update(state.outcomes.astype("<f8").tobytes())
        return digest.hexdigest()


def archive_of(config: BankConfig, state: BankState) -> tuple[Archive, BankState]:
    """What of a bank's content belongs to its archive, and the rest.

    Raises:
        MemoryBankError: entries of the archive do not fit the config, or are damaged.
    """
    check_shapes(config, state)
    boundary = state.next_id - config.capacity
    older = only(state, state.ids < boundary)
    ids = older.ids
    if len(ids) and not (max(0, boundary - config.sealed) <= ids[0] and (np.diff(ids) > 0).all()):
        raise MemoryBankError(
            f"ids are damaged: those from {boundary - config.sealed} to {boundary - 1} are due, in order"
        )
    archive = Archive(config)
    archive.fill(older)
    return archive, only(state, state.ids >= boundary)
