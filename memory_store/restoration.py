"""Filling a ring from stored entries, keeping every id and every bit of a key."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Final

import numpy as np

from memory_store.directory import Directory
from memory_store.index import LARGEST_NORM, rescore
from memory_store.records import REGIME_LIMIT, TIME_LIMIT, BankConfig, Entry, MemoryBankError, Metric
from memory_store.ring import NEVER, Ring

_BATCH: Final = 4096
_UNIT_TOLERANCE: Final = 1e-5


def refill(
    config: BankConfig, encoder_version: str, entries: Iterable[Entry], *, next_id: int
) -> tuple[Ring, Directory, float]:
    """A ring with these entries, their names, and the length of the longest key.

    Raises:
        MemoryBankError: entries are out of order, do not fit the config, or are of another encoder.
    """
    ring, directory = Ring(config), Directory()
    longest = 0.0
    lowest = max(0, next_id - config.capacity)
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
        longest = max(longest, _write(ring, batch, numbers))
    return ring, directory, longest


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


def _write(ring: Ring, batch: list[Entry], numbers: list[int]) -> float:
    """Write entries and the numbers of their symbols column by column; returns the length of their longest key."""
    config = ring.config
    ids = np.array([entry.entry_id for entry in batch], dtype=np.int64)
    keys = np.stack([entry.key for entry in batch]).astype(np.float32)
    bar_times = np.array([entry.bar_time for entry in batch], dtype=np.int64)
    outcomes = np.array([[np.nan if x is None else x for x in entry.outcomes] for entry in batch], dtype=np.float64)
    known = np.array([[NEVER if x is None else x for x in entry.settled_times] for entry in batch], dtype=np.int64)
    pending = known == NEVER
    lengths = np.sqrt(rescore(keys, keys))
    fitting = np.abs(lengths - 1.0) <= _UNIT_TOLERANCE if config.metric is Metric.COSINE else lengths <= LARGEST_NORM
    settled = np.isfinite(outcomes) & (known > bar_times[:, None]) & (known < TIME_LIMIT)
    sound = fitting & np.where(pending, np.isnan(outcomes), settled).all(axis=1)
    if not sound.all():
        damaged = ids[np.argmin(sound)]
        raise MemoryBankError(f"entry {damaged} is damaged: no memory would have stored such a key or outcome")
    slots = ids % config.capacity
    usable_from = np.where(pending, NEVER, known + config.embargo_ms * ~pending)
    ring.ids[slots] = ids
    ring.keys[slots] = keys
    ring.symbols[slots] = numbers
    ring.bar_times[slots] = bar_times
    ring.regimes[slots] = [entry.regime for entry in batch]
    ring.outcomes[slots] = outcomes
    ring.usable_from[slots] = usable_from
    ring.visible_from[slots] = usable_from[:, config.primary]
    return float(lengths.max())
