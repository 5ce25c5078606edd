"""Searches answered before their time: the bars to come of a replay, asked all at once.

An answer given now is the answer then if nothing that is going to happen can change it. Outcomes that become known later
are usable an embargo after that, so a search before the end of the embargo sees none of them; an entry that is evicted
meanwhile changes the answer if it is part of it, and else only how many entries could be chosen from. Both are checked
when the time has come.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from memory_store.approximate import CellsLookedInto
from memory_store.index import rescore, scan_margin
from memory_store.machine_code import fixed
from memory_store.partition import Partition
from memory_store.ranking import Best, add_pairs
from memory_store.records import BoolArray, Eviction, IntArray, Proposal
from memory_store.retrieval import outside_now, results
from memory_store.ring import EMPTY, Ring
from memory_store.search_results import SearchResults


@dataclass(frozen=True, slots=True, eq=False)
class Terms:
    """What the answers of an outlook rest on: tells of each whether it holds when its time has come.

    It refers to no ring: whoever keeps it keeps no memory alive.
    """

    as_of: tuple[int, ...]
    """When each search is going to be made, milliseconds."""
    counts: tuple[int, ...]
    """Entries that each could choose from if none were evicted until then."""
    complete: tuple[bool, ...]
    """Whether the proposal had an answer to the query."""
    ids: IntArray
    """``[n, k]`` of the results, ``EMPTY`` where there are fewer."""
    slots: IntArray
    """``[n, k]`` where they lie."""
    lowest: tuple[int, ...]
    """Lowest id of each result."""
    first_stable: int
    """Lowest id of the proposal's stable set."""
    stable_count: int
    """Entries of the stable set that were held when it was made."""
    outside: IntArray
    """Ids that lived when it was made and are not in the stable set, increasing."""
    outside_slots: IntArray
    """Where they lie."""
    outside_in_order: Sequence[int]
    """The same ids as numbers, where the oldest are evicted first; else none."""
    visible: BoolArray
    """``[n, len(outside)]``: which of them each search could choose."""
    visible_before: IntArray
    """``[n, len(outside) + 1]``: how many of the first so many, where the oldest are evicted first."""
    next_id: int
    """The id that the next append was going to get."""
    in_order: bool
    """Whether the oldest are evicted first."""
    disorder: int
    """The bank's count of events that no outlook survives, when it was made."""
    owner: int
    """Number of the ring that it was made for."""
    looked_into: CellsLookedInto | None = field(default=None, repr=False)
    """As the proposal has it."""

    def visible_count(
        self, place: int, ring: Ring, *, size: int, next_id: int, partition: Partition | None
    ) -> int | None:
        """How many entries a search could choose from, ``None`` if an eviction or other cells changed its result.

        Args:
            place: of the search.
            ring: the entries by now.
            size: entries held by now.
            next_id: the id that the next append gets by now.
            partition: cells of the approximate index by now, if there is one.
        """
        if not self.complete[place]:
            return None
        gone = self._gone_in_order(place, ring, next_id) if self.in_order else self._gone(place, ring, size, next_id)
        if gone is None:
            return None
        cells = self.looked_into
        visible = self.counts[place] - gone
        return visible if cells is None or cells.apply(partition, visible, self.ids.shape[1]) else None

    def _gone_in_order(self, place: int, ring: Ring, next_id: int) -> int | None:
        """How many entries that the search could choose are evicted, ``None`` if one that it chose is; the oldest go first."""
        oldest_id = next_id - ring.config.capacity
        if oldest_id > self.lowest[place] or oldest_id > self.first_stable:
            return None
        evicted = bisect_left(self.outside_in_order, oldest_id)
        return int(self.visible_before.item(place, evicted))

    def _gone(self, place: int, ring: Ring, size: int, next_id: int) -> int | None:
        """The same where any may go."""
        ids = self.ids[place]
        if np.count_nonzero(ring.still(ids, self.slots[place])) < np.count_nonzero(ids != EMPTY):
            return None
        held = ring.still(self.outside, self.outside_slots)
        newer = np.count_nonzero(ring.still(*ring.slots.since(self.next_id, next_id)))
        stable = size - np.count_nonzero(held) - newer
        return int(self.stable_count - stable + np.count_nonzero(self.visible[place] & ~held))


