"""Which of many keys may be the nearest of many queries: a scan of keys that are rounded to whole numbers of one byte.

A product of such numbers takes a processor with the instructions for it a quarter of the time of one in float32. How far it is
off has a bound, so every nearest key is among those proposed, about three times as many as are wanted; who needs the scores
themselves takes them of these few.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from memory_store.index import scan_margin
from memory_store.shortlist import floor_below

TILE: Final = 4096
"""Keys of one product: so few that their scores are still in the cache when the best of them are taken."""
_BLOCK: Final = 16
"""Scores that share one maximum, so that few are looked at one by one; each block holds keys from all over its tile, because
keys that follow each other are alike."""
_JOINED: Final = 4
"""Blocks that share one where there are many."""
_MANY: Final = 64
"""Blocks for every neighbour wanted: with more, the k-th largest of joined blocks is hardly lower, and faster found."""
_MULTIPLE: Final = _BLOCK * _JOINED
_LARGEST: Final = 127.0
_SMALLEST: Final = 1e-30  # stands for the largest number of a key that is nothing but zeros

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Rows = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class RoundedKeys:
    """Keys in tiles, and how far they are from what they stand for."""

    tiles: Tensor
    """``[tiles, tile, padded]`` int8, or float32 where nothing is rounded; zeros after the last key and its last number."""
    step: float
    """What 1 stands for."""
    largest: float
    """Length of the longest key, rounded or not."""
    error: float
    """Largest distance of a key from what stands for it."""

    @classmethod
    def of(cls, keys: Rows, *, rounded: bool) -> RoundedKeys:
        """Keys ``[n, d]``, rounded to whole numbers of one byte or as they are."""
        count, dimension = keys.shape
        width = min(TILE, max(1, -(-count // _MULTIPLE)) * _MULTIPLE)
        rows = max(1, -(-count // width)) * width
        tiles = torch.zeros((rows, _padded(dimension)), dtype=torch.int8 if rounded else torch.float32)
        step, error = 1.0, 0.0
        if rounded:
            step = max(float(np.abs(keys).max(initial=0.0)), _SMALLEST) / _LARGEST
            numbers = np.rint(keys / np.float32(step))
            error = _longest(keys - numbers.astype(np.float64) * step)
            tiles[:count, :dimension] = torch.from_numpy(numbers.astype(np.int8))
        else:
            tiles[:count, :dimension] = torch.from_numpy(keys)
        return cls(tiles.view(-1, width, tiles.shape[1]), step, _longest(keys.astype(np.float64)) + error, error)

    @property
    def tile(self) -> int:
        """Keys of a tile."""
        return self.tiles.shape[1]

    def queries(self, queries: Rows) -> tuple[Tensor, Floats]:
        """Queries ``[c, d]`` as they are multiplied, ``[c, padded]``, and how much lower than the k-th largest product that of
        one of the ``k`` nearest keys may be, ``[c]``.

        With ``q = q' + e`` and ``x = x' + f``, where ``q'`` and ``x'`` are what is multiplied, ``q.x - q'.x' = e.x' + q.f``
        is at most ``|e| |x'| + |q| |f|``, whichever key it is. The k-th largest may be too high by as much as one of the
        nearest is too low, and all by what float32 rounds.
        """
        wide = queries.astype(np.float64)
        lengths = np.linalg.norm(wide, axis=1)
        rounding = scan_margin(queries.shape[1], self.largest, lengths)
        padded = torch.zeros((len(queries), self.tiles.shape[2]), dtype=self.tiles.dtype)
        if self.tiles.dtype == torch.float32:
            padded[:, : queries.shape[1]] = torch.from_numpy(queries)
            return padded, rounding
        steps = np.maximum(np.abs(wide).max(axis=1), _SMALLEST) / _LARGEST
        numbers = np.rint(wide / steps[:, None])
        errors = np.linalg.norm(wide - numbers * steps[:, None], axis=1)
        margin = 2.0 * (errors * self.largest + lengths * self.error) + rounding
        padded[:, : queries.shape[1]] = torch.from_numpy(numbers.astype(np.int8))
        return padded, margin / (steps * self.step)


class Scan:
    """Scans of tiles, one after another in the same memory: to be given new memory costs more than to fill it.

    Args:
        keys: what is searched.
        queries: so many at once, at most.
    """

    def __init__(self, keys: RoundedKeys, queries: int) -> None:
        self._keys = keys
        self.tiles = len(keys.tiles)
        kind = torch.int32 if keys.tiles.dtype == torch.int8 else torch.float32
        self.hidden = float(torch.iinfo(kind).min) if kind == torch.int32 else float("-inf")
        """Score of a key that must not be found."""
        size = queries * self.tiles * keys.tile
        self._scores = torch.empty(size, dtype=kind)
        self._peaks = torch.empty(size // _BLOCK, dtype=kind)

    def near(
        self, queries: Rows, first: int, last: int, k: int, hide: Callable[[Tensor, int], None]
    ) -> tuple[Integers, Integers]:
        """Pairs of a query and a key, among which are those of every query and its ``k`` nearest keys.

        The k-th largest maximum of disjoint blocks has at least ``k`` scores at or above it, so none of the nearest is below it
        by more than the margin.

        Args:
            queries: ``[c, d]``.
            first: tile.
            last: tile after the last, above ``first``.
            k: neighbours wanted.
            hide: puts :attr:`hidden` in the place of scores ``[c, tile]`` of keys from some number on that queries must not
                find.

        Returns:
            Numbers of queries, and of keys, ``[m]`` each, in the order of queries, then of keys.
        """
        numbers, margin = self._keys.queries(queries)
        count, tile, tiles = len(queries), self._keys.tile, last - first
        scores = self._scores[: tiles * count * tile].view(tiles, count, tile)
        blocks = tile // _BLOCK
        peaks = self._peaks[: count * tiles * blocks].view(count, tiles, blocks)
        for place in range(tiles):
            number, part = first + place, scores[place]
            self._multiply(numbers, number, part)
            hide(part, number * tile)
            torch.amax(part.view(count, _BLOCK, blocks), dim=1, out=peaks[:, place])
        floor = self._floor(peaks, margin, k)
        rows, places, columns = _divided(np.flatnonzero(peaks.numpy() >= floor[:, None, None]), tiles, blocks)
        starts = (places * count + rows) * tile + columns
        looked = self._scores.numpy().take(starts[:, None] + np.arange(_BLOCK) * blocks)
        hits, depths = np.divmod(np.flatnonzero(looked >= floor[rows, None]), _BLOCK)
        found = (first + places[hits]) * tile + depths * blocks + columns[hits]
        # One number for each pair, because to sort one is several times faster than to sort by two.
        pairs = np.sort(rows[hits] * (last * tile) + found)
        asked, keys = np.divmod(pairs, last * tile)
        return asked, keys

    def _multiply(self, numbers: Tensor, tile: int, out: Tensor) -> None:
        other = self._keys.tiles[tile].T
        if out.dtype == torch.int32:
            torch._int_mm(numbers, other, out=out)
        else:
            torch.mm(numbers, other, out=out)

    def _floor(self, peaks: Tensor, margin: Floats, k: int) -> npt.NDArray[Any]:
        """``[c]`` lowest score worth a second look, above that of a hidden key, in the numbers of the scores."""
        rows, tiles, blocks = peaks.shape
        best = peaks
        if tiles * blocks >= _MANY * k:
            best = torch.amax(peaks.view(rows, tiles, _JOINED, -1), dim=2)
        best = best.flatten(1)
        count = best.shape[1]
        if count < k:
            kth = np.full(len(best), self.hidden)
        else:
            kth = np.partition(best.numpy(), count - k, axis=1)[:, count - k].astype(np.float64)
        if peaks.dtype == torch.int32:
            return np.maximum(np.floor(kth - margin), self.hidden + 1.0).astype(np.int32)
        return floor_below(kth, margin)


def _padded(dimension: int) -> int:
    """Numbers of a key with zeros after them, whole fours: bytes are multiplied by four, and those of keys of a single one
    torch 2.13 multiplies wrongly."""
    return -(-dimension // 4) * 4


def _longest(rows: Floats) -> float:
    """Length of the longest of rows ``[n, d]``."""
    return float(np.sqrt(np.einsum("ij,ij->i", rows, rows).max(initial=0.0)))


def _divided(places: Integers, tiles: int, blocks: int) -> tuple[Integers, Integers, Integers]:
    """Row, tile and block of places in an array ``[rows, tiles, blocks]``."""
    joined, columns = np.divmod(places, blocks)
    rows, numbers = np.divmod(joined, tiles)
    return rows, numbers, columns
