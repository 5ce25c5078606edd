"""Writes that wait until somebody looks: many at once cost a fraction of as many one at a time.

A replay writes at every bar and looks, thanks to what was found beforehand, once in many bars. What waits is first judged as
a whole. Where each write is plainly sound, and none concerns another but in the way that bars do, all are made together, which
leaves the very bank that one after the other would. Else they are made one after the other.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from memory_store.holdings import Holdings
from memory_store.recollections import Noted
from memory_store.records import (
    LARGEST_NOVELTY,
    REGIME_LIMIT,
    TIME_LIMIT,
    BankConfig,
    Eviction,
    IndexKind,
    IntArray,
    KeyArray,
    MemoryBankError,
    ScoreArray,
)
from memory_store.ring import NEVER
from memory_store.vectors import prepare

_MOST: Final = 512
"""Writes that wait at most: more would not fit a processor's cache when they are made."""


class Writer(Protocol):
    """Writes one after the other, each checked; see ``MemoryBank`` for arguments and errors."""

    def append_now(self, key: npt.ArrayLike, symbol: str, bar_time: int, regime: int, novelty: float) -> int:
        """Remember a moment."""

    def settle_now(self, entry_id: int, horizon: int, outcome: float, settled_time: int) -> None:
        """Record what followed an entry."""

    def note_now(self, asker_id: int, as_of: int, ids: npt.ArrayLike, weights: npt.ArrayLike) -> None:
        """Remember which neighbours spoke for a decision."""


def can_wait(config: BankConfig) -> bool:
    """Whether writes of such a bank can be put off: where the oldest make room, nothing that is written decides who leaves."""
    return config.eviction is Eviction.FIFO and config.index is IndexKind.EXACT and not config.sealed


class LateWrites:
    """Writes in the order in which they were asked for.

    Args:
        held: what the bank holds, of a config that ``can_wait``.
        writer: makes them where they cannot be made together, and knows what is wrong with one.
    """

    __slots__ = (
        "_held",
        "_in_turn",
        "_order",
        "_settled_until",
        "_writer",
        "next_id",
    )

    def __init__(self, held: Holdings, writer: Writer) -> None:
        self._held = held
        self._writer = writer
        self._order: list[tuple[str, Any]] = []
        """Which write, and its arguments."""
        self._forget()

    def _forget(self) -> None:
        self._order = []
        self._in_turn = True
        """Whether outcomes come in the order of time, of entries that are there, and each note right after its asker."""
        self._settled_until = self._held.settled_until
        self.next_id = self._held.next_id
        """The id that the next append gets."""

    @property
    def wait(self) -> bool:
        """Whether there are any that wait."""
        return bool(self._order)

    def append(self, key: npt.ArrayLike, symbol: str, bar_time: int, regime: int, novelty: float) -> int:
        """See ``MemoryBank.append``; the key must not change any more."""
        if len(self._order) >= _MOST:
            self.write()
        entry_id = self.next_id
        self._order.append(("append", (key, symbol, bar_time, regime, novelty)))
        self.next_id = entry_id + 1
        return entry_id

    def settle(self, entry_id: int, horizon: int, outcome: float, settled_time: int) -> None:
        """See ``MemoryBank.settle``."""
        self._order.append(("settle", (entry_id, horizon, outcome, settled_time)))
        if entry_id >= self.next_id or settled_time < self._settled_until:
            self._in_turn = False
            self.write()
        else:
            self._settled_until = settled_time

    def note(self, asker_id: int, as_of: int, ids: npt.ArrayLike, weights: npt.ArrayLike) -> None:
        """See ``MemoryBank.note``; ids and weights must not change any more."""
        if asker_id != self.next_id - 1 or not self._order or self._order[-1][0] != "append":
            self._in_turn = False
        self._order.append(("note", (asker_id, as_of, ids, weights)))

    def write(self) -> None:
        """Make all that wait.

        Raises:
            MemoryBankError: one of them cannot be made. Those before it are, those after it are not.
        """
        order, self._order = self._order, []
        together = _Together.of(self._held, order) if self._in_turn else None
        try:
            if together is not None:
                together.write(self._held)
                return
            for kind, arguments in order:
                if kind == "append":
                    self._writer.append_now(*arguments)
                elif kind == "settle":
                    self._writer.settle_now(*arguments)
                else:
                    self._writer.note_now(*arguments)
        finally:
            self._forget()


class _Settled(NamedTuple):
    """Outcomes, ``[n]`` each, in the order of time."""

    ids: IntArray
    horizons: IntArray
    outcomes: ScoreArray
    times: IntArray