class Outlook(NamedTuple):
    """Results of searches to come. Made by ``MemoryBank.look_ahead``, redeemed by ``foreseen``."""

    results: SearchResults
    """What each would give if no entry were evicted until then; without meaning where not ``complete``."""
    terms: Terms
    """On which they hold, see ``MemoryBank.still_foreseen``."""


def look_ahead(
    ring: Ring,
    proposal: Proposal,
    first_row: int,
    as_of: Sequence[int],
    *,
    key_norm: float,
    symbol_names: list[str],
    size: int,
    next_id: int,
    disorder: int,
) -> Outlook:
    """Search for consecutive rows of a proposal at times to come, as if nothing happened until then.

    Args:
        ring: the entries.
        proposal: made for the same ring, at no later a time.
        first_row: of the queries in the proposal.
        as_of: ``n`` times, milliseconds.
        key_norm: upper bound of the length of all keys.
        symbol_names: symbol of every number.
        size: entries held.
        next_id: the id that the next append gets.
        disorder: see ``Terms``.
    """
    in_order = ring.config.eviction is Eviction.FIFO
    rows = slice(first_row, first_row + len(as_of))
    queries, times = proposal.queries[rows], np.array(as_of, dtype=np.int64)
    outside, slots = outside_now(ring, proposal, next_id)
    order = np.argsort(outside)
    outside, slots = outside[order], slots[order]
    visible = ring.visible_from[slots] <= times[:, None]
    stable_count = size - len(outside)
    best_ids, best_scores = proposal.ids[rows], proposal.scores[rows]
    here = ring.still(best_ids, proposal.slots[rows])
    listed = np.count_nonzero(here, axis=1)
    cells = proposal.looked_into
    enough = listed >= (min(proposal.k, stable_count) if cells is None else proposal.k)

    margin = scan_margin(ring.config.dimension, key_norm, np.sqrt(rescore(queries, queries)))
    floor = np.where(listed >= proposal.k, best_scores[:, -1] - margin, -np.inf)[:, None]
    asking, places = np.nonzero(visible & (queries @ ring.keys[slots].T >= floor))
    if cells is not None:
        inside = cells.hold(first_row + asking, ring.keys[slots[places]])
        asking, places = asking[inside], places[inside]
    best = Best.of(best_ids, best_scores, here, proposal.k)
    add_pairs(fixed(ring.keys), fixed(ring.ids), fixed(queries), fixed(asking), fixed(slots[places]), best)
    ids, found = best.ids, best.scores
    counts = stable_count + np.count_nonzero(visible, axis=1)
    lowest = np.where(ids == EMPTY, next_id, ids).min(axis=1)
    found_slots = ring.slots.slots(ids.ravel()).reshape(ids.shape)
    held = ring.rows(symbol_names, found_slots)
    held.ids[ids == EMPTY] = EMPTY
    visible_counts = counts.tolist()
    terms = Terms(
        as_of=tuple(as_of),
        counts=tuple(visible_counts),
        complete=tuple((proposal.complete[rows] & enough).tolist()),
        ids=ids,
        slots=found_slots,
        lowest=tuple(lowest.tolist()),
        first_stable=proposal.first_stable,
        stable_count=stable_count,
        outside=outside,
        outside_slots=slots,
        outside_in_order=outside.tolist() if in_order else (),
        visible=visible,
        visible_before=_counted(visible) if in_order else np.empty((0, 0), dtype=np.int64),
        next_id=next_id,
        in_order=in_order,
        disorder=disorder,
        owner=ring.number,
        looked_into=cells,
    )
    return Outlook(results(held, found, found, times, visible_counts), terms)


def _counted(visible: BoolArray) -> IntArray:
    """How many of the first so many are set, ``[n, m + 1]``."""
    counts = np.zeros((len(visible), visible.shape[1] + 1), dtype=np.int64)
    np.cumsum(visible, axis=1, out=counts[:, 1:])
    return counts
