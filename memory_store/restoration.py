"""Filling a bank from what was kept of another: entries one by one, or all at once as columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from memory_store.credit import LARGEST_CREDIT, credit_in_outcomes, credit_in_units
from memory_store.directory import Directory
from memory_store.index import LARGEST_NORM, rescore
from memory_store.recollections import Recollections, in_order
from memory_store.records import (
    LARGEST_NOVELTY,
    REGIME_LIMIT,
    TIME_LIMIT,
    BankConfig,
    Entry,
    Eviction,
    IntArray,
    KeyArray,
    MemoryBankError,
    Metric,
    Recollection,
    ScoreArray,
)
from memory_store.ring import NEVER, NOT_YET, Ring

_BATCH: Final = 4096
_UNIT_TOLERANCE: Final = 1e-5


@dataclass(frozen=True, slots=True, eq=False)
class BankState:
    """All that a bank holds, as columns in the order of ids; with the bank's config and encoder version, the whole bank."""

    next_id: int
    last_times: Mapping[str, int]
    """Latest bar time by symbol, evicted entries included, milliseconds."""
    names: tuple[str, ...]
    """Symbols, each once."""
    ids: IntArray
    """``[n]`` increasing."""
    symbols: npt.NDArray[np.int32]
    """``[n]`` index into ``names``."""
    bar_times: IntArray
    """``[n]`` milliseconds."""
    regimes: npt.NDArray[np.int32]
    keys: KeyArray
    """``[n, dimension]``."""
    outcomes: ScoreArray
    """``[n, horizons]``, nan while pending."""
    settled_times: IntArray
    """``[n, horizons]`` milliseconds, ``NEVER`` while pending."""
    novelties: KeyArray
    hits: npt.NDArray[np.int32]
    last_hits: IntArray
    """``[n]`` milliseconds, ``NOT_YET`` where nobody used it."""
    credits: IntArray
    """``[n]`` in the units of ``memory_store.credit``."""
    recollections: tuple[Recollection, ...] = ()
    """Those whose asker's primary outcome is pending, by asker."""
    recalled: tuple[ScoreArray, ...] = ()
    """Per recollection the primary outcomes of its neighbours."""


class Refilled(NamedTuple):
    """The parts of a bank that was filled."""

    ring: Ring
    directory: Directory
    recollections: Recollections
    longest: float
    """Length of the longest key."""


def state_of(ring: Ring, directory: Directory, recollections: Recollections, *, next_id: int) -> BankState:
    """A copy of a bank."""
    slots = ring.slots_in_order()
    usable_from = ring.usable_from[slots]
    waiting = list(in_order(recollections.waiting))
    return BankState(
        next_id=next_id,
        last_times=dict(directory.last_times),
        names=tuple(directory.names),
        ids=ring.ids[slots],
        symbols=ring.symbols[slots],
        bar_times=ring.bar_times[slots],
        regimes=ring.regimes[slots],
        keys=ring.keys[slots],
        outcomes=ring.outcomes[slots],
        settled_times=np.where(usable_from == NEVER, NEVER, usable_from - ring.config.embargo_ms),
        novelties=ring.novelties[slots],
        hits=ring.hits[slots],
        last_hits=ring.last_hits[slots],
        credits=ring.credits[slots],
        recollections=tuple(each.recollection for each in waiting),
        recalled=tuple(each.outcomes for each in waiting),
    )


def refill(
    config: BankConfig,
    state: BankState,
    recollections: Iterable[Recollection] = (),
    outcomes: Mapping[int, float] | None = None,
) -> Refilled:
    """The parts of a bank with this content; see ``MemoryBank.restore_state``.

    Raises:
        MemoryBankError: the content does not fit the config, or is damaged.
    """
    ring = Ring(config)
    directory = Directory(ring)
    ids, gone = state.ids, outcomes or {}
    lowest = max(0, state.next_id - config.capacity) if config.eviction is Eviction.FIFO else 0
    if len(ids) and not (lowest <= ids[0] and ids[-1] < state.next_id and (np.diff(ids) > 0).all()):
        raise MemoryBankError(f"ids are damaged: those from {lowest} to {state.next_id - 1} are due, in order")
    if len(ids) > config.capacity:
        raise MemoryBankError(f"{len(ids)} entries do not fit a memory of {config.capacity}")
    check_shapes(config, state)
    numbers = directory.fill(state.names, state.symbols.astype(np.int64), state.bar_times, ids)
    longest = _write(ring, state, numbers)
    directory.advance(state.last_times)
    remembered = Recollections(ring)
    remembered.resume(zip(state.recollections, state.recalled, strict=True), gone)
    remembered.refill(recollections, gone)
    return Refilled(ring, directory, remembered, longest)


