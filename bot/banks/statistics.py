"""What a memory holds and how good it is at telling moments apart, for people."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from bot.banks.recall import Asked, measured_recall, recall_document
from bot.banks.sources import OpenMemory, Source
from bot.journal.memories import StoredMemory
from memory_store import Entry, MemoryBank
from memory_store.novelty import NoveltyScale, evenly_spaced
from memory_store.recall_monitor import RecallReading
from memory_store.records import KeyArray
from strategies.readout import read_out
from strategies.regime_vote import regime_name

_KEYS: Final = 4096
"""Keys whose pairs are compared."""
_ASKED: Final = 128
"""Moments that are asked about again."""
_TOP: Final = 5


@dataclass(frozen=True, slots=True, eq=False)
class Contents:
    """The entries of a memory, counted."""

    held: int
    pending: int
    """Entries whose outcome over the primary horizon is not known."""
    visible: int
    """Entries that a question at the newest close could choose from."""
    first_close: int | None
    last_close: int | None
    symbols: dict[str, int]
    regimes: dict[str, int]
    used: int
    """Entries that spoke for a decision."""
    hits: int
    """How often, all together."""
    most_used: tuple[Entry, ...]
    most_helpful: tuple[Entry, ...]
    """Those with the most credit, if it is positive."""
    most_harmful: tuple[Entry, ...]
    """Those with the least, if it is negative."""
    bytes_per_entry: float
    """Of arrays in memory: key, outcomes, times and marks."""


@dataclass(frozen=True, slots=True, eq=False)
class Sharpness:
    """How well keys tell moments apart, on a sample."""

    anisotropy: float
    """Mean cosine of pairs of keys: 0 spread out, 1 all alike."""
    asked: int
    """Moments that were asked about as of their own close."""
    neighbours: float | None
    """Mean number of neighbours that they found; ``None`` where none found any."""
    effective: float | None
    """Mean effective number of independent moments among them."""
    novelty: NoveltyScale | None
    recall: RecallReading | None
    """Of an approximate index, on a part of the sample; ``None`` where the index is exact."""


def contents(source: Source, bank: MemoryBank) -> Contents:
    """Count what a memory holds."""
    entries = list(bank.entries())
    closes = [source.close_of(entry.symbol, entry.bar_time) for entry in entries]
    last = max(closes, default=None)
    used = [entry for entry in entries if entry.hits]
    by_credit = sorted(used, key=lambda entry: (-entry.credit, entry.entry_id))
    return Contents(
        held=len(entries),
        pending=sum(entry.outcomes[bank.config.primary] is None for entry in entries),
        visible=0 if last is None else bank.visible_count(last),
        first_close=min(closes, default=None),
        last_close=last,
        symbols=dict(sorted(Counter(entry.symbol for entry in entries).items())),
        regimes={
            regime_name(label): count for label, count in Counter(entry.regime for entry in entries).most_common()
        },
        used=len(used),
        hits=sum(entry.hits for entry in used),
        most_used=tuple(sorted(used, key=lambda entry: (-entry.hits, entry.entry_id))[:_TOP]),
        most_helpful=tuple([entry for entry in by_credit[:_TOP] if entry.credit > 0.0]),
        most_harmful=tuple([entry for entry in reversed(by_credit[-_TOP:]) if entry.credit < 0.0]),
        bytes_per_entry=_bytes_of(bank) / len(entries) if entries else 0.0,
    )


def sharpness(source: Source, memory: OpenMemory) -> Sharpness:
    """Compare a sample of keys with each other, and ask about some moments of the later half as of their own close."""
    bank, reading = memory.bank, memory.reading
    ids = [entry.entry_id for entry in bank.entries()]
    keys = np.array([bank.entry(ids[place]).key for place in evenly_spaced(len(ids), _KEYS).tolist()])
    later = ids[len(ids) // 2 :]
    found, effective, novelties, asked = [], [], [], []
    places = evenly_spaced(len(later), _ASKED).tolist()
    for place in places:
        entry = bank.entry(later[place])
        as_of = source.close_of(entry.symbol, entry.bar_time)
        result = bank.search(entry.key, as_of=as_of, k=reading.n_neighbors)
        if result.count:
            asked.append(Asked(entry.key, as_of, result))
            view = read_out(result, bank.config.primary, temperature=reading.temperature, cluster_ms=reading.cluster_ms)
            found.append(result.count)
            effective.append(view.effective)
            novelties.append(1.0 - float(result.scores[0]))
    return Sharpness(
        anisotropy=_mean_cosine(keys),
        asked=len(places),
        neighbours=float(np.mean(found)) if found else None,
        effective=float(np.mean(effective)) if effective else None,
        novelty=NoveltyScale(np.array(novelties)) if novelties else None,
        recall=measured_recall(bank, asked),
    )


def statistics_document(stored: StoredMemory, source: Source, memory: OpenMemory) -> dict[str, Any]:
    """All that is to be told of a memory, as plain values."""
    bank, config = memory.bank, memory.bank.config
    held, sharp = contents(source, bank), sharpness(source, memory)
    key_bytes = config.dimension * np.dtype(np.float32).itemsize
    return {
        "memory": stored.bank.name,
        "strategy": source.strategy_name,
        "interval": source.interval,
        "encoder_version": stored.bank.encoder_version,
        "capacity": config.holds,
        "sealed": config.sealed,
        "held": held.held,
        "pending": held.pending,
        "visible": held.visible,
        "evicted": stored.statistics.evicted,
        "first_close": held.first_close,
        "last_close": held.last_close,
        "symbols": held.symbols,
        "regimes": held.regimes,
        "horizons": list(config.horizons),
        "primary": config.horizons[config.primary],
        "embargo_ms": config.embargo_ms,
        "eviction": config.eviction.value,
        "half_life_ms": config.half_life_ms,
        "index": config.index.value,
        "recall": recall_document(sharp.recall),
        "metric": config.metric.value,
        "dimension": config.dimension,
        "anisotropy": sharp.anisotropy,
        "moments_asked": sharp.asked,
        "neighbours": sharp.neighbours,
        "effective_neighbours": sharp.effective,
        "novelty_median": None if sharp.novelty is None else float(np.median(sharp.novelty.values)),
        "novelty_95": None if sharp.novelty is None else float(np.quantile(sharp.novelty.values, 0.95)),
        "decisions_remembered": stored.statistics.recollections,
        "used": held.used,
        "hits": held.hits,
        "most_used": [entry_document(source, entry) for entry in held.most_used],
        "most_helpful": [entry_document(source, entry) for entry in held.most_helpful],
        "most_harmful": [entry_document(source, entry) for entry in held.most_harmful],
        "bytes_per_entry": held.bytes_per_entry,
        "bytes_per_key": key_bytes,
    }


def entry_document(source: Source, entry: Entry) -> dict[str, Any]:
    """An entry and what it was good for, as plain values."""
    return {
        "symbol": entry.symbol,
        "bar_open_time": entry.bar_time,
        "close_time": source.close_of(entry.symbol, entry.bar_time),
        "regime": regime_name(entry.regime),
        "hits": entry.hits,
        "last_hit": entry.last_hit,
        "credit": entry.credit,
    }


def _mean_cosine(keys: KeyArray) -> float:
    """Mean cosine of pairs of different keys, ``[n, dimension]``; 0 for fewer than two."""
    count = len(keys)
    if count < 2:
        return 0.0
    unit = keys.astype(np.float64)
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    total = unit.sum(axis=0)
    return float((total @ total - count) / (count * (count - 1)))


def _bytes_of(bank: MemoryBank) -> int:
    """Bytes of all arrays over entries."""
    state = bank.state()
    columns = [getattr(state, column.name) for column in dataclasses.fields(state)]
    return sum(column.nbytes for column in columns if isinstance(column, np.ndarray))
