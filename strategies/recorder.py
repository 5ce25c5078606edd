"""Writing the memory: one entry per symbol and bar, its outcomes settled by the bars that follow."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from memory_store import MemoryBank, SearchResult
from memory_store.novelty import novelty_of, novelty_of_best
from memory_store.records import Eviction
from strategies.bars import Bar, BarSeries
from strategies.outcomes import outcome

Key = npt.NDArray[np.float32]
_Moment = tuple[int | None, float]
"""Entry of a received bar, if it has one, and its close."""


class Recall(NamedTuple):
    """What the search of a bar found: what is noted with the bar's own entry."""

    novelty: float
    """See ``memory_store.novelty``."""
    ids: npt.NDArray[np.int64]
    """``[n]`` neighbours that had a vote in the decision, best first; none where it was made without them."""
    weights: npt.NDArray[np.float64]
    """``[n]`` their shares."""

    def unused(self) -> Recall:
        """The same, after a decision that was made without the neighbours."""
        return self._replace(ids=self.ids[:0], weights=self.weights[:0])


def recalls_of(
    scores: npt.NDArray[np.float64], ids: npt.NDArray[np.int64], weights: npt.NDArray[np.float64]
) -> list[Recall]:
    """What searches found, from columns ``[n, k]``: see :func:`recall_of`."""
    recalls = list(map(Recall, map(novelty_of_best, scores.max(axis=1).tolist()), ids, weights))
    silent = ~(weights > 0.0).all(axis=1)
    for place in np.flatnonzero(silent).tolist():
        recalls[place] = _of_voting(*recalls[place])
    return recalls


def recall_of(result: SearchResult, weights: npt.NDArray[np.float64]) -> Recall:
    """What a search found.

    Args:
        result: of the search.
        weights: ``[k]`` shares of the neighbours; 0 has no vote.
    """
    return _of_voting(novelty_of(result), result.ids, weights)


def _of_voting(novelty: float, ids: npt.NDArray[np.int64], weights: npt.NDArray[np.float64]) -> Recall:
    voting = weights > 0.0
    return Recall(novelty, ids[voting], weights[voting])


class MemoryRecorder:
    """Appends moments to a bank and settles their outcomes by counting received bars.

    For every batch of bars that close together the order is: ``settle`` with all of them, then queries, then
    ``remember`` for each. The recorder asserts it, because any other order lets a decision see what it may not.

    Args:
        bank: where the entries go; its config names the same horizons.
        horizons: spans in received bars of the entry's own symbol.
    """

    def __init__(self, bank: MemoryBank, horizons: tuple[int, ...]) -> None:
        assert bank.config.horizons == horizons, f"bank settles {bank.config.horizons}, recorder {horizons}"
        self._bank = bank
        self._horizons = horizons
        self._recent: dict[str, deque[_Moment]] = {}
        self._batch: dict[str, int] = {}
        """Open times of the bars settled and not yet remembered."""
        self._remembering = False

    def settle(self, bars: Sequence[Bar]) -> None:
        """Record what the closing bars of one batch, at most one per symbol, reveal about earlier moments."""
        assert not self._batch, f"bars settled but never remembered: {self._batch}"
        for bar in bars:
            assert bar.symbol not in self._batch, f"two bars of {bar.symbol} in one batch"
            self._batch[bar.symbol] = bar.open_time
            self._settle(bar.symbol, bar.close, bar.close_time)
        self._remembering = False

    def assert_may_ask(self, bar: Bar) -> None:
        """Assert that a query for this bar comes when it must: its batch settled, nothing of it remembered yet."""
        assert self._batch.get(bar.symbol) == bar.open_time, f"{bar.symbol} {bar.open_time} was asked before it settled"
        assert not self._remembering, f"{bar.symbol} {bar.open_time} was asked after its batch was remembered"

    def remember(self, bar: Bar, key: Key | None, regime: int, recall: Recall | None = None) -> int | None:
        """Append the moment of a bar of the settled batch; its outcomes are pending.

        Args:
            bar: the bar.
            key: ``[dimension]``, or ``None`` for a bar that has none or may not be remembered: it is counted, and makes no
                entry.
            regime: label of the moment.
            recall: what its own search found, if it was asked.

        Returns:
            The entry's id, ``None`` without a key.
        """
        settled = self._batch.pop(bar.symbol, None)
        assert settled == bar.open_time, f"{bar.symbol} {bar.open_time} was remembered before it settled"
        self._remembering = True
        novelty = 0.0 if recall is None else recall.novelty
        entry_id = self._append(bar.symbol, bar.open_time, bar.close, key, regime, novelty)
        if entry_id is not None and recall is not None and len(recall.ids):
            self._bank.note(entry_id, as_of=bar.close_time, ids=recall.ids, weights=recall.weights)
        return entry_id

    def warm(
        self,
        history: Mapping[str, BarSeries],
        keys: Mapping[str, Key],
        regimes: Mapping[str, npt.NDArray[np.int64]],
        admitted: Mapping[str, npt.NDArray[np.bool_]] | None = None,
    ) -> None:
        """Fill the bank from past bars, as ``settle`` and ``remember`` would batch by batch.

        Entries come in the order of close time and, within a batch, of the symbols of ``history``. Where the oldest makes
        room, of more moments than the bank can hold only the latest are written.

        Args:
            history: past bars of every symbol.
            keys: ``[m, dimension]`` per symbol, the keys of its last ``m`` bars; earlier bars make no entry.
            regimes: ``[n]`` per symbol, one label per bar.
            admitted: ``[n]`` per symbol, which bars may make an entry; all of them by default.
        """
        assert not self._batch, f"bars settled but never remembered: {self._batch}"
        self._recent.clear()
        past = {}
        for symbol, series in history.items():
            allowed = np.ones(len(series), dtype=np.bool_) if admitted is None else admitted[symbol]
            past[symbol] = _Past.of(series, keys[symbol], regimes[symbol], allowed)
        turns = self._bank.config.eviction is Eviction.FIFO
        for batch in _batches(past, self._bank.config.holds if turns else None):
            for symbol, place in batch:
                self._settle(symbol, past[symbol].close[place], past[symbol].close_time[place])
            for symbol, place in batch:
                moment = past[symbol]
                key = moment.keys[place] if moment.admitted[place] else None
                self._append(symbol, moment.open_time[place], moment.close[place], key, moment.regimes[place], 0.0)

    def resume(self, history: Mapping[str, BarSeries]) -> None:
        """Go on with a bank that already holds the entries of these past bars, such as one loaded from storage."""
        self._recent.clear()
        self._batch.clear()
        for symbol, series in history.items():
            recent = self._ring(symbol)
            last = series.slice(max(0, len(series) - self._horizons[-1]), len(series))
            for opened, close in zip(last.open_time.tolist(), last.close.tolist(), strict=True):
                recent.append((self._bank.find(symbol, opened), close))

    def _ring(self, symbol: str) -> deque[_Moment]:
        ring = self._recent.get(symbol)
        if ring is None:
            ring = self._recent[symbol] = deque(maxlen=self._horizons[-1])
        return ring

    def _settle(self, symbol: str, close: float, close_time: int) -> None:
        recent = self._ring(symbol)
        for index, horizon in enumerate(self._horizons):
            if len(recent) < horizon:
                return
            entry_id, close_then = recent[-horizon]
            if entry_id is not None:
                self._bank.settle(entry_id, index, outcome(close_then, close), close_time)

    def _append(
        self, symbol: str, opened: int, close: float, key: Key | None, regime: int, novelty: float
    ) -> int | None:
        entry_id = None
        if key is not None:
            entry_id = self._bank.append(key, symbol=symbol, bar_time=opened, regime=regime, novelty=novelty)
        self._ring(symbol).append((entry_id, close))
        return entry_id


