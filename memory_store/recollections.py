"""What decisions remembered: counted as hits, and as credit when their own outcome is known.

Nobody reads a count between two decisions unless it decides who leaves, so counting waits until somebody does, or until
enough has come together: many at once cost a tenth of as many one at a time, and give the same numbers to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice, pairwise
from math import inf
from typing import Final, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from memory_store.credit import LARGEST_CREDIT, in_scales, leave_one_out
from memory_store.records import (
    TIME_LIMIT,
    BoolArray,
    Eviction,
    IntArray,
    MemoryBankError,
    Recollection,
    ScoreArray,
)
from memory_store.ring import NEVER, Ring

_BATCH: Final = 2048
"""Recollections of the past that are counted at once."""
_COUNTED_LATE: Final = 512
"""So many of the present are put off at most: more would not fit a processor's cache when they are counted."""
_ID_TYPE: Final = np.dtype(np.int64)
_SHARE_TYPE: Final = np.dtype(np.float64)
_Number = TypeVar("_Number", np.int64, np.float64)


class Waiting(NamedTuple):
    """A recollection whose asker's outcome is pending."""

    recollection: Recollection
    outcomes: ScoreArray
    """``[n]`` primary outcomes of its neighbours: they may be gone when it is needed."""


class _Answered(NamedTuple):
    """A recollection whose asker's outcome is known, and nobody credited yet."""

    recollection: Recollection
    outcomes: ScoreArray
    """``[n]`` primary outcomes of its neighbours."""
    outcome: float
    """Of its asker."""


class Noted(NamedTuple):
    """Decisions to remember together, ``n`` of them with ``k`` neighbours each."""

    askers: Sequence[int]
    as_of: Sequence[int]
    ids: IntArray
    """``[n, k]``, best first."""
    weights: ScoreArray
    """``[n, k]``."""
    outcomes: ScoreArray
    """``[n, k]`` primary outcomes of the neighbours."""


