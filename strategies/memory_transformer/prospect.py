"""Bars that a replay is going to show, and what was found out about them before they came."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from memory_store import Proposal, SearchResult, Terms
from memory_store.helper import Promise
from memory_store.records import KeyArray
from strategies.bars import Bar
from strategies.base import Neighbour
from strategies.memory_transformer.forecaster import BarForecast, Forecasts
from strategies.memory_transformer.tile_kernel import EncodedSeries
from strategies.readout import MemoryView, MemoryViews, spoke
from strategies.recorder import Recall, recalls_of


class Appraisal(NamedTuple):
    """Forecast, memory, and what they rest on."""

    visible: int
    """Entries that the bar could choose its neighbours from."""
    forecast: BarForecast
    view: MemoryView
    neighbours: tuple[Neighbour, ...]
    recall: Recall

    def seeing(self, visible: int) -> Appraisal:
        """The same, made when it could choose from so many."""
        return Appraisal(visible, *self[1:])


class Stretch(NamedTuple):
    """Consecutive bars of a prospect, and all that it takes to appraise them: a task for whoever has the memory."""

    as_of: int
    """When it was cut out, milliseconds: what the memory knows by then, it may know."""
    row: int
    """Place of the first bar in the prospect."""
    block: int
    """Place there of the first bar whose neighbours are proposed together with those of this stretch."""
    queries: KeyArray
    """``[m, d]`` keys of all those bars."""
    ordinal: int
    """Absolute number of the first bar."""
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
    def end(self) -> int:
        """Place in the prospect of the bar after it."""
        return self.row + len(self.opened)

    @property
    def ends_block(self) -> bool:
        """Whether it is the last of several of its block."""
        return self.row > self.block and self.end == self.block + len(self.queries)


class Appraisals:
    """Appraisals of ``n`` consecutive bars as columns: what travels from one process to another with little to unpack.

    Args:
        forecasts: of the bars.
        views: of their memory.
        found: arrays of the searches' results, ``[n, k, ...]`` each, in the order of ``_FOUND``.
        symbols: of the neighbours.
        horizon: index of the primary one.
    """

    __slots__ = ("_columns", "_opened")

    def __init__(
        self,
        forecasts: Forecasts,
        views: MemoryViews,
        found: tuple[npt.NDArray[Any], ...],
        symbols: Sequence[tuple[str, ...]],
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
    def of(cls, results: Sequence[SearchResult], forecasts: Forecasts, views: MemoryViews, horizon: int) -> Appraisals:
        """Of searches, and what was made of each."""
        found = tuple([np.array([getattr(each, name) for each in results]) for name in _FOUND])
        return cls(forecasts, views, found, [each.symbols for each in results], horizon)

    def appraisal(self, place: int, visible: int) -> Appraisal:
        """One of them, made when it could choose from so many."""
        if self._opened is None:
            self._opened = self._open()
        return self._opened[place].seeing(visible)

    def _open(self) -> list[Appraisal]:
        forecasts, views, (ids, scores, outcomes, times, regimes), symbols, horizon = self._columns
        spoken = map(
            spoke,
            views.weights.tolist(),
            ids.tolist(),
            symbols,
            times.tolist(),
            scores.tolist(),
            outcomes[:, :, horizon].tolist(),
            regimes.tolist(),
            forecasts.weights.tolist(),
        )
        recalls = recalls_of(scores, ids, views.weights)
        return list(map(Appraisal, repeat(0), forecasts.forecasts(), views.views(), spoken, recalls))


_BLOCKS_KEPT: Final = 4
"""Blocks whose proposals a prospect keeps: more than are ever worked on at once."""
_FOUND: Final = ("ids", "scores", "outcomes", "bar_times", "regimes")


class Findings(NamedTuple):
    """What was found out about a stretch."""

    proposal: Proposal | None
    """Of its block, where it was made for it."""
    first: int
    """Place in the stretch of the first bar that is appraised."""
    terms: Terms | None
    """On which the appraisals hold; ``None`` where there are none."""
    appraisals: Appraisals | None

    @property
    def end(self) -> int:
        """Place in the stretch of the first bar that nothing is known of any more."""
        return self.first + (0 if self.appraisals is None else len(self.appraisals))


class Prospect:
    """Consecutive bars of one symbol that are expected, cut into stretches as they are worked on.

    Args:
        first_ordinal: absolute number of the first bar.
        bars: as expected.
        encoded: their states and keys.
        volatility: trailing volatility of each, per bar.
    """

    def __init__(
        self, first_ordinal: int, bars: Sequence[Bar], encoded: EncodedSeries, volatility: Sequence[float]
    ) -> None:
        self.first_ordinal = first_ordinal
        self.bars = bars
        self.encoded = encoded
        self.volatility = volatility
        self.current: tuple[Stretch, Findings] | None = None
        """What the bar that came last belongs to."""
        self._coming: dict[int, tuple[Stretch, Promise | Findings | None]] = {}
        """By place of the first bar."""
        self._uncut = 0
        self._block = slice(0, 0)
        self._proposals: dict[int, Proposal] = {}
        self._made_here: set[int] = set()

    def cut(self, size: int, block: int, as_of: int) -> Stretch | None:
        """The next bars that nobody works on; ``None`` at the end. They stay free until ``assign``.

        Args:
            size: bars at most.
            block: bars whose neighbours are proposed together, at most; a stretch lies in one block.
            as_of: now, milliseconds.
        """
        row = self._uncut
        if row >= len(self.bars):
            return None
        if row >= self._block.stop:
            self._block = slice(row, min(row + block, len(self.bars)))
        part = slice(row, min(row + size, self._block.stop))
        bars, first = self.bars[part], self._block.start
        return Stretch(
            as_of,
            row,
            first,
            self.encoded.keys[self._block],
            self.first_ordinal + row,
            [bar.open_time for bar in bars],
            [bar.close_time for bar in bars],
            EncodedSeries(self.encoded.hidden[part], self.encoded.keys[part]),
            self.volatility[part],
            self._proposals[first] if first in self._made_here else None,
        )

    def assign(self, stretch: Stretch, findings: Promise | Findings | None) -> None:
        """What was cut out is found, or somebody works on it; ``None``: it waits for this process to have time."""
        self._coming[stretch.row] = stretch, findings
        self._uncut = max(self._uncut, stretch.end)

    def take(self, row: int) -> tuple[Stretch, Promise | Findings | None] | None:
        """The stretch that a bar lies in, where it was cut out, once. Nobody asks about bars before this one any more."""
        self._uncut = max(self._uncut, row)
        for first, (stretch, findings) in list(self._coming.items()):
            if stretch.end <= row:
                del self._coming[first]
            elif first <= row:
                del self._coming[first]
                return stretch, findings
        return None

    def waiting(self) -> Stretch | None:
        """One that waits for this process, its neighbours being proposed."""
        for stretch, findings in self._coming.values():
            if findings is None and stretch.block in self._proposals:
                return stretch
        return None

    def proposal(self, block: int) -> Proposal | None:
        """That of a block, where it was made and told of."""
        return self._proposals.get(block)

    def propose(self, block: int, proposal: Proposal, *, here: bool) -> None:
        """Take up the proposal of a block, made by this process or by another, and forget those of blocks long gone."""
        self._proposals[block] = proposal
        if here:
            self._made_here.add(block)
        if len(self._proposals) > _BLOCKS_KEPT:
            del self._proposals[min(self._proposals)]
