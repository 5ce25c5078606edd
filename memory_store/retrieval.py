"""Searching a ring: in full, or from a proposal made in bulk. Both give the same result to the last bit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from memory_store.directory import Directory
from memory_store.finding import Finder, Neighbours, excluded_slots, prefer
from memory_store.index import best_first, rescore
from memory_store.machine_code import fixed
from memory_store.policy import RetrievalPolicy, is_final
from memory_store.question import Question
from memory_store.ranking import Best, add_pairs
from memory_store.records import Eviction, IntArray, KeyArray, Proposal, ScoreArray, SearchResult
from memory_store.ring import EMPTY, Ring, Rows
from memory_store.search_results import SearchResults

RESERVE: Final = 16
"""Neighbours listed beyond those wanted, for those that eviction may take, where it cannot be known whom it takes."""


def propose(
    ring: Ring,
    finder: Finder,
    queries: KeyArray,
    margin: ScoreArray,
    *,
    as_of: int,
    k: int,
    skip_oldest: int,
    next_id: int,
) -> Callable[[], Proposal]:
    """Nearest neighbours of a block of queries among the stable set; see ``MemoryBank.propose``.

    They are looked for when what is returned is called: by any thread where the oldest make room and the index is exact, while
    this one goes on to write, as long as it evicts nothing of the stable set. Whether it did shows afterwards.

    Args:
        ring: the entries.
        finder: of the entries.
        queries: ``[n, d]``.
        margin: ``[n]`` from ``scan_margin``.
        as_of: milliseconds.
        k: neighbours wanted.
        skip_oldest: appends after which the proposal is still to serve.
        next_id: the id that the next append gets.
    """
    scanned = ring.scanned(next_id)
    ids = ring.ids[:scanned]
    hidden = ring.visibility.hidden(as_of)[:scanned]
    listed = k
    if ring.config.eviction is Eviction.FIFO:
        hidden = hidden | (ids < next_id + skip_oldest - ring.config.capacity)
    elif skip_oldest:
        listed += RESERVE
    visible = ring.visibility.count(as_of)
    unstable = np.flatnonzero(hidden)
    held = ids[unstable] != EMPTY
    outside, outside_slots = ids[unstable[held]], unstable[held]
    first_stable = int(np.where(hidden, next_id, ids).min())
    search = finder.propose(hidden, queries, listed, margin, visible=visible, next_id=next_id)

    def look() -> Proposal:
        # Entries that are hidden may be others by now.
        found, looked_into = search()
        best = Best.none(len(queries), listed)
        add_pairs(fixed(ring.keys), fixed(ring.ids), fixed(queries), fixed(found.rows), fixed(found.slots), best)
        return Proposal(
            as_of=as_of,
            k=k,
            queries=queries,
            ids=best.ids,
            scores=best.scores,
            complete=found.complete,
            slots=ring.slots.slots(best.ids.ravel()).reshape(best.ids.shape),
            stable_count=scanned - len(unstable),
            first_stable=first_stable,
            outside=outside,
            outside_slots=outside_slots,
            next_id=next_id,
            owner=ring.number,
            looked_into=looked_into,
        )

    return look


def search_proposed(
    ring: Ring,
    finder: Finder,
    directory: Directory,
    proposal: Proposal,
    row: int,
    question: Question,
    *,
    size: int,
    next_id: int,
) -> Neighbours | None:
    """Nearest of the proposed entries and of all visible ones outside the stable set; ``None`` if the proposal has no answer.

    Evicted entries drop out of the proposed ones. What is left is the best of what is left of the stable set; it answers
    if it is ``k`` entries, or all that there are. A policy chooses among the same, if nobody left out could be preferred.

    An approximate answer is looked for in some cells alone, so it takes ``k`` entries, the same cells as when it was
    proposed, and no policy: how far that looks depends on whom it leaves out.

    Args:
        ring: the entries.
        finder: of the entries.
        directory: of the entries.
        proposal: made for the same ring.
        row: of the query in the proposal.
        question: the search; a proposal knows nothing of symbols.
        size: entries held.
        next_id: the id that the next append gets.
    """
    k, as_of, policy = question.k, question.as_of, question.policy
    fits = as_of >= proposal.as_of and k <= proposal.k and bool(proposal.complete[row]) and question.symbols is None
    cells = proposal.looked_into
    if cells is not None and policy is not None:
        return None
    if not fits or not np.array_equal(proposal.queries[row], question.query[0]):
        return None
    others, slots = outside_now(ring, proposal, next_id)
    stable_count = size - len(others)
    here = ring.still(proposal.ids[row], proposal.slots[row])
    ids, known, scores = proposal.ids[row], proposal.slots[row], proposal.scores[row]
    if not here.all():
        ids, known, scores = ids[here], known[here], scores[here]
    if len(ids) < min(k, stable_count):
        return None
    seen = ring.visible_from[slots] <= as_of
    others, slots = others[seen], slots[seen]
    visible = stable_count + len(slots)
    worth = rescore(ring.keys[slots], question.query[0])
    if cells is not None:
        if len(ids) < k or not cells.apply(finder.partition, visible, k):
            return None
        near = np.flatnonzero(worth >= scores[k - 1])
        near = near[cells.hold(np.full(len(near), row), ring.keys[slots[near]])]
        others, slots, worth = others[near], slots[near], worth[near]
    ids, slots, scores = np.concatenate((ids, others)), np.concatenate((known, slots)), np.concatenate((scores, worth))
    if policy is None:
        best = best_first(scores, ids, k)
        return Neighbours(slots[best], scores[best], scores[best], visible)
    unseen = -np.inf if len(known) == stable_count else float(scores[len(known) - 1])
    out = excluded_slots(ring, directory, question, slots)
    if out is not None:
        slots, scores = slots[~out], scores[~out]
    chosen, worth = prefer(
        question, scores, ids=ring.ids[slots], bar_times=ring.bar_times[slots], regimes=ring.regimes[slots]
    )
    if not is_final(policy, worth[chosen], k, unseen):
        return None
    return Neighbours(slots[chosen], scores[chosen], worth[chosen], visible)


def outside_now(ring: Ring, proposal: Proposal, next_id: int) -> tuple[IntArray, IntArray]:
    """Ids and slots of all entries held that are not in the proposal's stable set, increasing ids not assured."""
    newer, newer_slots = ring.slots.since(proposal.next_id, next_id)
    others = np.concatenate((proposal.outside, newer))
    slots = np.concatenate((proposal.outside_slots, newer_slots))
    here = ring.still(others, slots)
    return (others, slots) if here.all() else (others[here], slots[here])


