"""Finding the nearest entries of a ring by whichever index the config names, and those that a policy prefers."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from memory_store.approximate import ApproximateIndex, CellsLookedInto, reads_all, training_points
from memory_store.archive import Archive
from memory_store.directory import Directory
from memory_store.gpu import candidates_by, gpu_nearest, is_worthwhile
from memory_store.index import GIVE_UP, Candidates, best_first, candidates, rescore
from memory_store.partition import Partition, fit_partition
from memory_store.policy import (
    excluded,
    is_final,
    most_preferred,
    preferences,
)
from memory_store.pruned import BULK_GATHER_COST, PrunedIndex
from memory_store.question import Question
from memory_store.recall_monitor import RecallMonitor, RecallReading, RecallState
from memory_store.records import BoolArray, IndexKind, IntArray, KeyArray, MemoryBankError, Metric, ScoreArray
from memory_store.ring import EMPTY, Ring, Rows
from memory_store.segments import Eligible
from memory_store.visibility import Bitmap

_FIRST_WIDTH: Final = 4
"""Times as many of the most alike as neighbours wanted, from which a policy first tries to choose."""
_WIDER: Final = 8

_Proposed: TypeAlias = tuple[Candidates, CellsLookedInto | None]


@dataclass(frozen=True, slots=True, eq=False)
class Neighbours:
    """The chosen places of one query, best first."""

    slots: IntArray
    """Of the ring; negative in the archive, see ``memory_store.archive``."""
    scores: ScoreArray
    preferences: ScoreArray
    visible: int
    """Entries that could be chosen from."""


class _Choice(NamedTuple):
    """What a search may choose from."""

    hidden: BoolArray
    """``[slots]``."""
    bitmap: Bitmap | None
    """The same as a bitmap, where it is at hand."""
    eligible: int
    """Slots not hidden."""
    visible: int
    """Entries visible, of the symbols asked for; what a policy leaves out among them."""
    sealed: list[Eligible]
    """The same of every segment of the archive."""

    @property
    def all_eligible(self) -> int:
        """Entries to choose from, sealed ones included."""
        return self.eligible + sum(part.eligible for part in self.sealed)

    @property
    def all_visible(self) -> int:
        """Entries visible, sealed ones included."""
        return self.visible + sum(part.visible for part in self.sealed)


class Finder:
    """The indexes over a ring: derived from its entries, and told of every one that is written.

    Args:
        ring: the entries.
        archive: more of them.
    """

    __slots__ = (
        "_approximate",
        "_archive",
        "_bulk",
        "_monitor",
        "_next_training",
        "_pruned",
        "_ring",
        "_unasked",
    )

    def __init__(self, ring: Ring, archive: Archive) -> None:
        self._ring = ring
        self._archive = archive
        self._pruned = PrunedIndex(ring.keys)
        self._bulk: PrunedIndex | None = None
        """For searches proposed in bulk, which pay with more directions; where they are."""
        self._unasked = 0
        self._approximate: ApproximateIndex | None = None
        self._next_training: int | None = 0
        trained = any(True for _ in training_points(ring.config.capacity))
        approximate = ring.config.index is IndexKind.APPROXIMATE and trained
        self._monitor = RecallMonitor() if approximate else None

    @property
    def partition(self) -> Partition | None:
        """The cells of the approximate index; ``None`` where there are none."""
        return None if self._approximate is None else self._approximate.partition

    @property
    def checks_next(self) -> bool:
        """Whether the next query is one that the running check compares, so that it has to be asked in full."""
        return self._monitor is not None and self._monitor.checks_next

    def answered_ahead(self) -> None:
        """Count a query that was answered without a search."""
        if self._monitor is not None:
            self._monitor.due()

    @property
    def recall(self) -> RecallReading | None:
        """What the running check of an approximate index shows; ``None`` where all is exact."""
        return None if self._monitor is None else self._monitor.reading

    @property
    def recall_state(self) -> RecallState | None:
        """What the running check knows; ``None`` where all is exact."""
        return None if self._monitor is None else self._monitor.state

    def resume_recall(self, state: RecallState) -> None:
        """Let the running check go on from there, where there is one."""
        if self._monitor is not None:
            self._monitor = RecallMonitor(state=state)

    def written(self, slot: int, next_id: int) -> None:
        """An entry was written; ``next_id`` is the id after its own."""
        self._pruned.write(slot)
        if self._bulk is not None:
            self._bulk.write(slot)
        self._unasked += 1
        if self._unasked > self._ring.config.capacity:  # nobody asks: what has changed is no longer worth listing
            self._pruned, self._bulk, self._unasked = PrunedIndex(self._ring.keys), None, 0
        if self._approximate is not None:
            self._approximate.write(slot)
            self._train_if_due(next_id)

    def evicted(self) -> None:
        """Entries left out of turn, so that what the approximate index learned from may no longer all be held.

        A bank that is opened later can learn only from what is still there, and has to have the same cells.
        """
        if self._approximate is not None:
            self._approximate, self._next_training = None, 0

    def search(self, directory: Directory, question: Question, *, next_id: int) -> Neighbours:
        """The neighbours of one query.

        A policy that takes preferences off scores chooses among more of the most alike than wanted, and among ever more
        until nobody left out could be preferred.

        Args:
            directory: of the entries.
            question: the search.
            next_id: the id that the next append gets.
        """
        choice, policy, k = self._choice(directory, question), question.policy, question.k
        if policy is None:
            slots, scores = self._nearest_of_all(question, choice, k, next_id)
            return Neighbours(slots, scores, scores, choice.all_visible)
        straight = not policy.penalises and not policy.one_per_moment
        width = k if straight else _FIRST_WIDTH * k
        while True:
            width = max(1, min(width, choice.all_eligible))
            slots, scores = self._nearest_of_all(question, choice, width, next_id)
            unseen = -np.inf if len(slots) < width or width == choice.all_eligible else float(scores[-1])
            rows = self.rows(directory, slots)
            chosen, worth = prefer(question, scores, ids=rows.ids, bar_times=rows.bar_times, regimes=rows.regimes)
            if straight or is_final(policy, worth[chosen], k, unseen):
                return Neighbours(slots[chosen], scores[chosen], worth[chosen], choice.all_visible)
            width *= _WIDER

    def rows(self, directory: Directory, places: IntArray) -> Rows:
        """What lies at some places, of any shape."""
        if not self._archive.segments:
            return self._ring.rows(directory.names, places)
        return self._archive.rows(self._ring, directory.names, places)

    def propose(
        self,
        hidden: BoolArray,
        queries: KeyArray,
        k: int,
        margin: ScoreArray,
        *,
        visible: int,
        next_id: int,
    ) -> Callable[[], _Proposed]:
        """Slots among which the nearest of many queries are, and in which cells they were looked for: ``None`` means in all.

        They are found when what is returned is called: by any thread where the index is exact, see
        ``PrunedIndex.search_of_many``.

        A bank with an archive has nothing to propose: entries move from the one to the other.

        Args:
            hidden: ``[size]``, True where a slot must not be found; the slots scanned.
            queries: ``[n, d]``.
            k: neighbours wanted.
            margin: ``[n]`` from ``scan_margin``.
            visible: how many slots the searches may choose from.
            next_id: the id that the next append gets.
        """
        archived = self._ring.config.sealed > 0
        if self._monitor is None and not archived:
            search = self._search_all(hidden, queries, k, margin)
            return lambda: (search(), None)
        self._train_if_due(next_id)
        if archived or self._approximate is None or reads_all(visible, k):
            nothing = np.empty(0, dtype=np.int64)
            none = Candidates(nothing, nothing, np.zeros(len(queries), dtype=np.bool_))
            return lambda: (none, None)
        everywhere = np.ones(len(self._ring.ids), dtype=np.bool_)
        everywhere[: len(hidden)] = hidden
        return partial(self._approximate.propose, everywhere, queries, k, margin, visible)

    def _search_all(self, hidden: BoolArray, queries: KeyArray, k: int, margin: ScoreArray) -> Callable[[], Candidates]:
        nearest = gpu_nearest() if is_worthwhile(len(hidden), len(queries), k) else None
        if nearest is not None:
            found = candidates_by(nearest, self._ring.keys[: len(hidden)], hidden, queries, k, margin)
            if found is not None:
                return lambda: found
        if self._bulk is None:
            self._bulk = PrunedIndex(self._ring.keys, gather_cost=BULK_GATHER_COST)
        self._unasked = 0
        return self._bulk.search_of_many(hidden, queries, k, margin, give_up=GIVE_UP)

    def _choice(self, directory: Directory, question: Question) -> _Choice:
        ring, symbols = self._ring, question.symbols
        hidden = ring.visibility.hidden(question.as_of)
        visible = eligible = ring.visibility.count(question.as_of)
        bitmap = None if self._monitor is None else ring.visibility.bitmap(question.as_of)
        if symbols is not None:
            hidden, bitmap = hidden | _of_others(ring, directory, symbols), None
            visible = eligible = len(hidden) - int(np.count_nonzero(hidden))
        out = excluded_slots(ring, directory, question, None)
        if out is not None:
            hidden, bitmap = hidden | out, None
            eligible = len(hidden) - int(np.count_nonzero(hidden))
        return _Choice(hidden, bitmap, eligible, visible, self._archive.eligible(question))

    def _nearest_of_all(self, question: Question, choice: _Choice, k: int, next_id: int) -> tuple[IntArray, ScoreArray]:
        """The same as ``_nearest``, sealed entries among them."""
        slots, scores = self._nearest(question, choice, k, next_id)
        return self._archive.add_nearest(slots, scores, self._ring.ids[slots], question, choice.sealed, k)

    def _nearest(self, question: Question, choice: _Choice, k: int, next_id: int) -> tuple[IntArray, ScoreArray]:
        """Slots and scores of the ``k`` nearest, best first, equal scores in the order of ids; of all if there are fewer."""
        if self._monitor is None:
            return self._all_nearest(question, choice, k, next_id)
        self._train_if_due(next_id)
        if self._approximate is None:
            return self._all_nearest(question, choice, k, next_id)
        found = self._approximate.candidates(
            choice.hidden, choice.bitmap, question.query, k, question.margin, choice.eligible
        )
        slots, scores = self._ranked(found.slots, question.query, k)
        if self._monitor.due():
            exact, _ = self._all_nearest(question, choice, k, next_id)
            self._monitor.record(self._ring.ids[slots], self._ring.ids[exact])
        return slots, scores

    def _all_nearest(self, question: Question, choice: _Choice, k: int, next_id: int) -> tuple[IntArray, ScoreArray]:
        hidden, query, margin = choice.hidden[: self._ring.scanned(next_id)], question.query, question.margin
        if self._approximate is not None:  # only checks and the beginning: not worth the memory of a second index
            return self._ranked(candidates(self._ring.keys[: len(hidden)], hidden, query, k, margin).slots, query, k)
        self._unasked = 0
        return self._ranked(self._pruned.candidates(hidden, query, k, margin), query, k)

    def _ranked(self, found: IntArray, query: KeyArray, k: int) -> tuple[IntArray, ScoreArray]:
        scores = rescore(self._ring.keys[found], query[0])
        best = best_first(scores, self._ring.ids[found], k)
        return found[best], scores[best]

    # -- training -------------------------------------------------------------------------------------------------------

    def _train_if_due(self, next_id: int) -> None:
        """Train the approximate index for the last training point that was reached, unless it is.

        It learns from the later half of what the bank can hold as of that point. Where the oldest make room these are held
        until the next point, so it makes no difference when it is trained, nor that the bank was closed meanwhile.
        """
        if self._next_training is None or next_id < self._next_training:
            return
        ring, capacity = self._ring, self._ring.config.capacity
        reached, self._next_training = None, None
        for point in training_points(capacity):
            if point > next_id:
                self._next_training = point
                break
            reached = point
        if reached is None:
            return
        ids, slots = ring.slots.since(max(0, reached - max(1, capacity // 2)), next_id)
        learned = slots[ring.still(ids, slots) & (ids < reached)]
        if not len(learned):
            return
        unit = ring.config.metric is Metric.COSINE
        partition = fit_partition(ring.keys[learned], unit=unit, held=min(reached, capacity))
        occupied = np.flatnonzero(ring.ids != EMPTY)
        self._approximate = ApproximateIndex(ring.keys, partition, occupied, unit=unit)
        self._pruned = PrunedIndex(ring.keys)


def prefer(
    question: Question,
    scores: ScoreArray,
    *,
    ids: IntArray,
    bar_times: IntArray,
    regimes: IntArray | npt.NDArray[np.int32],
) -> tuple[IntArray, ScoreArray]:
    """Places of the most preferred of some entries, most preferred first, and what each entry is worth, ``[n]``."""
    policy = question.policy
    assert policy is not None
    worth = preferences(policy, question.asker, scores, bar_times=bar_times, regimes=regimes)
    return most_preferred(policy, worth, ids=ids, bar_times=bar_times, k=question.k), worth


def excluded_slots(ring: Ring, directory: Directory, question: Question, slots: IntArray | None) -> BoolArray | None:
    """Which of some slots, or of all, hold entries that the policy leaves out; ``None`` if it leaves none out.

    Raises:
        MemoryBankError: the policy needs an asker and there is none.
    """
    policy, asker = question.policy, question.asker
    if policy is None:
        return None
    concerned = slots if slots is not None else slice(None if policy.excludes else 0)
    number = None if asker is None else directory.number(asker.symbol)
    out = excluded(
        policy,
        asker,
        symbols=ring.symbols[concerned],
        asker_symbol=EMPTY if number is None else number,
        regimes=ring.regimes[concerned],
    )
    return out if policy.excludes else None


def _of_others(ring: Ring, directory: Directory, symbols: Collection[str]) -> npt.NDArray[np.bool_]:
    """Which slots hold entries of symbols that were not asked for."""
    if isinstance(symbols, str):
        raise MemoryBankError(f"symbols is the text {symbols!r}; give a collection such as [{symbols!r}]")
    unwanted = np.array([name not in symbols for name in directory.names] or [True], dtype=np.bool_)
    return np.take(unwanted, ring.symbols, mode="clip")  # a third of the time of indexing
