"""Writing the memory: one entry per symbol and bar, its outcomes settled by the bars that follow."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

import numpy as np
import numpy.typing as npt

from memory_store import MemoryBank
from strategies.bars import Bar, BarSeries
from strategies.outcomes import outcome

Key = npt.NDArray[np.float32]
_Moment = tuple[int | None, float]
"""Entry of a received bar, if it has one, and its close."""


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

    def remember(self, bar: Bar, key: Key | None, regime: int) -> int | None:
        """Append the moment of a bar of the settled batch; its outcomes are pending.

        Args:
            bar: the bar.
            key: ``[dimension]``, or ``None`` for a bar too early to have one: it is counted, and makes no entry.
            regime: label of the moment.

        Returns:
            The entry's id, ``None`` without a key.
        """
        settled = self._batch.pop(bar.symbol, None)
        assert settled == bar.open_time, f"{bar.symbol} {bar.open_time} was remembered before it settled"
        self._remembering = True
        return self._append(bar.symbol, bar.open_time, bar.close, key, regime)

    def warm(
        self, history: Mapping[str, BarSeries], keys: Mapping[str, Key], regimes: Mapping[str, npt.NDArray[np.int64]]
    ) -> None:
        """Fill the bank from past bars, as ``settle`` and ``remember`` would batch by batch.

        Entries come in the order of close time and, within a batch, of the symbols of ``history``. Of more moments than
        the bank can hold only the latest are written.

        Args:
            history: past bars of every symbol.
            keys: ``[m, dimension]`` per symbol, the keys of its last ``m`` bars; earlier bars make no entry.
            regimes: ``[n]`` per symbol, one label per bar.
        """
        assert not self._batch, f"bars settled but never remembered: {self._batch}"
        self._recent.clear()
        past = {symbol: _Past.of(series, keys[symbol], regimes[symbol]) for symbol, series in history.items()}
        for batch in _batches(past, self._bank.config.capacity):
            for symbol, place in batch:
                self._settle(symbol, past[symbol].close[place], past[symbol].close_time[place])
            for symbol, place in batch:
                moment = past[symbol]
                key = moment.keys[place]
                self._append(symbol, moment.open_time[place], moment.close[place], key, moment.regimes[place])

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

    def _append(self, symbol: str, opened: int, close: float, key: Key | None, regime: int) -> int | None:
        entry_id = None
        if key is not None:
            entry_id = self._bank.append(key, symbol=symbol, bar_time=opened, regime=regime)
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

    @classmethod
    def of(cls, series: BarSeries, keys: Key, regimes: npt.NDArray[np.int64]) -> _Past:
        start = len(series) - len(keys)
        assert start >= 0, f"{series.symbol}: {len(keys)} keys for {len(series)} bars"
        assert len(regimes) == len(series), f"{series.symbol}: {len(regimes)} regimes for {len(series)} bars"
        return cls(
            series.open_time[start:].tolist(),
            series.close_time[start:].tolist(),
            series.close[start:].tolist(),
            keys,
            regimes[start:].tolist(),
        )


def _batches(past: Mapping[str, _Past], limit: int) -> Iterator[list[tuple[str, int]]]:
    """The latest ``limit`` moments of all symbols as (symbol, place), in batches that close together, oldest first."""
    if not past:
        return
    symbols = list(past)
    times = np.concatenate([np.array(past[symbol].close_time, dtype=np.int64) for symbol in symbols])
    numbers = np.repeat(np.arange(len(symbols)), [len(past[symbol].keys) for symbol in symbols])
    places = np.concatenate([np.arange(len(past[symbol].keys)) for symbol in symbols])
    order = np.lexsort((numbers, times))[-limit:]
    moments = zip(times[order].tolist(), numbers[order].tolist(), places[order].tolist(), strict=True)
    for _, batch in groupby(moments, key=itemgetter(0)):
        yield [(symbols[number], place) for _, number, place in batch]
