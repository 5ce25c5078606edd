"""What the market feed hands to the decision core: bars that close together, and symbols that come and go."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from itertools import repeat
from typing import Final

import msgspec

from strategies.bars import Bar, BarSeries

_ON_TIME: Final = (False,)


class BarBatch(msgspec.Struct, frozen=True, gc=False):
    """Bars of several symbols that closed at the same time, in the order of the run's symbols."""

    bars: tuple[Bar, ...]
    late: tuple[bool, ...]
    """Per bar: it is older than the newest closed one, or its batch had already left without it."""


class SymbolUnavailable(msgspec.Struct, frozen=True):
    """The feed does not know a symbol's newest bar; batches do not wait for it until it is back."""

    symbol: str
    reason: str


class SymbolAvailable(msgspec.Struct, frozen=True):
    """A symbol that was unavailable is up to date again; the batch that shows it follows."""

    symbol: str


FeedEvent = BarBatch | SymbolUnavailable | SymbolAvailable


def batches(series: Mapping[str, BarSeries]) -> Iterator[BarBatch]:
    """Bars of several symbols in one defined order: by close time, and those that close together in the order of symbols."""
    if len(series) == 1:
        (only,) = series.values()
        yield from map(BarBatch, zip(only.bars(), strict=True), repeat(_ON_TIME))
        return
    streams = [_ranked(rank, one.bars()) for rank, one in enumerate(series.values())]
    together: list[Bar] = []
    for _, _, bar in heapq.merge(*streams, key=lambda item: item[:2]):
        if together and bar.close_time != together[0].close_time:
            yield BarBatch(tuple(together), (False,) * len(together))
            together = []
        together.append(bar)
    if together:
        yield BarBatch(tuple(together), (False,) * len(together))


def _ranked(rank: int, bars: Iterator[Bar]) -> Iterator[tuple[int, int, Bar]]:
    for bar in bars:
        yield bar.close_time, rank, bar
