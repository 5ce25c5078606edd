"""Searching a ring: in full, or from a proposal made in bulk. Both give the same result to the last bit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from memory_store.index import GIVE_UP, best_first, candidates, rescore
from memory_store.records import BoolArray, IntArray, KeyArray, Proposal, ScoreArray, SearchResult
from memory_store.ring import EMPTY, Ring

_Number = TypeVar("_Number", np.int64, np.float32, np.float64)


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
    order = np.lexsort((ids[found.slots], -scores, found.rows))
    rows = found.rows[order]
    rank = np.arange(len(rows)) - np.searchsorted(rows, rows)
    kept = rank < k
    best_ids = np.full((len(queries), k), EMPTY, dtype=np.int64)
    best_scores = np.full((len(queries), k), -np.inf, dtype=np.float64)
    best_ids[rows[kept], rank[kept]] = ids[found.slots[order[kept]]]
    best_scores[rows[kept], rank[kept]] = scores[order[kept]]
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


def result(ring: Ring, found: Neighbours, symbol_names: list[str], *, as_of: int, k: int) -> SearchResult:
    """The answer to a search, padded with masked rows to ``k``."""
    slots = found.slots
    missing = k - len(slots)
    outcomes = ring.outcomes[slots]
    outcomes[ring.usable_from[slots] > as_of] = np.nan
    symbols = [symbol_names[number] for number in ring.symbols[slots].tolist()]
    return SearchResult(
        ids=_padded(ring.ids[slots], missing, EMPTY),
        scores=_padded(found.scores, missing, -np.inf),
        mask=np.arange(k) < len(slots),
        keys=_padded(ring.keys[slots], missing, 0.0),
        outcomes=_padded(outcomes, missing, np.nan),
        bar_times=_padded(ring.bar_times[slots], missing, 0),
        symbols=(*symbols, *[""] * missing),
        regimes=_padded(ring.regimes[slots].astype(np.int64), missing, -1),
        visible=found.visible,
    )


def _padded(column: npt.NDArray[_Number], missing: int, fill: float) -> npt.NDArray[_Number]:
    """The column with ``missing`` more rows of ``fill`` at its end."""
    if not missing:
        return column
    tail = np.full((missing, *column.shape[1:]), fill, dtype=column.dtype)
    return np.concatenate((column, tail))
