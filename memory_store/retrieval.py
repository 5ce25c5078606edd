"""Searching a ring: in full, or from a proposal made in bulk. Both give the same result to the last bit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from memory_store.index import GIVE_UP, best_first, candidates, rescore
from memory_store.records import BoolArray, IntArray, KeyArray, Proposal, ScoreArray, SearchResult
from memory_store.ring import EMPTY, Ring


@dataclass(frozen=True, slots=True, eq=False)
class Neighbours:
    """The nearest slots of one query, best first."""

    slots: IntArray
    scores: ScoreArray
    visible: int
    """Entries that could be chosen from."""


def search_all(ring: Ring, query: KeyArray, margin: ScoreArray, *, hidden: BoolArray, k: int) -> Neighbours:
    """Nearest of all slots that are not hidden.

    Args:
        ring: the entries.
        query: ``[1, d]``.
        margin: ``[1]`` from ``scan_margin``.
        hidden: ``[scanned]``, a multiple of the block.
        k: neighbours wanted.
    """
    scanned = len(hidden)
    near = candidates(ring.keys[:scanned], hidden, query, k, margin).slots
    scores = rescore(ring.keys[near], query[0])
    best = best_first(scores, ring.ids[near], k)
    return Neighbours(near[best], scores[best], scanned - int(np.count_nonzero(hidden)))


def propose(
    ring: Ring, queries: KeyArray, margin: ScoreArray, *, as_of: int, k: int, skip_oldest: int, next_id: int
) -> Proposal:
    """Nearest neighbours of a block of queries among the stable set; see ``MemoryBank.propose``.

    Args:
        ring: the entries.
        queries: ``[n, d]``.
        margin: ``[n]`` from ``scan_margin``.
        as_of: milliseconds.
        k: neighbours wanted.
        skip_oldest: appends after which the proposal is still to serve.
        next_id: the id that the next append gets.
    """
    scanned = ring.scanned(next_id)
    ids = ring.ids[:scanned]
    hidden = ring.hidden(as_of, scanned) | (ids < next_id + skip_oldest - ring.config.capacity)
    found = candidates(ring.keys[:scanned], hidden, queries, k, margin, give_up=GIVE_UP)
    scores = rescore(ring.keys[found.slots], queries[found.rows])
    best_ids, best_scores = ranked(found.rows, ids[found.slots], scores, (len(queries), k))
    stable = ids[~hidden]
    return Proposal(
        as_of=as_of,
        k=k,
        queries=queries,
        ids=best_ids,
        scores=best_scores,
        complete=found.complete,
        stable_count=len(stable),
        first_stable=int(stable.min(initial=next_id)),
        outside=ids[hidden & (ids != EMPTY)],
        next_id=next_id,
        owner=ring,
    )


def still_holds(proposal: Proposal, row: int, query: KeyArray, *, as_of: int, k: int, oldest_id: int) -> bool:
    """Whether a proposal still answers this search.

    Args:
        proposal: made for the same ring.
        row: of the query in the proposal.
        query: ``[1, d]``.
        as_of: milliseconds.
        k: neighbours wanted.
        oldest_id: lower ids are evicted.
    """
    return (
        as_of >= proposal.as_of
        and k <= proposal.k
        and oldest_id <= proposal.first_stable
        and bool(proposal.complete[row])
        and np.array_equal(proposal.queries[row], query[0])
    )


def search_proposed(
    ring: Ring, proposal: Proposal, row: int, query: KeyArray, *, as_of: int, k: int, next_id: int
) -> Neighbours:
    """Nearest of the proposed entries and of all visible ones outside the stable set, if the proposal still holds.

    Args:
        ring: the entries.
        proposal: made for the same ring.
        row: of the query in the proposal.
        query: ``[1, d]``.
        as_of: milliseconds.
        k: neighbours wanted.
        next_id: the id that the next append gets.
    """
    capacity = ring.config.capacity
    others = np.concatenate((proposal.outside, np.arange(proposal.next_id, next_id)))
    slots = others % capacity
    slots = slots[(ring.ids[slots] == others) & (ring.visible_from[slots] <= as_of)]
    known = min(k, proposal.stable_count)
    ids = np.concatenate((proposal.ids[row, :known], ring.ids[slots]))
    scores = np.concatenate((proposal.scores[row, :known], rescore(ring.keys[slots], query[0])))
    best = best_first(scores, ids, k)
    return Neighbours(ids[best] % capacity, scores[best], proposal.stable_count + len(slots))


def ranked(rows: IntArray, ids: IntArray, scores: ScoreArray, shape: tuple[int, ...]) -> tuple[IntArray, ScoreArray]:
    """Ids and scores of the best of every row, best first and equal scores in the order of ids, ``[n, k]``.

    Args:
        rows: ``[m]`` which row a candidate belongs to.
        ids: ``[m]`` of the candidates.
        scores: ``[m]``.
        shape: n and k; where a row has fewer candidates, ids are ``EMPTY`` and scores -inf.
    """
    order = np.lexsort((ids, -scores, rows))
    rows = rows[order]
    rank = np.arange(len(rows)) - np.searchsorted(rows, rows)
    kept = rank < shape[1]
    best_ids = np.full(shape, EMPTY, dtype=np.int64)
    best_scores = np.full(shape, -np.inf, dtype=np.float64)
    best_ids[rows[kept], rank[kept]] = ids[order[kept]]
    best_scores[rows[kept], rank[kept]] = scores[order[kept]]
    return best_ids, best_scores


def result(ring: Ring, found: Neighbours, symbol_names: list[str], *, as_of: int, k: int) -> SearchResult:
    """The answer to a search, padded with masked rows to ``k``."""
    ids = np.full((1, k), EMPTY, dtype=np.int64)
    scores = np.full((1, k), -np.inf, dtype=np.float64)
    ids[0, : len(found.slots)] = ring.ids[found.slots]
    scores[0, : len(found.slots)] = found.scores
    return results(ring, ids, scores, np.array([as_of]), [found.visible], symbol_names)[0]


def results(
    ring: Ring, ids: IntArray, scores: ScoreArray, as_of: IntArray, visible: Sequence[int], symbol_names: list[str]
) -> tuple[SearchResult, ...]:
    """The answers to ``n`` searches.

    Args:
        ring: holds all these entries.
        ids: ``[n, k]`` best first, then ``EMPTY``.
        scores: ``[n, k]``, -inf where the id is ``EMPTY``.
        as_of: ``[n]`` milliseconds.
        visible: ``n`` counts of entries that could be chosen from.
        symbol_names: symbol of every number.
    """
    mask = ids != EMPTY
    slots = ids % ring.config.capacity
    names = np.array([*symbol_names, ""], dtype=object)
    outcomes = np.where(ring.usable_from[slots] <= as_of[:, None, None], ring.outcomes[slots], np.nan)
    keys = ring.keys[slots]
    bar_times = ring.bar_times[slots]
    regimes = ring.regimes[slots].astype(np.int64)
    numbers = ring.symbols[slots]
    if not mask.all():
        nothing = ~mask
        outcomes[nothing] = np.nan
        keys[nothing] = 0.0
        bar_times[nothing] = 0
        regimes[nothing] = -1
        numbers[nothing] = -1
    symbols = map(tuple, names[numbers].tolist())
    rows = zip(ids, scores, mask, keys, outcomes, bar_times, symbols, regimes, visible, strict=True)
    return tuple([SearchResult(*row) for row in rows])
