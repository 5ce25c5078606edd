"""Bars that a replay is going to show, and what was found out about them before they came."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from typing import Any, NamedTuple

import numpy.typing as npt

from memory_store import ComingProposal, Proposal, SearchResults, Terms
from memory_store.second_thread import Promise
from strategies.bars import Bar
from strategies.memory_transformer.bar_kernel import EncodedSeries
from strategies.memory_transformer.forecaster import BarForecast, Forecasts
from strategies.neighbours import Columns, Neighbours, Outline, outlines_of_rows
from strategies.readout import MemoryView, MemoryViews
from strategies.recorder import Recall, recalls_of


class Appraisal(NamedTuple):
    """Forecast, memory, and what they rest on."""

    visible: int
    """Entries that the bar could choose its neighbours from."""
    forecast: BarForecast
    view: MemoryView
    neighbours: Neighbours
    recall: Recall

    def seeing(self, visible: int) -> Appraisal:
        """The same, made when it could choose from so many."""
        return Appraisal(visible, *self[1:])


def appraisals_of(results: SearchResults, forecasts: Forecasts, views: MemoryViews, horizon: int) -> list[Appraisal]:
    """Of ``n`` consecutive bars, from what was found for them and what was made of it; nothing visible yet.

    Args:
        results: of their searches.
        forecasts: by the model.
        views: of their neighbours.
        horizon: index of the primary one.
    """
    outcomes = results.outcomes[:, :, horizon]
    around = _Around(
        results.symbols, results.bar_times, results.scores, outcomes, results.regimes, forecasts.weights, views.weights
    )
    columns = [partial(around.columns, place) for place in range(len(results))]
    heaviest = [partial(around.heaviest, place) for place in range(len(results))]
    spoke = map(Neighbours, results.ids.tolist(), views.weights.tolist(), columns, heaviest)
    recalls = recalls_of(results.scores, results.ids, views.weights)
    return list(map(Appraisal, repeat(0), forecasts.forecasts(horizon), views.views(), spoke, recalls))


class _Around:
    """What is known of the neighbours of consecutive bars, ``[n, k]`` each: see ``Columns``; then shares of the vote."""

    __slots__ = ("_columns", "_outlines", "_shares")

    def __init__(self, *columns: npt.NDArray[Any]) -> None:
        *self._columns, self._shares = columns
        self._outlines: dict[int, list[list[Outline]]] = {}
        """By how many are wanted, of all bars at once."""

    def columns(self, place: int) -> Columns:
        """Those of a bar."""
        symbols, *rest = (column[place] for column in self._columns)
        return Columns(symbols.tolist(), *rest)

    def heaviest(self, place: int, count: int) -> list[Outline]:
        """See ``Neighbours.heaviest``."""
        outlines = self._outlines.get(count)
        if outlines is None:
            symbols, times, scores, outcomes, *_ = self._columns
            outlines = self._outlines[count] = outlines_of_rows(symbols, times, scores, self._shares, outcomes, count)
        return outlines[place]


class Findings(NamedTuple):
    """What was found out about consecutive bars before their time."""

    row: int
    """Place of the first of them in the prospect."""
    terms: Terms | None = None
    """On which the appraisals hold; ``None`` where there are none."""
    appraisals: Sequence[Appraisal] = ()

    @property
    def end(self) -> int:
        """Place of the first bar that nothing is known of any more."""
        return self.row + len(self.appraisals)


@dataclass(slots=True)
class Block:
    """Consecutive bars whose neighbours are proposed together."""

    row: int
    """Place of the first bar in the prospect."""
    encoded: EncodedSeries
    """States and keys of the bars."""
    proposal: ComingProposal | Proposal | None = None

    @property
    def end(self) -> int:
        """Place of the bar after it."""
        return self.row + len(self.encoded.keys)


class _Part(NamedTuple):
    """Bars that are encoded together."""

    start: int
    """Place of the first of them."""
    end: int
    """Place of the bar after them."""
    encoded: Promise[EncodedSeries]


class Prospect:
    """Consecutive bars of one symbol that are expected, and the blocks in which their neighbours are proposed.

    Args:
        first_ordinal: absolute number of the first bar.
    """

    def __init__(self, first_ordinal: int) -> None:
        self.first_ordinal = first_ordinal
        self.bars: list[Bar] = []
        self.volatility: list[float] = []
        """Trailing volatility of each, per bar."""
        self.is_open = True
        """Whether more bars may be expected."""
        self.findings = Findings(0)
        """What is known of the bar that came last, or was of one before it."""
        self._parts: deque[_Part] = deque()
        self._blocks: deque[Block] = deque()
        self._uncut = 0

    def extend(self, bars: Sequence[Bar], encoded: Promise[EncodedSeries], volatility: Sequence[float]) -> None:
        """Expect more bars.

        Args:
            bars: as expected.
            encoded: their states and keys, as soon as somebody needs them.
            volatility: trailing volatility of each, per bar.
        """
        start = len(self.bars)
        self.bars += bars
        self.volatility += volatility
        self._parts.append(_Part(start, len(self.bars), encoded))

    def cut(self, size: int, last: int) -> Block | None:
        """The next bars that are in no block, as a block.

        Args:
            size: bars at most; blocks end at multiples of it.
            last: place up to which a block is wanted; ``None`` where the next one begins later, or there are no bars.
        """
        row = self._uncut
        if row > last or row >= len(self.bars):
            return None
        part = next(part for part in self._parts if row < part.end)
        end = self._uncut = min(row + size - (self.first_ordinal + row) % size, part.end)
        rows, encoded = slice(row - part.start, end - part.start), part.encoded.result()
        block = Block(row, EncodedSeries(encoded.hidden[rows], encoded.keys[rows]))
        self._blocks.append(block)
        return block

    def block(self, row: int) -> Block | None:
        """The block of a bar, if it is in one. Nobody asks about bars before this one any more."""
        while self._parts and self._parts[0].end <= row:
            self._parts.popleft()
        while self._blocks and self._blocks[0].end <= row:
            self._blocks.popleft()
        self._uncut = max(self._uncut, row)
        return self._blocks[0] if self._blocks else None