def refill_from_entries(
    config: BankConfig,
    encoder_version: str,
    entries: Iterable[Entry],
    *,
    next_id: int,
    last_times: Mapping[str, int],
    recollections: Iterable[Recollection],
    outcomes: Mapping[int, float],
) -> Refilled:
    """The parts of a bank with these entries, in the order of ids; see ``MemoryBank.restore``.

    Raises:
        MemoryBankError: entries are out of order, do not fit the config, or are of another encoder.
    """
    ring = Ring(config)
    directory = Directory(ring)
    longest, held = 0.0, 0
    lowest = max(0, next_id - config.capacity) if config.eviction is Eviction.FIFO else 0
    remaining = iter(entries)
    while batch := list(islice(remaining, _BATCH)):
        numbers = []
        for entry in batch:
            if not lowest <= entry.entry_id < next_id:
                raise MemoryBankError(
                    f"entry {entry.entry_id} cannot be restored: ids from {lowest} to {next_id - 1} are due, in order"
                )
            lowest = entry.entry_id + 1
            _check(entry, config, encoder_version)
            directory.admit(entry.symbol, entry.bar_time)
            numbers.append(directory.add(entry.symbol, entry.bar_time, entry.entry_id))
        held += len(batch)
        if held > config.capacity:
            raise MemoryBankError(f"entry {batch[-1].entry_id} cannot be restored: the memory holds {config.capacity}")
        longest = max(longest, _write(ring, _columns(config, batch), np.array(numbers, dtype=np.int64)))
    directory.advance(last_times)
    remembered = Recollections(ring)
    remembered.refill(recollections, outcomes)
    return Refilled(ring, directory, remembered, longest)


def state_of_entries(
    config: BankConfig,
    encoder_version: str,
    entries: Sequence[Entry],
    *,
    next_id: int,
    last_times: Mapping[str, int],
) -> BankState:
    """Entries, in the order of ids, as the columns of a bank that holds them.

    Raises:
        MemoryBankError: an entry does not fit the config, or is of another encoder.
    """
    for entry in entries:
        _check(entry, config, encoder_version)
    latest = {entry.symbol: entry.bar_time for entry in entries}
    names = tuple(latest)
    return replace(
        _columns(config, entries),
        next_id=next_id,
        last_times={**latest, **last_times},
        names=names,
        symbols=np.array([names.index(entry.symbol) for entry in entries], dtype=np.int32),
    )


def _columns(config: BankConfig, batch: Sequence[Entry]) -> BankState:
    """Entries as columns."""
    pending = [[NEVER if time is None else time for time in entry.settled_times] for entry in batch]
    known = [[np.nan if outcome is None else outcome for outcome in entry.outcomes] for entry in batch]
    return BankState(
        next_id=0,
        last_times={},
        names=(),
        ids=np.array([entry.entry_id for entry in batch], dtype=np.int64),
        symbols=np.zeros(0, dtype=np.int32),
        bar_times=np.array([entry.bar_time for entry in batch], dtype=np.int64),
        regimes=np.array([entry.regime for entry in batch], dtype=np.int32),
        keys=np.array([entry.key for entry in batch], dtype=np.float32).reshape(len(batch), config.dimension),
        outcomes=np.array(known, dtype=np.float64).reshape(len(batch), len(config.horizons)),
        settled_times=np.array(pending, dtype=np.int64).reshape(len(batch), len(config.horizons)),
        novelties=np.array([entry.novelty for entry in batch], dtype=np.float32),
        hits=np.array([entry.hits for entry in batch], dtype=np.int32),
        last_hits=np.array([NOT_YET if entry.last_hit is None else entry.last_hit for entry in batch], dtype=np.int64),
        credits=np.array([credit_in_units(entry.credit, config.outcome_scale) for entry in batch], dtype=np.int64),
    )


