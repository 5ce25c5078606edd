"""Which of many keys may be the nearest of many queries, each of which sees others of them.

Keys are scanned as in ``memory_store.pruned``: turned so that few coordinates tell most of a product, these alone, and a bound
for the rest. Where the processor has instructions for it they are whole numbers of one byte (``memory_store.codes``). Of the
keys that these let through, about twice as many as are wanted, float32 scores leave all of the nearest and few others.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from memory_store.codes import Codes
from memory_store.index import rescore, scan_margin
from memory_store.pruned import BULK_GATHER_COST
from memory_store.rotation import fit_basis, of_length_one, turned, underflow
from memory_store.shortlist import floor_below, kth_of_rows

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
_SEEDS: Final = 2
"""Keys scored in full, for every neighbour wanted, to learn how good the last of them is at least."""

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Rows = npt.NDArray[np.float32]


class Asked(NamedTuple):
    """Queries as they are multiplied."""

    numbers: Tensor
    """``[c, numbers of a key]``."""
    margin: Floats
    """``[c]`` what float32 rounds: of a product and of a score taken of whole keys, or of two such scores."""
    floor: Callable[[Floats], npt.NDArray[Any]]
    """From scores ``[c]`` that ``k`` keys are known to have, what a product must reach for its key to be looked at again."""


class TurnedKeys:
    """Keys, and in tiles what is scanned of them.

    Args:
        keys: ``[n, d]``, one or more.
        rounded: whether to scan bytes.
    """

    def __init__(self, keys: Rows, *, rounded: bool) -> None:
        count, dimension = keys.shape
        width = min(TILE, -(-count // _MULTIPLE) * _MULTIPLE)
        self.rows: Rows = np.zeros((-(-count // width) * width, dimension), dtype=np.float32)
        """``[tiles * tile, d]``, zeros after the last."""
        self.rows[:count] = keys
        self._largest = float(np.sqrt(rescore(keys, keys).max()))
        self._codes = Codes(self.rows, count) if rounded else None
        if self._codes is None:
            self._basis = fit_basis(keys, BULK_GATHER_COST, first=3)
            parts = [turned(self.rows[start : start + TILE], self._basis) for start in range(0, len(self.rows), TILE)]
            numbers: npt.NDArray[Any] = np.concatenate(parts)
        else:
            numbers = self._codes.numbers
        self.tiles = torch.from_numpy(numbers).view(-1, width, numbers.shape[1])
        """``[tiles, tile, numbers of a key]``, int8 or float32."""

    @property
    def tile(self) -> int:
        """Keys of a tile."""
        return self.tiles.shape[1]

    def asked(self, queries: Rows) -> Asked:
        """Queries ``[c, d]`` as they are multiplied."""
        # A product may have one number more than a key.
        margin = scan_margin(queries.shape[1] + 1, self._largest, np.sqrt(rescore(queries, queries)))
        if self._codes is not None:
            asked = self._codes.asked(queries)
            return Asked(torch.from_numpy(asked.numbers), margin, partial(asked.floor, margin=margin))
        units, length = of_length_one(queries)
        slack = underflow(self._basis.shape[1])
        numbers = torch.from_numpy(turned(units, self._basis))
        return Asked(numbers, margin, lambda known: floor_below((known - margin) / length, slack))


class Scan:
    """Scans of tiles, one after another in the same memory: to be given new memory costs more than to fill it.

    Args:
        keys: what is searched.
        queries: so many at once, at most.
    """

    def __init__(self, keys: TurnedKeys, queries: int) -> None:
        self._keys = keys
        self.tiles = len(keys.tiles)
        kind = torch.int32 if keys.tiles.dtype == torch.int8 else torch.float32
        self.hidden = float(torch.iinfo(kind).min) if kind == torch.int32 else float("-inf")
        """Score of a key that must not be found."""
        self._lowest = torch.iinfo(kind).min + 1 if kind == torch.int32 else torch.finfo(kind).min
        size = queries * self.tiles * keys.tile
        self._scores = torch.empty(size, dtype=kind)
        self._peaks = torch.empty(size // _BLOCK, dtype=kind)

    def near(
        self, queries: Rows, first: int, last: int, k: int, hide: Callable[[Tensor, int], None]
    ) -> tuple[Integers, Integers]:
        """Pairs of a query and a key, among which are those of every query and its ``k`` nearest keys.

        None is missed: products bound scores from above, and only those keys are left out whose bound is below the score that
        ``k`` others are known to have. These are known by float32 scores, whose error the margin covers.

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
        asked = self._keys.asked(queries)
        scanned = self._scan(asked.numbers, first, last, hide)
        seeds, places = scanned.reaching(self._high(scanned.peaks, _SEEDS * k))
        known = kth_of_rows(seeds, self._scores_of(queries, seeds, places), len(queries), k, -np.inf)
        rows, places = scanned.reaching(asked.floor(known))
        near = self._scores_of(queries, rows, places) >= floor_below(known, asked.margin).take(rows)
        # One number for each pair, because to sort one is several times faster than to sort by two.
        size = last * self._keys.tile
        pairs = np.sort(rows[near] * size + places[near])
        found, keys = np.divmod(pairs, size)
        return found, keys

    def _scan(self, numbers: Tensor, first: int, last: int, hide: Callable[[Tensor, int], None]) -> _Scanned:
        """All products of some tiles."""
        count, tile, tiles = len(numbers), self._keys.tile, last - first
        scores = self._scores[: tiles * count * tile].view(tiles, count, tile)
        blocks = tile // _BLOCK
        peaks = self._peaks[: count * tiles * blocks].view(count, tiles, blocks)
        for place in range(tiles):
            number, part = first + place, scores[place]
            self._multiply(numbers, number, part)
            hide(part, number * tile)
            torch.amax(part.view(count, _BLOCK, blocks), dim=1, out=peaks[:, place])
        return _Scanned(first, scores, peaks)

    def _multiply(self, numbers: Tensor, tile: int, out: Tensor) -> None:
        other = self._keys.tiles[tile].T
        if out.dtype == torch.int32:
            torch._int_mm(numbers, other, out=out)
        else:
            torch.mm(numbers, other, out=out)

    def _scores_of(self, queries: Rows, rows: Integers, places: Integers) -> Rows:
        """Float32 scores ``[m]`` of pairs of a query and a key."""
        scores: Rows = np.einsum("ij,ij->i", self._keys.rows.take(places, axis=0), queries.take(rows, axis=0))
        return scores

    def _high(self, peaks: Tensor, count: int) -> npt.NDArray[Any]:
        """``[c]`` a product that at least ``count`` keys of every query reach, and not many more; where there are too few, one
        that all reach but the hidden."""
        rows, tiles, blocks = peaks.shape
        if tiles * blocks >= _MANY * count:
            peaks = torch.amax(peaks.view(rows, tiles, _JOINED, -1), dim=2)
        best = peaks.flatten(1).numpy()
        place = best.shape[1] - count
        if place < 0:
            return np.full(rows, self._lowest, dtype=best.dtype)
        high: npt.NDArray[Any] = np.maximum(np.partition(best, place, axis=1)[:, place], self._lowest)
        return high


class _Scanned(NamedTuple):
    """Products of some tiles."""

    first: int
    """The first of them."""
    scores: Tensor
    """``[tiles, c, tile]``."""
    peaks: Tensor
    """``[c, tiles, blocks]`` their maxima."""

    def reaching(self, floor: npt.NDArray[Any]) -> tuple[Integers, Integers]:
        """Numbers of queries, in their order, and of keys, of all products that reach ``floor``, ``[c]``."""
        tiles, count, tile = self.scores.shape
        blocks = tile // _BLOCK
        high = np.flatnonzero(self.peaks.numpy() >= floor[:, None, None])
        joined, columns = np.divmod(high, blocks)
        rows, places = np.divmod(joined, tiles)
        starts = (places * count + rows) * tile + columns
        looked = self.scores.numpy().reshape(-1).take(starts[:, None] + np.arange(_BLOCK) * blocks)
        hits, depths = np.divmod(np.flatnonzero(looked >= floor[rows, None]), _BLOCK)
        return rows[hits], (self.first + places[hits]) * tile + depths * blocks + columns[hits]
