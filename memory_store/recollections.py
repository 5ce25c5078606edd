"""What decisions remembered: counted as hits at once, and as credit when their own outcome is known."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

import numpy as np
import numpy.typing as npt

from memory_store.credit import LARGEST_CREDIT, in_scales, leave_one_out
from memory_store.records import TIME_LIMIT, BoolArray, IntArray, MemoryBankError, Recollection, ScoreArray
from memory_store.ring import NEVER, Ring

_BATCH: Final = 2048


@dataclass(frozen=True, slots=True, eq=False)
class Waiting:
    """A recollection whose asker's outcome is pending."""

    recollection: Recollection
    outcomes: ScoreArray
    """``[n]`` primary outcomes of its neighbours: they may be gone when it is needed."""


class Recollections:
    """The recollections of a bank whose outcome is pending, and the hits and credits of its entries."""

    __slots__ = ("_ring", "waiting")

    def __init__(self, ring: Ring) -> None:
        self._ring = ring
        self.waiting: dict[int, Waiting] = {}
        """By asker, in the order of noting."""

    def note(
        self, asker_id: int, as_of: int, ids: npt.ArrayLike, weights: npt.ArrayLike, *, next_id: int
    ) -> Recollection | None:
        """Count the hits of a decision; see ``MemoryBank.note``. ``None`` where nothing is left to remember."""
        neighbours, shares = _checked(ids, weights, asker_id, next_id)
        if not -TIME_LIMIT < as_of < TIME_LIMIT:
            raise MemoryBankError(f"entry {asker_id} cannot have asked at {as_of}, which is no time in milliseconds")
        if not 0 <= asker_id < next_id:
            raise MemoryBankError(f"entry {asker_id} cannot have asked: this memory has given no such id")
        ring = self._ring
        asker = ring.find(asker_id)
        if asker_id in self.waiting:
            raise MemoryBankError(f"entry {asker_id} has its neighbours noted already; a decision remembers once")
        if asker is None:
            return None
        if ring.visible_from[asker] != NEVER:
            raise MemoryBankError(f"outcome of entry {asker_id} is known already; note its neighbours before that")
        slots, here = ring.locate(neighbours)
        unseen = here & (ring.visible_from[slots] > as_of)
        if unseen.any():
            hidden = int(neighbours[np.argmax(unseen)])
            raise MemoryBankError(f"entry {hidden} cannot have been a neighbour at {as_of}: it was not visible then")
        if not here.all():
            slots, neighbours, shares = slots[here], neighbours[here], shares[here]
        if not (shares > 0.0).any():
            return None
        neighbours.flags.writeable = shares.flags.writeable = False
        ring.hits[slots] += 1
        ring.last_hits[slots] = np.maximum(ring.last_hits[slots], as_of)
        recollection = Recollection(asker_id, as_of, neighbours, shares)
        self.waiting[asker_id] = Waiting(recollection, ring.outcomes[slots, ring.config.primary])
        return recollection

    def settled(self, asker_id: int, outcome: float) -> list[int]:
        """Credit the neighbours of an asker whose primary outcome became known; returns the slots of those held."""
        waiting = self.waiting.pop(asker_id, None)
        if waiting is None:
            return []
        ring, scale = self._ring, self._ring.config.outcome_scale
        slots, here = ring.locate(waiting.recollection.ids)
        followed = in_scales(np.array([outcome]), scale)
        units = leave_one_out(followed, in_scales(waiting.outcomes, scale)[None], waiting.recollection.weights[None])[0]
        slots = slots[here]
        credits = ring.credits[slots] + units[here]
        ring.credits[slots] = np.minimum(np.maximum(credits, -LARGEST_CREDIT), LARGEST_CREDIT)
        kept: list[int] = slots.tolist()
        return kept

    def forget(self, asker_id: int) -> None:
        """An entry leaves: without it there is nobody to wait for."""
        self.waiting.pop(asker_id, None)

    def resume(self, waiting: Iterable[tuple[Recollection, ScoreArray]], outcomes: Mapping[int, float]) -> None:
        """Go on waiting for another bank's askers, whose hits are counted; those that have an outcome by now are credited.

        Args:
            waiting: recollections, and the primary outcomes of their neighbours.
            outcomes: of entries that are gone, askers among them.
        """
        ring = self._ring
        for recollection, recalled in waiting:
            _check_stored(recollection)
            asker = recollection.asker_id
            slot = ring.find(asker)
            settlement = None if slot is None else ring.settlement(slot, ring.config.primary)
            outcome = outcomes.get(asker) if slot is None else settlement and settlement[0]
            if outcome is None and slot is None:
                continue
            self.waiting[asker] = Waiting(recollection, recalled)
            if outcome is not None:
                self.settled(asker, outcome)

    def refill(self, recollections: Iterable[Recollection], outcomes: Mapping[int, float]) -> None:
        """Count the recollections of a bank's past in a ring that has been filled; see ``MemoryBank.restore``."""
        remaining = iter(recollections)
        asked = set(self.waiting)
        while batch := list(islice(remaining, _BATCH)):
            for recollection in batch:
                _check_stored(recollection)
                if recollection.asker_id in asked:
                    raise MemoryBankError(
                        f"entry {recollection.asker_id} cannot have asked twice; its rows are damaged"
                    )
                asked.add(recollection.asker_id)
            _Batch(self._ring, batch, outcomes).count(self.waiting)
        ring = self._ring
        np.clip(ring.credits, -LARGEST_CREDIT, LARGEST_CREDIT, out=ring.credits)