def result(found: Neighbours, rows_at: Callable[[IntArray], Rows], question: Question) -> SearchResult:
    """The answer to a search, padded with masked rows to ``k``.

    Args:
        found: the neighbours.
        rows_at: gives what lies at places.
        question: the search.
    """
    k, policy = question.k, question.policy
    slots = np.zeros((1, k), dtype=np.int64)
    scores = np.full((1, k), -np.inf, dtype=np.float64)
    count = len(found.slots)
    slots[0, :count], scores[0, :count] = found.slots, found.scores
    rows = rows_at(slots)
    rows.ids[0, count:] = EMPTY
    preferences = scores
    if policy is not None:
        preferences = np.full((1, k), -np.inf, dtype=np.float64)
        preferences[0, :count] = found.preferences
    times = np.array([question.as_of])
    return results(rows, scores, preferences, times, [found.visible], policy)[0]


def results(
    held: Rows,
    scores: ScoreArray,
    preferences: ScoreArray,
    as_of: IntArray,
    visible: Sequence[int],
    policy: RetrievalPolicy | None = None,
) -> SearchResults:
    """The answers to ``n`` searches.

    Args:
        held: ``[n, k]`` the neighbours, best first, then rows without meaning whose id is ``EMPTY``; written to.
        scores: ``[n, k]``, -inf where the id is ``EMPTY``.
        preferences: ``[n, k]``, the same.
        as_of: ``[n]`` milliseconds.
        visible: ``n`` counts of entries that could be chosen from.
        policy: by which they were chosen.
    """
    ids, names, keys, known, usable_from, bar_times, regimes = held
    mask = ids != EMPTY
    outcomes = np.where(usable_from <= as_of[:, None, None], known, np.nan)
    if not mask.all():
        nothing = ~mask
        outcomes[nothing] = np.nan
        keys[nothing] = 0.0
        bar_times[nothing] = 0
        regimes[nothing] = -1
        names[nothing] = ""
    return SearchResults(ids, scores, mask, keys, outcomes, bar_times, names, regimes, visible, preferences, policy)
