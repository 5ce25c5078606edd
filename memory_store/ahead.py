"""Searches answered before their time: the bars to come of a replay, asked all at once.

An answer given now is the answer then if nothing that is going to happen can change it. Outcomes that become known later
are usable an embargo after that, so a search before the end of the embargo sees none of them; an entry that is evicted
meanwhile changes the answer if it is part of it, and else only how many entries could be chosen from. Both are checked
when the time has come.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from memory_store.index import rescore, scan_margin
from memory_store.records import BoolArray, IntArray, Proposal, SearchResult
from memory_store.retrieval import ranked, results
from memory_store.ring import EMPTY, Ring


@dataclass(frozen=True, slots=True, eq=False)
class Outlook:
    """Results of searches to come. Made by ``MemoryBank.look_ahead``, redeemed by ``MemoryBank.foreseen``."""

    as_of: tuple[int, ...]
    """When each search is going to be made, milliseconds."""
    results: tuple[SearchResult, ...]
    """What each would give if no entry were evicted until then; without meaning where not ``complete``."""
    complete: tuple[bool, ...]
    """Whether the proposal had an answer to the query."""
    lowest: tuple[int, ...]
    """Lowest id of each result."""
    first_stable: int
    """Lowest id of the proposal's stable set."""
    outside: IntArray
    """Ids that lived when it was made and are not in the stable set, increasing."""
    visible: BoolArray
    """``[n, len(outside)]``: which of them each search could choose."""
    disorder: int
    """The bank's count of outcomes that came out of order, when it was made."""
    owner: object = field(repr=False)
    """The ring that it was made for."""

    def result(self, place: int, oldest_id: int) -> SearchResult | None:
        """The result of a search, ``None`` if an eviction changed it.

        Args:
            place: of the search.
            oldest_id: lower ids are evicted by now.
        """
        if not self.complete[place] or oldest_id > self.lowest[place] or oldest_id > self.first_stable:
            return None
        result = self.results[place]
        evicted = int(np.searchsorted(self.outside, oldest_id))
        gone = int(np.count_nonzero(self.visible[place, :evicted]))
        return replace(result, visible=result.visible - gone) if gone else result


def look_ahead(
    ring: Ring,
    proposal: Proposal,
    first_row: int,
    as_of: Sequence[int],
    *,
    key_norm: float,
    symbol_names: list[str],
    next_id: int,
    disorder: int,
) -> Outlook:
    """Search for consecutive rows of a proposal at times to come, as if nothing happened until then.

    Args:
        ring: the entries.
        proposal: made for the same ring and still holding.
        first_row: of the queries in the proposal.
        as_of: ``n`` times, milliseconds.
        key_norm: upper bound of the length of all keys.
        symbol_names: symbol of every number.
        next_id: the id that the next append gets.
        disorder: see ``Outlook``.
    """
    rows = slice(first_row, first_row + len(as_of))
    queries, times = proposal.queries[rows], np.array(as_of, dtype=np.int64)
    outside = np.concatenate((proposal.outside, np.arange(proposal.next_id, next_id)))
    slots = outside % ring.config.capacity
    here = ring.ids[slots] == outside
    outside, slots = outside[here], slots[here]
    visible = ring.visible_from[slots] <= times[:, None]
    best_ids, best_scores = proposal.ids[rows], proposal.scores[rows]

    margin = scan_margin(ring.config.dimension, key_norm, np.sqrt(rescore(queries, queries)))
    floor = (best_scores[:, -1] - margin)[:, None]
    asking, places = np.nonzero(visible & (queries @ ring.keys[slots].T >= floor))
    scores = rescore(ring.keys[slots[places]], queries[asking])
    kept, column = np.nonzero(best_ids != EMPTY)
    ids, found = ranked(
        np.concatenate((kept, asking)),
        np.concatenate((best_ids[kept, column], outside[places])),
        np.concatenate((best_scores[kept, column], scores)),
        best_ids.shape,
    )
    counts = proposal.stable_count + np.count_nonzero(visible, axis=1)
    lowest = np.where(ids == EMPTY, next_id, ids).min(axis=1)
    order = np.argsort(outside)
    return Outlook(
        as_of=tuple(as_of),
        results=results(ring, ids, found, times, counts.tolist(), symbol_names),
        complete=tuple(proposal.complete[rows].tolist()),
        lowest=tuple(lowest.tolist()),
        first_stable=proposal.first_stable,
        outside=outside[order],
        visible=visible[:, order],
        disorder=disorder,
        owner=ring,
    )
