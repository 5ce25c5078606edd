"""Neighbours of all bars of a training span at once, under the rule of visibility that trading obeys.

For every moment: the ``k`` most similar earlier moments whose primary outcome was known, and the embargo over, when it
closed. The rule goes by time, whichever symbol a moment belongs to, so a moment finds neither itself, nor those that
overlap with it, nor anything later.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from strategies.memory_transformer.dataset import Flags, Floats, Integers, Moments
from strategies.outcomes import NEVER

_CHUNK: Final = 128  # queries scored together
_TILE: Final = (
    4096  # columns per matrix product: so few that their scores are still in the cache when they are looked at
)
_BLOCK: Final = (
    64  # columns whose best score is taken first, so that the selection looks at few numbers; divides a tile
)
_HIDDEN: Final = float("-inf")


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
    """The ``k`` nearest visible moments of every query.

    Args:
        keys: ``[n, d]`` of all moments, of length one.
        moments: all moments of the span.
        queries: ``[m]`` rows that ask, increasing.
        rule: what they may see.
        k: neighbours wanted.
        lifetimes: of the moments; those of the rule by default.
    """
    visible_from = rule.visible_from(moments) if lifetimes is None else lifetimes.born
    gone = None if lifetimes is None else lifetimes.gone
    capacity = rule.capacity if lifetimes is None else len(moments)
    candidates = np.flatnonzero(visible_from < NEVER)
    rows = np.zeros((len(queries), k), dtype=np.int64)
    mask = np.zeros((len(queries), k), dtype=np.bool_)
    columns = _Columns.of(keys, moments, candidates, visible_from, capacity, gone)
    room = _Room.of(min(_CHUNK, len(queries)), len(candidates))
    for start in range(0, len(queries), _CHUNK):
        chunk = queries[start : start + _CHUNK]
        scores, peaks, first = columns.scores(keys[chunk], moments.close_time[chunk], room)
        values, places = _largest(scores, peaks, k)
        found = values.shape[1]
        seen = values.numpy() > _HIDDEN
        mask[start : start + len(chunk), :found] = seen
        rows[start : start + len(chunk), :found] = np.where(seen, candidates[np.where(seen, places + first, 0)], 0)
    return NeighbourTable(rows, mask)


@dataclass(frozen=True, slots=True, eq=False)
class _Columns:
    """The moments that are ever visible, in the order in which they were appended."""

    keys: Tensor
    close_time: Integers
    visible_from: Integers
    latest_visible: Integers
    """Running maximum of ``visible_from``: up to where everything is visible at some time."""
    number: Integers
    """How many moments were appended before each."""
    appended_times: Integers
    """Close times of all moments that are appended, visible or not."""
    capacity: int
    gone: Integers | None
    """When each can no longer be found; ``None`` where only the capacity decides."""

    @classmethod
    def of(
        cls,
        keys: npt.NDArray[np.float32],
        moments: Moments,
        candidates: Integers,
        visible_from: Integers,
        capacity: int,
        gone: Integers | None,
    ) -> _Columns:
        visible = visible_from[candidates]
        return cls(
            torch.from_numpy(keys[candidates]),
            moments.close_time[candidates],
            visible,
            np.maximum.accumulate(visible),
            np.cumsum(moments.has_key)[candidates] - 1,
            moments.close_time[moments.has_key],
            capacity,
            None if gone is None else gone[candidates],
        )

    def scores(self, queries: npt.NDArray[np.float32], close_time: Integers, room: _Room) -> tuple[Tensor, Tensor, int]:
        """How alike queries ``[c, d]`` and columns are.

        Args:
            queries: their keys.
            close_time: ``[c]`` when they close, increasing.
            room: for the results, which are valid until it is used again.

        Returns:
            Scores ``[c, columns]``, ``-inf`` where a query may not see a column; the largest of every whole block of
            ``_BLOCK`` columns; and the number of the first column.
        """
        # A moment is appended after the queries of its own close, so what a query can lose was appended before it.
        appended = np.searchsorted(self.appended_times, close_time, side="left")
        oldest = np.searchsorted(self.number, appended - self.capacity, side="left")
        first, last = int(oldest[0]), int(np.searchsorted(self.close_time, close_time[-1], side="left"))
        last = max(first, last)
        settled = int(np.searchsorted(self.latest_visible, close_time[0], side="right"))
        asked = torch.from_numpy(queries)
        scores, peaks = room.take(len(queries), last - first)
        for begin in range(first, last, _TILE):
            end = min(begin + _TILE, last)
            part = scores[:, begin - first : end - first]
            torch.mm(asked, self.keys[begin:end].T, out=part)
            if settled < end:
                after = max(settled, begin)
                hidden = self.visible_from[after:end] > close_time[:, None]
                part[:, after - begin :].masked_fill_(torch.from_numpy(hidden), _HIDDEN)
            if begin < oldest[-1]:
                evicted = np.arange(begin, min(end, int(oldest[-1]))) < oldest[:, None]
                part[:, : evicted.shape[1]].masked_fill_(torch.from_numpy(evicted), _HIDDEN)
            if self.gone is not None:
                gone = self.gone[begin:end] <= close_time[:, None]
                part.masked_fill_(torch.from_numpy(gone), _HIDDEN)
            whole = (end - begin) // _BLOCK
            place = (begin - first) // _BLOCK
            blocks = part[:, : whole * _BLOCK].view(len(queries), whole, _BLOCK)
            torch.amax(blocks, dim=2, out=peaks[:, place : place + whole])
        return scores, peaks, first


class _Room(NamedTuple):
    """Memory for scores that is used again and again: to be given new memory costs more than to fill it."""

    scores: Tensor
    peaks: Tensor

    @classmethod
    def of(cls, queries: int, columns: int) -> _Room:
        return cls(torch.empty(queries * columns), torch.empty(queries * (columns // _BLOCK)))

    def take(self, queries: int, columns: int) -> tuple[Tensor, Tensor]:
        """Scores ``[queries, columns]`` and the peaks of their whole blocks."""
        blocks = columns // _BLOCK
        return (
            self.scores[: queries * columns].view(queries, columns),
            self.peaks[: queries * blocks].view(queries, blocks),
        )


def _largest(scores: Tensor, peaks: Tensor, k: int) -> tuple[Tensor, npt.NDArray[np.int64]]:
    """The ``k`` largest of every row, or all where there are fewer: values and columns, largest first."""
    blocks = peaks.shape[1]
    if blocks <= 2 * k:
        values, places = torch.topk(scores, min(k, scores.shape[1]), dim=1)
        return values, places.numpy()
    # The k largest lie in the k blocks with the largest peaks, or behind the last whole block.
    whole = blocks * _BLOCK
    best = torch.topk(peaks, k, dim=1, sorted=False).indices
    within = scores[:, :whole].view(len(scores), blocks, _BLOCK).gather(1, best.unsqueeze(2).expand(-1, -1, _BLOCK))
    rest = torch.arange(whole, scores.shape[1]).expand(len(scores), -1)
    columns = torch.cat(((best.unsqueeze(2) * _BLOCK + torch.arange(_BLOCK)).flatten(1), rest), dim=1)
    values, places = torch.topk(torch.cat((within.flatten(1), scores[:, whole:]), dim=1), k, dim=1)
    return values, columns.gather(1, places).numpy()
