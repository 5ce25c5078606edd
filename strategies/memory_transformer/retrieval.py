"""Neighbours of all bars of a training span at once, under the rule of visibility that trading obeys.

For every moment: the ``k`` most similar earlier moments whose primary outcome was known, and the embargo over, when it
closed. The rule goes by time, whichever symbol a moment belongs to, so a moment finds neither itself, nor those that
overlap with it, nor anything later.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from memory_store.bound_scan import Sight
from memory_store.index import rescore, scan_margin
from memory_store.machine_code import fixed
from memory_store.pruned import ALWAYS, BULK_GATHER_COST, NOTHING_HIDDEN, QUERIES, TurnedKeys
from memory_store.ranking import NOBODY, Best, add_pairs
from strategies.memory_transformer.dataset import Flags, Floats, Integers, Moments
from strategies.outcomes import NEVER


@dataclass(frozen=True, slots=True, eq=False)
class NeighbourTable:
    """Neighbours of some moments, best first."""

    rows: Integers
    """``[n, k]`` rows of the moments table; 0 where ``mask`` is false."""
    mask: Flags
    """``[n, k]``."""


@dataclass(frozen=True, slots=True, eq=False)
class VisibilityRule:
    """When a moment may be retrieved.

    Args:
        primary: index of the horizon whose outcome makes a moment visible.
        embargo_ms: time that must pass after that.
        capacity: moments that the memory holds; the oldest leaves when one more is appended.
        immature: show every moment from its own close on, with outcomes that nobody could know: the leak that the rule
            exists to prevent, made on purpose so that an evaluation can show its size. Nothing that trades sets it.
    """

    primary: int
    embargo_ms: int
    capacity: int
    immature: bool = False

    def visible_from(self, moments: Moments) -> Integers:
        """``[n]`` when every moment becomes visible, ``NEVER`` without a key or an outcome."""
        settled = moments.settled[:, self.primary]
        known = moments.has_key & (settled < NEVER)
        if self.immature:
            return np.where(known, moments.close_time, NEVER)
        return np.where(known, settled + np.where(known, self.embargo_ms, 0), NEVER)

    def lifetimes(self, moments: Moments) -> Lifetimes:
        """What the rule means for every moment, its capacity counted over all of them."""
        appended = np.flatnonzero(moments.has_key)
        gone = np.full(len(moments), NEVER)
        # The oldest leaves when one more is appended, which is after the queries of that close.
        leaving = appended[: max(0, len(appended) - self.capacity)]
        gone[leaving] = moments.close_time[appended[self.capacity :]] + 1
        return Lifetimes(self.visible_from(moments), gone)

    def usable_outcomes(
        self, moments: Moments, rows: Integers, close_time: Integers, outcomes: Floats | None = None
    ) -> Floats:
        """Outcomes of neighbours ``[n, k]`` of moments that close at ``[n]``, nan where not yet usable then.

        ``outcomes`` stands in for those of the moments, with the times at which the moments' own became known.
        """
        settled = moments.settled[rows]
        usable = settled < NEVER
        if not self.immature:
            usable &= settled <= close_time[:, None, None] - self.embargo_ms
        return np.where(usable, (moments.outcomes if outcomes is None else outcomes)[rows], np.nan)


@dataclass(frozen=True, slots=True, eq=False)
class Lifetimes:
    """When every moment may be found, in place of a rule's capacity: what another way of making room leaves.

    A moment is found by queries that close from ``born`` on and before ``gone``.
    """

    born: Integers
    """``[n]`` milliseconds, ``NEVER`` for those never found."""
    gone: Integers
    """``[n]`` milliseconds, ``NEVER`` for those that stay."""


def causal_neighbours(
    keys: npt.NDArray[np.float32],
    moments: Moments,
    queries: Integers,
    rule: VisibilityRule,
    k: int,
    *,
    lifetimes: Lifetimes | None = None,
) -> NeighbourTable:
    """The ``k`` nearest visible moments of every query, equally near ones in the order in which they were appended.

    A scan proposes, and ``memory_store.ranking`` decides, as it does in a bank.

    Args:
        keys: ``[n, d]`` of all moments.
        moments: all moments of the span.
        queries: ``[m]`` rows that ask, increasing.
        rule: what they may see.
        k: neighbours wanted.
        lifetimes: of the moments; those of the rule by default.
    """
    rows = np.zeros((len(queries), k), dtype=np.int64)
    mask = np.zeros((len(queries), k), dtype=np.bool_)
    columns = _Columns.of(moments, rule, lifetimes)
    if not len(columns.rows):
        return NeighbourTable(rows, mask)
    found_in = keys[columns.rows]
    turned = TurnedKeys.fitted(found_in, len(found_in), BULK_GATHER_COST)
    longest = float(np.sqrt(rescore(found_in, found_in).max()))
    numbers = fixed(np.arange(len(found_in)))
    for start in range(0, len(queries), QUERIES):
        chunk = queries[start : start + QUERIES]
        closed, asking = moments.close_time[chunk], keys[chunk]
        sight, oldest = columns.seen_at(closed)
        if sight.first >= sight.last:
            continue
        margin = scan_margin(keys.shape[1], longest, np.sqrt(rescore(asking, asking)))
        near = turned.near(asking, k, margin, sight, times=closed, oldest=oldest)
        best = Best.none(len(chunk), k)
        add_pairs(fixed(found_in), numbers, fixed(asking), fixed(near.rows), fixed(near.slots), best)
        mask[start : start + len(chunk)] = present = best.ids != NOBODY
        rows[start : start + len(chunk)] = np.where(present, columns.rows[best.ids], 0)
    return NeighbourTable(rows, mask)


@dataclass(frozen=True, slots=True, eq=False)
class _Columns:
    """The moments that are ever visible, in the order in which they were appended."""

    rows: Integers
    """In the table of moments."""
    close_time: Integers
    visible_from: Integers
    number: Integers
    """How many moments were appended before each."""
    appended_times: Integers
    """Close times of all moments that are appended, visible or not."""
    capacity: int
    gone: Integers | None
    """When each can no longer be found; ``None`` where only the capacity decides."""

    @classmethod
    def of(cls, moments: Moments, rule: VisibilityRule, lifetimes: Lifetimes | None) -> _Columns:
        visible_from = rule.visible_from(moments) if lifetimes is None else lifetimes.born
        rows = np.flatnonzero(visible_from < NEVER)
        visible = visible_from[rows]
        return cls(
            rows,
            moments.close_time[rows],
            visible,
            np.cumsum(moments.has_key)[rows] - 1,
            moments.close_time[moments.has_key],
            rule.capacity if lifetimes is None else len(moments),
            None if lifetimes is None else lifetimes.gone[rows],
        )

    def seen_at(self, close_time: Integers) -> tuple[Sight, Integers]:
        """What queries that close at ``[c]``, increasing, may see, and the first column that each of them does."""
        # What a query can lose was appended before it.
        appended = np.searchsorted(self.appended_times, close_time, side="left")
        oldest = np.searchsorted(self.number, appended - self.capacity, side="left")
        last = int(np.searchsorted(self.close_time, close_time[-1], side="left"))
        until = ALWAYS if self.gone is None else self.gone
        return Sight(int(oldest[0]), last, NOTHING_HIDDEN, self.visible_from, until), oldest