class Recollections:
    """The recollections of a bank whose outcome is pending, and the hits and credits of its entries.

    The ring's ``hits``, ``last_hits`` and ``credits`` are complete after ``count``. Where credit decides who leaves it is
    counted at once.
    """

    __slots__ = (
        "_answered",
        "_at_once",
        "_outcomes",
        "_ring",
        "_seen_by",
        "_seen_from",
        "_seen_to",
        "_uncounted",
        "waiting",
    )

    def __init__(self, ring: Ring) -> None:
        self._ring = ring
        self._at_once = ring.config.eviction is not Eviction.FIFO
        self._outcomes: ScoreArray = ring.outcomes[:, ring.config.primary]
        self._uncounted: list[Recollection] = []
        """Those whose hits are not counted yet. Entries that leave meanwhile take theirs along."""
        self._answered: list[_Answered] = []
        self._seen_from = self._seen_to = self._seen_by = 0
        """From the first of these ids to before the second all entries are held, and visible at the time that is third."""
        self.waiting: dict[int, Waiting] = {}
        """By asker, in the order of noting."""

    def note(
        self, asker_id: int, as_of: int, ids: npt.ArrayLike, weights: npt.ArrayLike, *, next_id: int
    ) -> Recollection | None:
        """Remember a decision; see ``MemoryBank.note``. ``None`` where nothing is left to remember."""
        ring = self._ring
        slots = self._slots_if_sound(ids, weights, as_of)
        if slots is None:
            neighbours, shares = _checked(ids, weights, asker_id, next_id)
        else:
            neighbours, shares = np.array(ids), np.array(weights)
        if not -TIME_LIMIT < as_of < TIME_LIMIT:
            raise MemoryBankError(f"entry {asker_id} cannot have asked at {as_of}, which is no time in milliseconds")
        if not 0 <= asker_id < next_id:
            raise MemoryBankError(f"entry {asker_id} cannot have asked: this memory has given no such id")
        asker = ring.find(asker_id)
        if asker_id in self.waiting:
            raise MemoryBankError(f"entry {asker_id} has its neighbours noted already; a decision remembers once")
        if asker is None:
            return None
        if ring.visible_from.item(asker) != NEVER:
            raise MemoryBankError(f"outcome of entry {asker_id} is known already; note its neighbours before that")
        if slots is None:
            slots, here = self._located(neighbours, as_of)
            slots, neighbours, shares = slots[here], neighbours[here], shares[here]
            if not (shares > 0.0).any():
                return None
        neighbours.flags.writeable = shares.flags.writeable = False
        recollection = Recollection(asker_id, as_of, neighbours, shares)
        self.waiting[asker_id] = Waiting(recollection, self._outcomes[slots])
        self._uncounted.append(recollection)
        if len(self._uncounted) >= _COUNTED_LATE:
            self._count_hits()
        return recollection

    def notable(self, noted: Sequence[tuple[int, int, npt.ArrayLike, npt.ArrayLike]], next_id: int) -> Noted | None:
        """Decisions of entries that are about to be written, where each is plainly sound; else ``note`` has to judge them.

        Args:
            noted: asker, when it asked, neighbours and weights of each; askers increasing.
            next_id: the id that the next append gets, which none of the askers is below.
        """
        askers, times, columns, shares = zip(*noted, strict=True)
        if np.array((askers, times)).dtype != _ID_TYPE or not all(
            isinstance(each, np.ndarray) and each.ndim == 1 for each in (*columns, *shares)
        ):
            return None
        if len({each.shape for each in (*columns, *shares)}) > 1 or not len(columns[0]) or askers[0] < next_id:
            return None
        # A third of the time of an array of arrays.
        ids, weights = (np.concatenate(rows).reshape(len(noted), -1) for rows in (columns, shares))
        if (
            ids.dtype != _ID_TYPE
            or weights.dtype != _SHARE_TYPE
            or not -TIME_LIMIT < min(times) <= max(times) < TIME_LIMIT
        ):
            return None
        ring = self._ring
        slots, sums, in_order = ring.slots.slots(ids), weights.sum(axis=1), np.sort(ids, axis=1)
        # The asker is there when it is noted, so that so many at most are held beside it.
        oldest = np.array(askers) + 1 - ring.config.capacity
        held = (ring.ids[slots] == ids).all() and (in_order[:, 0] >= np.maximum(oldest, 0)).all()
        seen = (ring.visible_from[slots].max(axis=1) <= np.array(times)).all()
        once = (in_order[:, 1:] != in_order[:, :-1]).all()
        fair = ((sums > 0.0) & (sums < inf)).all() and (weights >= 0.0).all()
        if not (held and seen and once and fair):
            return None
        ids.flags.writeable = weights.flags.writeable = False
        return Noted(askers, times, ids, weights, self._outcomes[slots])

    def note_all(self, noted: Noted) -> None:
        """Remember decisions that are ``notable``, now that their askers are written."""
        for each in zip(*noted, strict=True):
            *told, outcomes = each
            recollection = Recollection(*told)
            self.waiting[recollection.asker_id] = Waiting(recollection, outcomes)
            self._uncounted.append(recollection)
        if len(self._uncounted) >= _COUNTED_LATE:
            self._count_hits()

    def _slots_if_sound(self, ids: npt.ArrayLike, weights: npt.ArrayLike, as_of: int) -> IntArray | None:
        """Slots of neighbours that are all held and were visible, with sound weights: what a search just found.

        A quick way to what ``_checked`` and ``_located`` find out. ``None`` means that those have to look.
        """
        if not isinstance(ids, np.ndarray) or not isinstance(weights, np.ndarray) or ids.ndim != 1:
            return None
        if ids.dtype != _ID_TYPE or weights.dtype != _SHARE_TYPE or ids.shape != weights.shape or not len(ids):
            return None
        # Lists of this length are faster than arrays.
        ring, listed, shares = self._ring, ids.tolist(), weights.tolist()
        slots = ring.slots.slots(ids)
        if not (self._seen_from <= min(listed) and max(listed) < self._seen_to and self._seen_by <= as_of):
            held = ring.ids[slots].tolist() == listed
            if not held or not max(ring.visible_from[slots].tolist()) <= as_of < NEVER:
                return None
        sound = len(set(listed)) == len(listed) and 0.0 < sum(shares) < inf and min(shares) >= 0.0
        return slots if sound else None

    def _located(self, neighbours: IntArray, as_of: int) -> tuple[IntArray, BoolArray]:
        """Slots of neighbours, and which are held."""
        slots, here = self._ring.locate(neighbours)
        unseen = here & (self._ring.visible_from[slots] > as_of)
        if unseen.any():
            hidden = int(neighbours[np.argmax(unseen)])
            raise MemoryBankError(f"entry {hidden} cannot have been a neighbour at {as_of}: it was not visible then")
        return slots, here

    def settled(self, asker_id: int, outcome: float) -> list[int]:
        """Credit the neighbours of an asker whose primary outcome became known.

        Returns:
            Slots of the entries whose credit is another now, where credit decides who leaves; else none.
        """
        waiting = self.waiting.pop(asker_id, None)
        if waiting is None:
            return []
        self._answered.append(_Answered(*waiting, outcome))
        if self._at_once:
            credited: list[int] = self._give_credit().tolist()
            return credited
        if len(self._answered) >= _COUNTED_LATE:
            self._give_credit()
        return []

    def forget(self, asker_id: int) -> None:
        """An entry leaves: without it there is nobody to wait for."""
        self.waiting.pop(asker_id, None)
        if asker_id >= self._seen_from:
            self._seen_from = asker_id + 1

    def count(self) -> None:
        """Count what was put off."""
        if self._uncounted:
            self._count_hits()
        if self._answered:
            self._give_credit()

    def _count_hits(self) -> None:
        noted, self._uncounted = self._uncounted, []
        slots, here = self._ring.locate(np.concatenate([each.ids for each in noted]))
        times = np.repeat([each.as_of for each in noted], [len(each.ids) for each in noted])
        _add_hits(self._ring, slots[here], times[here])
        if not self._at_once:
            self._look_around(noted[-1])

    def _look_around(self, latest: Recollection) -> None:
        """See how far entries are held and visible by now, so that most neighbours need not be looked up one by one."""
        ring, end = self._ring, latest.asker_id + 1
        first = max(self._seen_from, end - ring.config.capacity)
        ids = np.arange(max(first, self._seen_to), end)
        slots, here = ring.locate(ids)
        unseen = ids[~here | (ring.visible_from[slots] > latest.as_of)]
        self._seen_from, self._seen_to = first, int(unseen[0]) if len(unseen) else end
        self._seen_by = max(self._seen_by, latest.as_of)

    def _give_credit(self) -> IntArray:
        """Credit the neighbours of those that are answered; returns the slots of those held."""
        answered, self._answered = self._answered, []
        ring, scale = self._ring, self._ring.config.outcome_scale
        rows = _Rows([each.recollection for each in answered])
        votes = rows.padded([each.outcomes for each in answered], 0.0)
        followed = in_scales(np.array([each.outcome for each in answered]), scale)
        units = leave_one_out(followed, in_scales(votes, scale), rows.weights)
        slots, here = ring.locate(rows.ids.ravel())
        here = here.reshape(units.shape)
        slots, units = slots[here.ravel()], units[here]
        if not len(slots):
            return slots
        if int(np.abs(ring.credits[slots]).max()) + int(np.abs(units).sum()) <= LARGEST_CREDIT:
            np.add.at(ring.credits, slots, units)
        else:
            # One decision after the other, because credit that reaches its largest loses what is beyond.
            ends = np.cumsum(np.count_nonzero(here, axis=1)).tolist()
            for start, end in pairwise([0, *ends]):
                credits = ring.credits[slots[start:end]] + units[start:end]
                ring.credits[slots[start:end]] = np.minimum(np.maximum(credits, -LARGEST_CREDIT), LARGEST_CREDIT)
        return slots

    def resume(self, waiting: Iterable[tuple[Recollection, ScoreArray]], outcomes: Mapping[int, float]) -> None:
        """Go on waiting for another bank's askers, whose hits are counted; those that have an outcome by now are credited.

        Args:
            waiting: recollections, and the primary outcomes of their neighbours.
            outcomes: of entries that are gone, askers among them.
        """
        ring, waiting = self._ring, list(waiting)
        _check_stored([recollection for recollection, _ in waiting])
        for recollection, recalled in waiting:
            asker = recollection.asker_id
            slot = ring.find(asker)
            settlement = None if slot is None else ring.settlement(slot, ring.config.primary)
            outcome = outcomes.get(asker) if slot is None else settlement and settlement[0]
            if outcome is None and slot is None:
                continue
            self.waiting[asker] = Waiting(recollection, recalled)
            if outcome is not None:
                self.settled(asker, outcome)
        self.count()

    def refill(self, recollections: Iterable[Recollection], outcomes: Mapping[int, float]) -> None:
        """Count the recollections of a bank's past in a ring that has been filled; see ``MemoryBank.restore``."""
        remaining = iter(recollections)
        asked = set(self.waiting)
        while batch := list(islice(remaining, _BATCH)):
            _check_stored(batch)
            for recollection in batch:
                if recollection.asker_id in asked:
                    raise MemoryBankError(
                        f"entry {recollection.asker_id} cannot have asked twice; its rows are damaged"
                    )
                asked.add(recollection.asker_id)
            _Past(self._ring, batch, outcomes).count(self.waiting)
        ring = self._ring
        np.clip(ring.credits, -LARGEST_CREDIT, LARGEST_CREDIT, out=ring.credits)