class _Together(NamedTuple):
    """Writes that were judged as a whole, as columns."""

    keys: KeyArray
    """``[m, d]`` as they are stored."""
    longest: float
    symbols: tuple[str, ...]
    times: IntArray
    regimes: IntArray
    novelties: KeyArray
    settled: _Settled | None
    noted: Noted | None

    @classmethod
    def of(cls, held: Holdings, order: list[tuple[str, Any]]) -> _Together | None:
        """``None`` where a write is not plainly sound, which the plain way has to judge."""
        appended, settled, noted = (
            [told for kind, told in order if kind == each] for each in ("append", "settle", "note")
        )
        if not appended or 2 * len(appended) > held.config.capacity:
            return None
        vectors, symbols, *rest = zip(*appended, strict=True)
        if not all(isinstance(each, np.ndarray) and each.shape == (held.config.dimension,) for each in vectors):
            return None
        try:
            keys, lengths = prepare(np.concatenate(vectors).reshape(len(vectors), -1), held.config, "key")
            times, regimes, novelties = (np.array(column) for column in rest)
        except (MemoryBankError, ValueError, TypeError):
            return None
        whole = times.dtype == np.int64 and regimes.dtype == np.int64 and novelties.dtype == np.float64
        if not whole or not _are_new(held, symbols, rest[0]):
            return None
        if not (np.abs(novelties) <= LARGEST_NOVELTY).all() or not _fit(regimes):
            return None
        outcomes = _settled_of(held, settled, times) if settled else None
        spoke = held.recollections.notable(noted, held.next_id) if noted else None
        if (settled and outcomes is None) or (noted and spoke is None):
            return None
        longest = float(lengths.max())
        return cls(keys, longest, symbols, times, regimes, novelties.astype(np.float32), outcomes, spoke)

    def write(self, held: Holdings) -> None:
        """Make them."""
        first, count, ring = held.next_id, len(self.keys), held.ring
        ids = np.arange(first, first + count)
        slots = ring.slots.slots(ids)
        leaving = ids - held.config.capacity
        leaving = leaving[(ring.ids[slots] == leaving) & (leaving >= 0)].tolist()
        left = ring.symbols[ring.slots.slots(np.array(leaving, dtype=np.int64))].tolist()
        for gone in leaving:
            held.recollections.forget(gone)
        numbers = [
            held.directory.add(*moment) for moment in zip(self.symbols, self.times.tolist(), ids.tolist(), strict=True)
        ]
        written = ring.write_all(ids, self.keys, numbers, self.times, self.regimes, self.novelties)
        for number in left:
            held.directory.removed(number)
        held.key_norm = max(held.key_norm, self.longest)
        held.size += count - len(leaving)
        held.next_id = first + count
        for slot in written:
            held.finder.written(slot, held.next_id)
        if self.noted is not None:
            held.recollections.note_all(self.noted)
        if self.settled is not None:
            self._settle(held, self.settled)

    def _settle(self, held: Holdings, settled: _Settled) -> None:
        ids, horizons, outcomes, times = settled
        slots = held.ring.slots.slots(ids)
        held.ring.settle_all(slots, horizons, outcomes, times)
        primary = horizons == held.config.primary
        for entry_id, outcome in zip(ids[primary].tolist(), outcomes[primary].tolist(), strict=True):
            held.recollections.settled(entry_id, outcome)
        held.settled_until = int(times[-1])


def _are_new(held: Holdings, symbols: tuple[str, ...], times: tuple[int, ...]) -> bool:
    """Whether bars may become entries one after the other."""
    latest = dict[str, int]()
    known = held.directory.last_times
    for symbol, time in zip(symbols, times, strict=True):
        before = latest.get(symbol)
        if before is None:
            before = known.get(symbol, -TIME_LIMIT)
        if not symbol or not before < time < TIME_LIMIT:
            return False
        latest[symbol] = time
    return True


def _fit(regimes: IntArray) -> bool:
    return bool(regimes.min() >= -REGIME_LIMIT and regimes.max() < REGIME_LIMIT)


def _settled_of(held: Holdings, settled: list[tuple[int, int, float, int]], times: IntArray) -> _Settled | None:
    """Outcomes of entries that are held before and after, none of which is known.

    Args:
        held: what the bank holds.
        settled: outcomes in the order of time, each of an entry that was there.
        times: ``[m]`` bar times of the entries to be written.
    """
    ids, horizons, outcomes, known = (np.array(column) for column in zip(*settled, strict=True))
    if not ids.dtype == horizons.dtype == known.dtype == np.int64 or outcomes.dtype != np.float64:
        return None
    ring, first = held.ring, held.next_id
    slots = ring.slots.slots(ids)
    is_new = ids >= first
    held_yet = is_new | (ring.ids[slots] == ids)
    in_reach = ids.min() >= max(0, first + len(times) - held.config.capacity)
    exist = horizons.min() >= 0 and horizons.max() < len(held.config.horizons)
    if not in_reach or not exist or not held_yet.all():
        return None
    pending = is_new | (ring.usable_from[slots, horizons] == NEVER)
    opened = np.where(is_new, times[np.where(is_new, ids - first, 0)], ring.bar_times[slots])
    later = (opened < known) & (known < TIME_LIMIT)
    each_once = len(set(zip(ids.tolist(), horizons.tolist(), strict=True))) == len(ids)
    if not each_once or not (pending & later & np.isfinite(outcomes)).all():
        return None
    return _Settled(ids, horizons, outcomes + 0.0, known)  # a database does not keep the sign of a zero
