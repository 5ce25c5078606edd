"""Bars that a replay is going to show, and what was found out about them before they came."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import partial
from itertools import count, repeat
from typing import Any, NamedTuple

import numpy.typing as npt

from memory_store import Proposal, SearchResults, Terms
from memory_store.helper import Promise
from memory_store.records import KeyArray
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


class Block(NamedTuple):
    """Consecutive bars of a prospect whose neighbours are proposed together: a task for whoever has the memory."""

    key: tuple[int, int]
    """Number of the prospect, and place of the first bar in it."""
    as_of: int
    """When it was cut out, milliseconds: what the memory knows by then, it may know."""
    queries: KeyArray
    """``[n, d]`` keys of the bars."""

    @property
    def row(self) -> int:
        """Place of the first bar in the prospect."""
        return self.key[1]

    @property
    def end(self) -> int:
        """Place of the bar after it."""
        return self.row + len(self.queries)


class Stretch(NamedTuple):
    """Consecutive bars of a block, and all that it takes to appraise them: another such task."""

    block: tuple[int, int]
    """Key of the block."""
    row: int
    """Place of the first bar in the prospect."""
    opened: Sequence[int]
    """``[n]`` open times."""
    closed: Sequence[int]
    """``[n]`` close times."""
    encoded: EncodedSeries
    volatility: Sequence[float]
    """``[n]`` trailing volatility, per bar."""
    proposal: Proposal | None = None
    """Of the block, where whoever is given the task does not have it."""

    @property
    def place(self) -> int:
        """Place of the first bar in the block."""
        return self.row - self.block[1]

    @property
    def end(self) -> int:
        """Place in the prospect of the bar after it."""
        return self.row + len(self.opened)


class Appraisals:
    """Appraisals of ``n`` consecutive bars as columns: what travels from one process to another with little to unpack.

    Args:
        forecasts: of the bars.
        views: of their memory.
        found: ids, scores, outcomes, bar times and regimes of the searches' results, ``[n, k, ...]`` each.
        symbols: ``[n, k]`` of the neighbours.
        horizon: index of the primary one.
    """

    __slots__ = ("_columns", "_opened")

    def __init__(
        self,
        forecasts: Forecasts,
        views: MemoryViews,
        found: tuple[npt.NDArray[Any], ...],
        symbols: npt.NDArray[Any],
        horizon: int,
    ) -> None:
        self._columns = forecasts, views, found, symbols, horizon
        self._opened: list[Appraisal] | None = None
        """One by one, made all at once when the first is asked for."""

    def __len__(self) -> int:
        return len(self._columns[0].predictions)

    def __reduce__(self) -> tuple[type[Appraisals], tuple[Any, ...]]:
        return Appraisals, self._columns

    @classmethod
    def of(cls, results: SearchResults, forecasts: Forecasts, views: MemoryViews, horizon: int) -> Appraisals:
        """Of searches, and what was made of each."""
        found = results.ids, results.scores, results.outcomes, results.bar_times, results.regimes
        return cls(forecasts, views, found, results.symbols, horizon)

    def appraisal(self, place: int, visible: int) -> Appraisal:
        """One of them, made when it could choose from so many."""
        if self._opened is None:
            self._opened = self._open()
        return self._opened[place].seeing(visible)

    def _open(self) -> list[Appraisal]:
        forecasts, views, found, symbols, horizon = self._columns
        ids, scores, outcomes, times, regimes = found
        # Not by this object, which keeps what refers to it: that would be a cycle that only the collector ends.
        around = _Around(symbols, times, scores, outcomes[:, :, horizon], regimes, forecasts.weights, views.weights)
        columns = [partial(around.columns, place) for place in range(len(self))]
        heaviest = [partial(around.heaviest, place) for place in range(len(self))]
        spoke = map(Neighbours, ids.tolist(), views.weights.tolist(), columns, heaviest)
        recalls = recalls_of(scores, ids, views.weights)
        return list(map(Appraisal, repeat(0), forecasts.forecasts(), views.views(), spoke, recalls))


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


_numbers = count()


class Findings(NamedTuple):
    """What was found out about a stretch."""

    first: int
    """Place in the stretch of the first bar that is appraised."""
    terms: Terms | None
    """On which the appraisals hold; ``None`` where there are none."""
    appraisals: Appraisals | None

    @property
    def end(self) -> int:
        """Place in the stretch of the first bar that nothing is known of any more."""
        return self.first + (0 if self.appraisals is None else len(self.appraisals))


class _Part(NamedTuple):
    """Bars that were encoded together."""

    start: int
    """Place of the first of them."""
    encoded: EncodedSeries

    @property
    def end(self) -> int:
        return self.start + len(self.encoded.keys)


class Prospect:
    """Consecutive bars of one symbol that are expected, cut into blocks and stretches as they are worked on.

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
        self.current: tuple[Stretch, Findings] | None = None
        """What the bar that came last belongs to."""
        self._number = next(_numbers)
        self._parts: deque[_Part] = deque()
        self._blocks: deque[Block] = deque()
        self._proposals: dict[tuple[int, int], Proposal | Promise] = {}
        self._made_here: set[tuple[int, int]] = set()
        self._coming: dict[int, tuple[Stretch, Promise | Findings]] = {}
        """By place of the first bar."""
        self._uncut = 0
        self._unproposed = 0

    def extend(self, bars: Sequence[Bar], encoded: EncodedSeries, volatility: Sequence[float]) -> None:
        """Expect more bars.

        Args:
            bars: as expected.
            encoded: their states and keys.
            volatility: trailing volatility of each, per bar.
        """
        self._parts.append(_Part(len(self.bars), encoded))
        self.bars += bars
        self.volatility += volatility

    def cut_block(self, size: int, as_of: int, last: int) -> Block | None:
        """The next bars whose neighbours nobody proposes; they stay free until ``propose``.

        Args:
            size: bars at most; blocks end at multiples of it.
            as_of: now, milliseconds.
            last: place up to which a block is wanted; ``None`` where the next one begins later, or there are no bars.
        """
        row = self._unproposed
        if row > last or row >= len(self.bars):
            return None
        part = next(part for part in self._parts if row < part.end)
        end = min(row + size - (self.first_ordinal + row) % size, part.end)
        return Block((self._number, row), as_of, part.encoded.keys[row - part.start : end - part.start])

    def propose(self, block: Block, proposal: Proposal | Promise) -> None:
        """Take up the proposal of a block, made by this process, or to be made by another."""
        self._blocks.append(block)
        self._unproposed = block.end
        self._proposals[block.key] = proposal
        if isinstance(proposal, Proposal):
            self._made_here.add(block.key)

    def proposal(self, block: tuple[int, int], *, wait: bool = True) -> Proposal | None:
        """That of a block, ``None`` where there is none or, if nobody shall wait for it, none yet."""
        proposal = self._proposals.get(block)
        if isinstance(proposal, Promise):
            if not wait and not proposal.is_kept:
                return None
            proposal = proposal.result()
            if proposal is None:
                del self._proposals[block]
            else:
                self._proposals[block] = proposal
        return proposal

    def cut(self, size: int) -> Stretch | None:
        """The next bars that nobody appraises, ``None`` where none are in a block; they stay free until ``assign``.

        Args:
            size: bars at most; stretches end at multiples of it.
        """
        row = self._uncut
        block = next((block for block in self._blocks if row < block.end), None)
        if block is None:
            return None
        end = min(row + size - (self.first_ordinal + row) % size, block.end)
        part = next(part for part in self._parts if row < part.end)
        rows = slice(row - part.start, end - part.start)
        bars, proposal = self.bars[row:end], self._proposals.get(block.key)
        return Stretch(
            block.key,
            row,
            [bar.open_time for bar in bars],
            [bar.close_time for bar in bars],
            EncodedSeries(part.encoded.hidden[rows], part.encoded.keys[rows]),
            self.volatility[row:end],
            proposal if block.key in self._made_here and isinstance(proposal, Proposal) else None,
        )

    def assign(self, stretch: Stretch, findings: Promise | Findings) -> None:
        """What was cut out is found, or somebody works on it."""
        self._coming[stretch.row] = stretch, findings
        self._uncut = stretch.end

    @property
    def proposed_until(self) -> int:
        """Place up to which neighbours are proposed, without a gap, with no task left to wait for."""
        until = 0
        for block in self._blocks:
            proposal = self._proposals.get(block.key)
            if isinstance(proposal, Promise) and not proposal.is_kept:
                break
            until = block.end
        return until

    def take(self, row: int) -> tuple[Stretch, Promise | Findings] | None:
        """The stretch that a bar lies in, where somebody has it, once. Nobody asks about bars before this one any more."""
        self._uncut, self._unproposed = max(self._uncut, row), max(self._unproposed, row)
        while self._parts[0].end <= row:
            self._parts.popleft()
        while self._blocks and self._blocks[0].end <= row:
            gone = self._blocks.popleft().key
            self._proposals.pop(gone, None)
            self._made_here.discard(gone)
        for first, (stretch, findings) in list(self._coming.items()):
            if stretch.end <= row:
                del self._coming[first]
            elif first <= row:
                del self._coming[first]
                return stretch, findings
        return None