class _Rows:
    """Recollections as rows of arrays, padded to the longest: counted with the bits of one at a time."""

    def __init__(self, recollections: Sequence[Recollection]) -> None:
        self.lengths = np.array([len(each.ids) for each in recollections])
        self.mask: BoolArray = np.arange(self.lengths.max()) < self.lengths[:, None]
        self.ids: IntArray = self.padded([each.ids for each in recollections], -1)
        self.weights: ScoreArray = self.padded([each.weights for each in recollections], 0.0)

    def padded(self, rows: Sequence[npt.NDArray[_Number]], nothing: float) -> npt.NDArray[_Number]:
        """Rows of these lengths as one array, with ``nothing`` at their ends."""
        values = np.concatenate(rows)
        if len(values) == self.mask.size:
            return values.reshape(self.mask.shape)
        array = np.full(self.mask.shape, nothing, dtype=values.dtype)
        array[self.mask] = values
        return array


class _Past:
    """Recollections of the past, whose askers and neighbours may be gone."""

    def __init__(self, ring: Ring, batch: Sequence[Recollection], outcomes: Mapping[int, float]) -> None:
        self.ring, self.batch, self.rows = ring, batch, _Rows(batch)
        ids = self.rows.ids
        slots, here = ring.locate(ids.ravel())
        self.here: BoolArray = here.reshape(ids.shape)
        self.slots: IntArray = np.where(self.here, slots.reshape(ids.shape), 0)
        self.followed = self._outcomes(ids, self.slots, self.here, outcomes)
        askers = np.array([recollection.asker_id for recollection in batch])
        places, self.held = ring.locate(askers)
        self.outcome = self._outcomes(askers, places, self.held, outcomes)

    def _outcomes(self, ids: IntArray, slots: IntArray, here: BoolArray, gone: Mapping[int, float]) -> ScoreArray:
        """Primary outcomes of entries, nan where not known."""
        found = np.where(here, self.ring.outcomes[slots, self.ring.config.primary], np.nan)
        missing = ~here & (ids >= 0)
        found[missing] = [gone.get(entry_id, np.nan) for entry_id in ids[missing].tolist()]
        return found

    def count(self, waiting: dict[int, Waiting]) -> None:
        """Count hits and credits in the ring; those whose outcome is pending go on waiting."""
        ring, scale, rows = self.ring, self.ring.config.outcome_scale, self.rows
        times = np.array([recollection.as_of for recollection in self.batch])
        _add_hits(ring, self.slots[self.here], np.broadcast_to(times[:, None], self.here.shape)[self.here])
        credited = ~np.isnan(self.outcome) & self.here.any(axis=1)
        pending = np.isnan(self.outcome) & self.held
        unknown = rows.mask & np.isnan(self.followed) & (credited | pending)[:, None]
        if unknown.any():
            raise MemoryBankError(
                f"entry {rows.ids[unknown][0]} was a neighbour and its outcome is not known; give it to restore the credits"
            )
        votes = np.where(rows.mask, in_scales(self.followed, scale), 0.0)[credited]
        units = leave_one_out(in_scales(self.outcome[credited], scale), votes, rows.weights[credited])
        np.add.at(ring.credits, self.slots[credited][self.here[credited]], units[self.here[credited]])
        for row in np.flatnonzero(pending).tolist():
            recollection = self.batch[row]
            known = self.followed[row, : len(recollection.ids)].copy()
            waiting[recollection.asker_id] = Waiting(recollection, known)


