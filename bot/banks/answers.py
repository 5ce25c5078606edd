"""Asking a memory about a moment: the neighbours, what followed them, in which regimes, and how new the moment is."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass
from math import expm1, isnan
from typing import Any, Final

import numpy as np

from bot.banks.moments import LONGEST_CLOSURE, Moment
from bot.banks.sources import OpenMemory, Source
from memory_store import MemoryBankError, SearchResult
from memory_store.novelty import NoveltyScale, calibrate, novelty_of
from memory_store.policy import Asker, RetrievalPolicy
from memory_store.records import ScoreArray
from strategies.bars import DAY_MS, Calendar, interval_ms
from strategies.readout import MemoryView, read_out
from strategies.regime_vote import RegimeVote, regime_name, regime_vote

_FEWEST_ASKED: Final = 30
"""Earlier moments that a percentile has to rest on."""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """One remembered moment of an answer."""

    symbol: str
    open_time: int
    close_time: int
    similarity: float
    weight: float
    """Share of the vote; 0 for one whose outcome over the primary horizon is not known."""
    regime: int
    returns: tuple[float | None, ...]
    """What followed over each horizon as a fraction of price, ``None`` where it was not yet known."""


@dataclass(frozen=True, slots=True, eq=False)
class Outlook:
    """What followed the neighbours over one horizon, as fractions of price and weighted."""

    bars: int
    known: int
    """Neighbours whose outcome was known."""
    mean: float | None
    deviation: float | None
    rose: float | None
    """Share of the weight that rose."""
    quantiles: tuple[tuple[float, float], ...]
    """Pairs (probability, return)."""


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What a memory says about a moment."""

    moment: Moment
    as_of: int
    visible: int
    """Entries that it could choose from."""
    neighbours: tuple[Neighbour, ...]
    """Best first."""
    moments: int
    """How many they are when those of one time count once."""
    effective: float
    """Effective number of independent moments."""
    outlooks: tuple[Outlook, ...]
    """One per horizon."""
    primary: int
    """Place of the primary horizon in ``outlooks``."""
    vote: RegimeVote
    novelty: float
    novelty_percentile: float | None
    """Share of earlier moments that were less new to the memory; ``None`` where too few could be asked."""
    stale_since: int | None = None
    """Close of the newest moment of a memory that ends long before ``as_of``, milliseconds; ``None`` where it is up to
    date."""


def ask(source: Source, memory: OpenMemory, moment: Moment, *, k: int | None = None) -> Answer:
    """Search for a moment.

    Args:
        source: where the memory is from.
        memory: as of the time asked.
        moment: asked about.
        k: neighbours wanted; as many as the strategy asks for by default.
    """
    bank, as_of, reading = memory.bank, memory.as_of, memory.reading
    asker = Asker(moment.symbol, moment.regime, moment.open_time)
    result = bank.search(moment.key, as_of=as_of, k=k or reading.n_neighbors, policy=reading.policy, asker=asker)
    views = [
        read_out(result, horizon, temperature=reading.temperature, cluster_ms=reading.cluster_ms)
        for horizon in range(len(bank.config.horizons))
    ]
    view = views[bank.config.primary]
    neighbours = tuple(_neighbours(source, result, view))
    scale = novelty_scale(source, memory)
    novelty = novelty_of(result)
    return Answer(
        moment=moment,
        as_of=as_of,
        visible=result.visible,
        neighbours=neighbours,
        moments=view.moments,
        effective=view.effective,
        outlooks=tuple(map(_outlook, bank.config.horizons, views, np.expm1(result.outcomes).T)),
        primary=bank.config.primary,
        vote=regime_vote((each.regime for each in neighbours), (each.weight for each in neighbours)),
        novelty=novelty,
        novelty_percentile=None if scale is None else scale.percentile(novelty),
        stale_since=_stale_since(source, memory),
    )


def novelty_scale(source: Source, memory: OpenMemory) -> NoveltyScale | None:
    """How new earlier moments were to the memory at their own time; ``None`` while too few could have been asked."""
    before = memory.as_of - 1  # the moment asked about may close now, and is no part of its own measure
    if not memory.bank.visible_count(before):
        return None
    scale = calibrate(memory.bank, as_of=before, span_ms=interval_ms(source.interval))
    return scale if len(scale.values) >= _FEWEST_ASKED else None


