"""What the memory is worth: the same reader, asked with memories that lack something.

A control changes which moments are recalled, or whose outcomes they are said to have had, and nothing else. Every one keeps
the rule of visibility, also for outcomes that are dealt anew, so that no control knows more than the memory; but for the
one that breaks it on purpose and is called a leak.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np

from backtest.evaluation.folds import Fold
from backtest.evaluation.forecasts import Forecasts
from backtest.evaluation.panel import Panel
from memory_store import BankConfig, MemoryBank, Metric
from memory_store.records import Eviction
from strategies.bars import DAY_MS
from strategies.memory_transformer.dataset import Flags, Integers
from strategies.memory_transformer.retrieval import Lifetimes, NeighbourTable, VisibilityRule, causal_neighbours
from strategies.memory_transformer.span_memory import Rows
from strategies.outcomes import NEVER

SHIFT_DAYS: Final = 30
LADDER: Final = (0, 1_000, 8_000, 65_000)
"""Sizes of memory below its own."""
EVICTION_SIZE: Final = 8_000
"""Memory at which first in, first out is compared with importance: small enough that both must let go of most."""
HALF_LIFE_DAYS: Final = 365.0
LEAK: Final = "LEAK"


@dataclass(frozen=True, slots=True, eq=False)
class Recalled:
    """What a memory gives the rows that ask, best first, each ``[m, k]``."""

    found: Integers
    """Rows of the panel whose keys were found; 0 where ``mask`` is false."""
    outcomes: Integers
    """Rows of the panel whose outcomes they are said to have had: their own, but for controls."""
    mask: Flags
    rule: VisibilityRule
    """By which outcomes of other horizons are usable."""


Reader = Callable[[Integers, Recalled], Forecasts]
"""From rows that ask and what they recall to answers."""


class Remembering(NamedTuple):
    """A reader with the keys by which its memory is searched."""

    reader: Reader
    keys: Rows
    """``[n, d]`` of all rows of the panel, of length one."""
    neighbours: int


class Control(NamedTuple):
    """A memory that lacks something."""

    name: str
    recalled: Recalled


def recall(panel: Panel, fold: Fold, memory: Remembering) -> Recalled:
    """What the memory as it is gives: streaming, first in, first out, at its full size."""
    return _own(_search(panel, fold, memory, panel.rule), panel.rule)


def controls(panel: Panel, fold: Fold, memory: Remembering, recalled: Recalled, seed: int) -> Iterator[Control]:
    """All controls of a memory, in the order of the report, each made when it is asked for.

    Args:
        panel: all rows.
        fold: whose test rows ask.
        memory: reader and keys.
        recalled: from :func:`recall`.
        seed: of the dealing.
    """
    rows = fold.test
    generator = np.random.default_rng(seed)

    def with_outcomes(outcomes: Integers, known: Flags | None = None) -> Recalled:
        return replace(recalled, outcomes=outcomes, mask=recalled.mask if known is None else recalled.mask & known)

    def searched(rule: VisibilityRule, lifetimes: Lifetimes | None = None) -> Recalled:
        return _own(_search(panel, fold, memory, rule, lifetimes), rule)

    yield Control("shuffled outcomes", with_outcomes(_dealt(panel, rows, recalled, generator)))
    yield Control("random neighbours", _random(panel, rows, recalled, generator))
    for days in (-SHIFT_DAYS, SHIFT_DAYS):
        yield Control(f"outcomes shifted {days:+d} d", with_outcomes(*_shifted(panel, rows, recalled, days)))
    for size in LADDER:
        if size == 0:
            yield Control("memory 0", with_outcomes(recalled.outcomes, np.zeros_like(recalled.mask)))
        elif size < panel.rule.capacity:
            yield Control(f"memory {size:,}", searched(replace(panel.rule, capacity=size)))
    everything = replace(panel.rule, capacity=len(panel.symbol) + 1)
    if panel.rule.capacity < len(panel.symbol):
        yield Control("memory all", searched(everything))
    yield Control("frozen", searched(panel.rule, _frozen(panel, fold.boundary)))
    if len(panel.symbol) > EVICTION_SIZE:
        lifetimes = importance_lifetimes(panel, fold, memory, EVICTION_SIZE)
        yield Control(f"importance {EVICTION_SIZE:,}", searched(everything, lifetimes))
    yield Control(LEAK, searched(replace(panel.rule, immature=True)))


def importance_lifetimes(panel: Panel, fold: Fold, memory: Remembering, capacity: int) -> Lifetimes:
    """When every moment may be found in a memory that lets go of the least important first.

    The bank itself is run through all moments up to the end of the fold. Novelty is that among all visible moments;
    credit, which depends on decisions, is left out.
    """
    moments, primary = panel.moments, panel.rule.primary
    last = int(fold.test[-1])
    asking = np.flatnonzero(moments.has_key[: last + 1])
    nearest = causal_neighbours(memory.keys, moments, asking, panel.rule, 1)
    best = np.einsum("nd,nd->n", memory.keys[asking], memory.keys[nearest.rows[:, 0]])
    novelty = np.where(nearest.mask[:, 0], 1.0 - best, 0.0)
    config = BankConfig(
        capacity=capacity,
        dimension=1,
        horizons=(panel.horizon,),
        primary=0,
        embargo_ms=panel.rule.embargo_ms,
        metric=Metric.COSINE,
        eviction=Eviction.IMPORTANCE,
        half_life_ms=round(HALF_LIFE_DAYS * DAY_MS),
        outcome_scale=float(np.nanstd(panel.log_return[fold.train])),
    )
    bank = MemoryBank(config, encoder_version="evaluation")
    born, gone = np.full(len(panel.symbol), NEVER), np.full(len(panel.symbol), NEVER)
    born[asking] = panel.rule.visible_from(moments)[asking]
    settled = moments.settled[asking, primary]
    due = np.argsort(settled, kind="stable")
    place = 0
    for entry, (row, new) in enumerate(zip(asking.tolist(), novelty.tolist(), strict=True)):
        close = int(moments.close_time[row])
        while place < len(due) and settled[due[place]] <= close:
            known = int(due[place])
            bank.settle(known, 0, float(panel.log_return[asking[known]]), int(settled[known]))
            place += 1
        opened = int(panel.open_time[row])
        assert bank.append(_ONE, symbol=panel.symbols[panel.symbol[row]], bar_time=opened, novelty=new) == entry
        for leaving in bank.take_changes().evicted:
            # It left when this bar was appended, which is after this bar's own query.
            gone[asking[leaving]] = close + 1
    return Lifetimes(born, gone)


_ONE: Final = np.ones(1, dtype=np.float32)


def _own(table: NeighbourTable, rule: VisibilityRule) -> Recalled:
    return Recalled(table.rows, table.rows, table.mask, rule)


def _search(
    panel: Panel, fold: Fold, memory: Remembering, rule: VisibilityRule, lifetimes: Lifetimes | None = None
) -> NeighbourTable:
    return causal_neighbours(memory.keys, panel.moments, fold.test, rule, memory.neighbours, lifetimes=lifetimes)


def _frozen(panel: Panel, boundary: int) -> Lifetimes:
    """The memory as it was at the boundary, for ever."""
    moments = panel.moments
    appended = np.cumsum(moments.has_key) - 1
    held = moments.has_key & (moments.close_time <= boundary)
    oldest = int(held.sum()) - panel.rule.capacity
    stays = held & (panel.visible_from <= boundary) & (appended >= oldest)
    return Lifetimes(np.where(stays, panel.visible_from, NEVER), np.full(len(moments), NEVER))


class _Visible(NamedTuple):
    """Rows of one symbol, or of all, in the order in which they became visible."""

    rows: Integers
    times: Integers

    @classmethod
    def of(cls, panel: Panel, among: Integers) -> _Visible:
        known = among[panel.visible_from[among] < NEVER]
        order = known[np.argsort(panel.visible_from[known], kind="stable")]
        return cls(order, panel.visible_from[order])

    def draw(self, close_time: Integers, most: int, shape: tuple[int, int], generator: np.random.Generator) -> Integers:
        """``shape`` rows, each visible at ``[m]`` close times; the first row where none is."""
        count = np.searchsorted(self.times, close_time, side="right")
        kept = np.minimum(count, most)
        drawn = (count - kept)[:, None] + np.floor(generator.random(shape) * kept[:, None]).astype(np.int64)
        drawn_rows: Integers = self.rows[np.minimum(drawn, len(self.rows) - 1)]
        return drawn_rows


def _dealt(panel: Panel, rows: Integers, recalled: Recalled, generator: np.random.Generator) -> Integers:
    """For every neighbour a moment of the same symbol that is just as visible, drawn at random."""
    dealt = recalled.found.copy()
    close_time = panel.moments.close_time[rows]
    for number in range(len(panel.symbols)):
        visible = _Visible.of(panel, panel.rows_of(number))
        if len(visible.rows):
            drawn = visible.draw(close_time, panel.rule.capacity, recalled.found.shape, generator)
            dealt = np.where(panel.symbol[recalled.found] == number, drawn, dealt)
    return dealt


def _random(panel: Panel, rows: Integers, recalled: Recalled, generator: np.random.Generator) -> Recalled:
    """As many neighbours as were found, drawn at random from all that are visible."""
    visible = _Visible.of(panel, np.arange(len(panel.symbol)))
    shape = (len(rows), recalled.found.shape[1])
    drawn = visible.draw(panel.moments.close_time[rows], panel.rule.capacity, shape, generator)
    return replace(recalled, found=drawn, outcomes=drawn)


def _shifted(panel: Panel, rows: Integers, recalled: Recalled, days: int) -> tuple[Integers, Flags]:
    """For every neighbour the moment of its symbol some days later, and whether that is visible to the row."""
    shifted = np.zeros(len(panel.symbol), dtype=np.int64)
    exists = np.zeros(len(panel.symbol), dtype=np.bool_)
    for number in range(len(panel.symbols)):
        own = panel.rows_of(number)
        times = panel.open_time[own]
        wanted = times + days * DAY_MS
        place = np.minimum(np.searchsorted(times, wanted), len(own) - 1)
        shifted[own], exists[own] = own[place], times[place] == wanted
    outcomes = shifted[recalled.found]
    visible = panel.visible_from[outcomes] <= panel.moments.close_time[rows][:, None]
    return outcomes, exists[recalled.found] & visible