def _check(entry: Entry, config: BankConfig, encoder_version: str) -> None:
    """Refuse an entry of another shape or encoder."""
    if entry.encoder_version != encoder_version:
        raise MemoryBankError(
            f"entry {entry.entry_id} was made by encoder {entry.encoder_version!r}, not by {encoder_version!r}; "
            "re-encode it from its candles"
        )
    horizons = len(config.horizons)
    if len(entry.outcomes) != horizons or len(entry.settled_times) != horizons:
        raise MemoryBankError(f"entry {entry.entry_id} is damaged: it does not have {horizons} horizons")
    if entry.key.shape != (config.dimension,):
        raise MemoryBankError(f"entry {entry.entry_id} is damaged: its key does not have {config.dimension} numbers")
    if not -REGIME_LIMIT <= entry.regime < REGIME_LIMIT:
        raise MemoryBankError(f"entry {entry.entry_id} is damaged: its regime {entry.regime} does not fit 32 bits")
    if not abs(entry.novelty) <= LARGEST_NOVELTY or not 0 <= entry.hits < REGIME_LIMIT:
        raise MemoryBankError(f"entry {entry.entry_id} is damaged: no memory has novelty or hits like its")
    if not abs(entry.credit) <= credit_in_outcomes(LARGEST_CREDIT, config.outcome_scale):
        raise MemoryBankError(f"entry {entry.entry_id} is damaged: no memory gives a credit of {entry.credit}")


def check_shapes(config: BankConfig, state: BankState) -> None:
    """Refuse columns of another shape."""
    count, horizons = len(state.ids), len(config.horizons)
    shapes = {
        "symbols": (count,),
        "bar_times": (count,),
        "regimes": (count,),
        "keys": (count, config.dimension),
        "outcomes": (count, horizons),
        "settled_times": (count, horizons),
        "novelties": (count,),
        "hits": (count,),
        "last_hits": (count,),
        "credits": (count,),
    }
    for name, shape in shapes.items():
        given = getattr(state, name).shape
        if given != shape:
            raise MemoryBankError(f"{name} of the memory's state have shape {given}, not {shape}")


def _write(ring: Ring, state: BankState, numbers: IntArray) -> float:
    """Write entries and the numbers of their symbols column by column; returns the length of their longest key."""
    config, known = ring.config, state.settled_times
    longest = check_rows(config, state)
    slots = ring.slots.take_all(state.ids)
    usable_from = usable_times(config, known)
    ring.ids[slots] = state.ids
    ring.keys[slots] = state.keys
    ring.symbols[slots] = numbers
    ring.bar_times[slots] = state.bar_times
    ring.regimes[slots] = state.regimes
    ring.novelties[slots] = state.novelties
    ring.hits[slots] = state.hits
    ring.last_hits[slots] = state.last_hits
    ring.credits[slots] = state.credits
    ring.outcomes[slots] = state.outcomes
    ring.usable_from[slots] = usable_from
    ring.visible_from[slots] = usable_from[:, config.primary]
    return longest


def usable_times(config: BankConfig, known: IntArray) -> IntArray:
    """From when outcomes may be used that became known at these times, ``NEVER`` while pending."""
    pending = known == NEVER
    usable: IntArray = np.where(pending, NEVER, known + config.embargo_ms * ~pending)
    return usable


def check_rows(config: BankConfig, state: BankState) -> float:
    """Refuse entries that no bank can have stored; returns the length of the longest key.

    Raises:
        MemoryBankError: one is damaged.
    """
    if not len(state.ids):
        return 0.0
    lengths = np.sqrt(rescore(state.keys, state.keys))
    known = state.settled_times
    fitting = np.abs(lengths - 1.0) <= _UNIT_TOLERANCE if config.metric is Metric.COSINE else lengths <= LARGEST_NORM
    settled = np.isfinite(state.outcomes) & (known > state.bar_times[:, None]) & (known < TIME_LIMIT)
    told = np.where(known == NEVER, np.isnan(state.outcomes), settled).all(axis=1)
    counted = np.isfinite(state.novelties) & (state.hits >= 0) & (np.abs(state.credits) <= LARGEST_CREDIT)
    sound = fitting & told & counted
    if not sound.all():
        damaged = state.ids[np.argmin(sound)]
        raise MemoryBankError(
            f"entry {damaged} is damaged: no memory would have stored such a key or outcome, novelty or credit"
        )
    return float(lengths.max())