def document(answer: Answer) -> dict[str, Any]:
    """An answer as plain values; what followed is a fraction of price."""
    return {
        **moment_document(answer.moment),
        "as_of": answer.as_of,
        "stale_since": answer.stale_since,
        "visible": answer.visible,
        "moments": answer.moments,
        "effective_moments": answer.effective,
        "novelty": answer.novelty,
        "novelty_percentile": answer.novelty_percentile,
        "neighbours": [
            {
                "symbol": each.symbol,
                "bar_open_time": each.open_time,
                "close_time": each.close_time,
                "similarity": each.similarity,
                "weight": each.weight,
                "regime": regime_name(each.regime),
                "followed": {
                    str(outlook.bars): value for outlook, value in zip(answer.outlooks, each.returns, strict=True)
                },
            }
            for each in answer.neighbours
        ],
        "followed": [
            {
                "bars": outlook.bars,
                "primary": place == answer.primary,
                "known": outlook.known,
                "mean": outlook.mean,
                "deviation": outlook.deviation,
                "rose": outlook.rose,
                "quantiles": {str(probability): value for probability, value in outlook.quantiles},
            }
            for place, outlook in enumerate(answer.outlooks)
        ],
        **vote_document(answer.vote),
    }


def policy_document(policy: RetrievalPolicy | None) -> dict[str, Any] | None:
    """Which neighbours were wanted, as plain values; ``None``: the nearest."""
    return None if policy is None else asdict(policy)


def moment_document(moment: Moment) -> dict[str, Any]:
    """A moment as plain values."""
    return {
        "symbol": moment.symbol,
        "bar_open_time": moment.open_time,
        "close_time": moment.close_time,
        "regime": regime_name(moment.regime),
    }


def vote_document(vote: RegimeVote) -> dict[str, Any]:
    """A regime vote as plain values."""
    return {
        "regime_vote": None if vote.winner is None else regime_name(vote.winner),
        "regime_margin": vote.margin,
        "regimes": {regime_name(each.regime): {"share": each.share, "neighbours": each.count} for each in vote.shares},
    }


def _neighbours(source: Source, result: SearchResult, view: MemoryView) -> list[Neighbour]:
    returns = np.expm1(result.outcomes).tolist()
    found = []
    for place in range(result.count):
        opened = int(result.bar_times[place])
        symbol = result.symbols[place]
        found.append(
            Neighbour(
                symbol,
                opened,
                source.close_of(symbol, opened),
                float(result.scores[place]),
                float(view.weights[place]),
                int(result.regimes[place]),
                tuple([None if isnan(value) else value for value in returns[place]]),
            )
        )
    return found


def _stale_since(source: Source, memory: OpenMemory) -> int | None:
    """See ``Answer``: a memory is up to date if it has a moment of the day before, or of the last session."""
    patience = max(2 * interval_ms(source.interval), DAY_MS)
    if Calendar.SESSIONS in source.calendars.values():
        patience += LONGEST_CLOSURE
    newest = _newest_close(source, memory)
    return newest if newest is not None and memory.as_of - newest > patience else None


def _newest_close(source: Source, memory: OpenMemory) -> int | None:
    """Close of the latest entry before ``as_of``; a stored bank may hold later ones, which no question sees."""
    for entry_id in reversed(range(memory.bank.next_id)):
        with suppress(MemoryBankError):  # evicted
            entry = memory.bank.entry(entry_id)
            closed = source.close_of(entry.symbol, entry.bar_time)
            if closed < memory.as_of:
                return closed
    return None


def _outlook(bars: int, view: MemoryView, returns: ScoreArray) -> Outlook:
    """What followed as fractions of price; a mean of log returns would be below that of what was earned."""
    if not view.count:
        return Outlook(bars, 0, None, None, None, ())
    quantiles = tuple([(probability, expm1(value)) for probability, value in view.quantiles])
    voting = view.weights > 0.0
    shares, values = view.weights[voting], returns[voting]
    mean = float(np.sum(shares * values))
    deviation = float(np.sqrt(np.sum(shares * (values - mean) ** 2)))
    return Outlook(bars, view.count, mean, deviation, view.positive_ratio, quantiles)