@dataclass(frozen=True, slots=True, eq=False)
class _Past:
    """The bars of one symbol that have keys, as plain columns."""

    open_time: list[int]
    close_time: list[int]
    close: list[float]
    keys: Key
    regimes: list[int]
    admitted: list[bool]

    @classmethod
    def of(cls, series: BarSeries, keys: Key, regimes: npt.NDArray[np.int64], admitted: npt.NDArray[np.bool_]) -> _Past:
        start = len(series) - len(keys)
        assert start >= 0, f"{series.symbol}: {len(keys)} keys for {len(series)} bars"
        assert len(regimes) == len(series), f"{series.symbol}: {len(regimes)} regimes for {len(series)} bars"
        assert len(admitted) == len(series), f"{series.symbol}: {len(admitted)} judgements for {len(series)} bars"
        return cls(
            series.open_time[start:].tolist(),
            series.close_time[start:].tolist(),
            series.close[start:].tolist(),
            keys,
            regimes[start:].tolist(),
            admitted[start:].tolist(),
        )


def _batches(past: Mapping[str, _Past], limit: int | None) -> Iterator[list[tuple[str, int]]]:
    """Moments of all symbols as (symbol, place), in batches that close together, oldest first.

    They begin so late that ``limit`` of them are admitted; with ``None``, at the beginning.
    """
    if not past:
        return
    symbols = list(past)
    times = np.concatenate([np.array(past[symbol].close_time, dtype=np.int64) for symbol in symbols])
    numbers = np.repeat(np.arange(len(symbols)), [len(past[symbol].keys) for symbol in symbols])
    places = np.concatenate([np.arange(len(past[symbol].keys)) for symbol in symbols])
    order = np.lexsort((numbers, times))
    admitted = np.flatnonzero(np.concatenate([past[symbol].admitted for symbol in symbols])[order])
    if limit is not None and len(admitted) > limit:
        order = order[admitted[-limit] :]
    moments = zip(times[order].tolist(), numbers[order].tolist(), places[order].tolist(), strict=True)
    for _, batch in groupby(moments, key=itemgetter(0)):
        yield [(symbols[number], place) for _, number, place in batch]