def _add_hits(ring: Ring, slots: IntArray, times: IntArray) -> None:
    """Count hits, ``[n]``, of entries that may be named more than once."""
    # An array of the same type, because with a plain 1 every addition would be converted on its own.
    np.add.at(ring.hits, slots, np.ones(len(slots), dtype=ring.hits.dtype))
    np.maximum.at(ring.last_hits, slots, times)


def _checked(ids: npt.ArrayLike, weights: npt.ArrayLike, asker_id: int, next_id: int) -> tuple[IntArray, ScoreArray]:
    """Copies of what a caller says."""
    given, shares = np.asarray(ids), np.array(weights, dtype=np.float64)
    if given.ndim != 1 or shares.shape != given.shape:
        raise MemoryBankError(
            f"neighbours of entry {asker_id} have ids of shape {given.shape} and weights of shape {shares.shape}; "
            "give one weight per id"
        )
    if len(given) and given.dtype.kind not in "iu":
        raise MemoryBankError(f"neighbours of entry {asker_id} have ids of type {given.dtype}; ids are whole numbers")
    neighbours = given.astype(np.int64)
    if not len(neighbours):
        return neighbours, shares
    strange = (neighbours < 0) | (neighbours >= next_id)
    if strange.any():
        first = int(neighbours[np.argmax(strange)])
        raise MemoryBankError(f"entry {first} cannot have been a neighbour: this memory has given no such id")
    if len(set(neighbours.tolist())) != len(neighbours):
        raise MemoryBankError(f"neighbours of entry {asker_id} name an entry twice; give each id once")
    if not (np.isfinite(shares) & (shares >= 0.0)).all() or not (shares > 0.0).any():
        raise MemoryBankError(
            f"weights of the neighbours of entry {asker_id} are not shares; give finite numbers from 0, not all of them 0"
        )
    return neighbours, shares


def _check_stored(batch: Sequence[Recollection]) -> None:
    """Refuse what no memory would have stored."""
    for each in batch:
        if each.ids.ndim != 1 or not len(each.ids) or each.ids.shape != each.weights.shape:
            raise _damaged(each)
    if not batch:
        return
    ids, weights = np.concatenate([each.ids for each in batch]), np.concatenate([each.weights for each in batch])
    first = np.cumsum([0, *(len(each.ids) for each in batch[:-1])])
    share = np.isfinite(weights) & (weights >= 0.0)
    sound = np.logical_and.reduceat((ids >= 0) & share, first) & np.logical_or.reduceat(weights > 0.0, first)
    if not sound.all():
        raise _damaged(batch[int(np.argmin(sound))])


def _damaged(recollection: Recollection) -> MemoryBankError:
    return MemoryBankError(f"what entry {recollection.asker_id} remembered is damaged: no memory would have stored it")


def in_order(waiting: Mapping[int, Waiting]) -> Iterator[Waiting]:
    """By asker."""
    for asker_id in sorted(waiting):
        yield waiting[asker_id]