class _Batch:
    """Recollections of the past, as rows of arrays padded to the longest: counted with the bits of one at a time."""

    def __init__(self, ring: Ring, batch: Sequence[Recollection], outcomes: Mapping[int, float]) -> None:
        self.ring, self.batch = ring, batch
        lengths = np.array([len(recollection.ids) for recollection in batch])
        self.mask = np.arange(lengths.max()) < lengths[:, None]
        self.ids = np.full(self.mask.shape, -1, dtype=np.int64)
        self.ids[self.mask] = np.concatenate([recollection.ids for recollection in batch])
        self.weights = np.zeros(self.mask.shape)
        self.weights[self.mask] = np.concatenate([recollection.weights for recollection in batch])
        slots, here = ring.locate(self.ids.ravel())
        self.here: BoolArray = here.reshape(self.ids.shape)
        self.slots: IntArray = np.where(self.here, slots.reshape(self.ids.shape), 0)
        self.followed = self._outcomes(self.ids, self.slots, self.here, outcomes)
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
        ring, scale = self.ring, self.ring.config.outcome_scale
        times = np.array([recollection.as_of for recollection in self.batch])
        np.add.at(ring.hits, self.slots[self.here], 1)
        np.maximum.at(
            ring.last_hits, self.slots[self.here], np.broadcast_to(times[:, None], self.here.shape)[self.here]
        )
        credited = ~np.isnan(self.outcome) & self.here.any(axis=1)
        pending = np.isnan(self.outcome) & self.held
        unknown = self.mask & np.isnan(self.followed) & (credited | pending)[:, None]
        if unknown.any():
            raise MemoryBankError(
                f"entry {self.ids[unknown][0]} was a neighbour and its outcome is not known; give it to restore the credits"
            )
        votes = np.where(self.mask, in_scales(self.followed, scale), 0.0)[credited]
        units = leave_one_out(in_scales(self.outcome[credited], scale), votes, self.weights[credited])
        np.add.at(ring.credits, self.slots[credited][self.here[credited]], units[self.here[credited]])
        for row in np.flatnonzero(pending).tolist():
            recollection = self.batch[row]
            known = self.followed[row, : len(recollection.ids)].copy()
            waiting[recollection.asker_id] = Waiting(recollection, known)


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


def _check_stored(recollection: Recollection) -> None:
    ids, weights = recollection.ids, recollection.weights
    sound = ids.ndim == 1 and len(ids) > 0 and ids.shape == weights.shape and (ids >= 0).all()
    if not sound or not (np.isfinite(weights) & (weights >= 0.0)).all() or not (weights > 0.0).any():
        raise MemoryBankError(
            f"what entry {recollection.asker_id} remembered is damaged: no memory would have stored it"
        )


def in_order(waiting: Mapping[int, Waiting]) -> Iterator[Waiting]:
    """By asker."""
    for asker_id in sorted(waiting):
        yield waiting[asker_id]
