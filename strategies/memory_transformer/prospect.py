"""Bars that a replay is going to show, and what was found out about them before they came."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from memory_store import Proposal, Terms
from memory_store.helper import Promise
from strategies.bars import Bar
from strategies.base import Neighbour
from strategies.memory_transformer.forecaster import BarForecast
from strategies.memory_transformer.tile_kernel import EncodedSeries
from strategies.readout import MemoryView
from strategies.recorder import Recall


class Appraisal(NamedTuple):
    """Forecast, memory, and what they rest on."""

    visible: int
    """Entries that the bar could choose its neighbours from."""
    forecast: BarForecast
    view: MemoryView
    neighbours: tuple[Neighbour, ...]
    recall: Recall


class Stretch(NamedTuple):
    """Consecutive bars of a prospect, and all that it takes to appraise them: a task for whoever has the memory."""

    as_of: int
    """When it was cut out, milliseconds: what the memory knows by then, it may know."""
    row: int
    """Place of the first bar in the prospect."""
    ordinal: int
    """Its absolute number."""
    opened: Sequence[int]
    """``[n]`` open times."""
    closed: Sequence[int]
    """``[n]`` close times."""
    encoded: EncodedSeries
    volatility: Sequence[float]
    """``[n]`` trailing volatility, per bar."""

    @property
    def end(self) -> int:
        """Place in the prospect of the bar after it."""
        return self.row + len(self.opened)


class Findings(NamedTuple):
    """What was found out about a stretch."""

    proposal: Proposal
    first: int
    """Place in the stretch of the first bar that is appraised."""
    terms: Terms | None
    """On which the appraisals hold; ``None`` where there are none."""
    appraisals: Sequence[Appraisal]


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
        self._coming: dict[int, tuple[Stretch, Promise | Findings]] = {}
        """By place of the first bar."""
        self._uncut = 0

    def cut(self, size: int, as_of: int) -> Stretch | None:
        """The next bars that nobody works on, as many or as are left; ``None`` at the end. They stay free until ``assign``."""
        row = self._uncut
        bars, part = self.bars[row : row + size], slice(row, row + size)
        if not bars:
            return None
        return Stretch(
            as_of,
            row,
            self.first_ordinal + row,
            [bar.open_time for bar in bars],
            [bar.close_time for bar in bars],
            EncodedSeries(self.encoded.hidden[part], self.encoded.keys[part]),
            self.volatility[part],
        )

    def assign(self, stretch: Stretch, findings: Promise | Findings | None = None) -> None:
        """Somebody works on what was cut out last; ``None``: whoever asks, right now."""
        if findings is not None:
            self._coming[stretch.row] = stretch, findings
        self._uncut = stretch.end

    def take(self, row: int) -> tuple[Stretch, Promise | Findings] | None:
        """The stretch that begins with a bar, where somebody worked on it, once."""
        return self._coming.pop(row, None)
