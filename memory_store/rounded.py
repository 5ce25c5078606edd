"""Exact nearest neighbours of many queries by whole numbers of one byte, where something multiplies these fast.

The same bound as in ``memory_store.pruned``, in more directions and rounded: a product of bytes takes a processor with the
instructions for it less than half the time of one in float32. Keys are scanned in tiles, whose scores are looked through
while they are still in the cache. What a score has to reach is learned from a few tiles, and again on the way.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple, Protocol

import numpy as np

from memory_store.codes import Asked, Bytes, Codes, Products
from memory_store.index import BLOCK, Candidates, candidates, reaching
from memory_store.pruned import WORTHWHILE
from memory_store.records import BoolArray, IntArray, KeyArray, ScoreArray
from memory_store.shortlist import floor_below, kth_of_rows

TILE: Final = 4096
"""Keys of one product."""
_DEPTH: Final = 8
"""Products that share one maximum, each from another part of its tile: keys that follow each other are alike."""
_QUERIES: Final = 144
"""Queries scanned together, at most."""
_SAMPLE: Final = 3
"""Tiles from which it is first learned how good the k-th best is at least."""
_AGAIN: Final = 8
"""Tiles after which it is learned once more."""
_SPREAD: Final = 5
"""Parts of the bank that tiles are taken from in turn: what is alike lies together in time."""
_SEEDS: Final = 64
"""Keys scored in full to learn it."""
_HIDDEN: Final = np.iinfo(np.int32).min
_LOWEST: Final = _HIDDEN + 1
_HIGHEST: Final = np.iinfo(np.int32).max


class ByteArithmetic(Protocol):
    """What a library can do with bytes faster than NumPy, exactly."""

    def multiply(self, queries: Bytes, keys: Bytes, out: Products) -> None:
        """Put the inner products of rows ``[n, width]`` and ``[m, width]`` into ``[n, m]``; the width is that of ``Codes``."""

    def maxima(self, products: Products, out: Products) -> None:
        """Put the maxima of ``[n, depth, count]`` over the depth into ``[n, count]``."""


class RoundedIndex:
    """The slots of a bank, scanned by a few rotated directions of one byte each.

    Codes are derived from the keys, and anew when the number of writes since equals that of the keys they were derived from;
    they decide the speed, never the answer. Memory: a byte per slot and direction.

    Args:
        keys: ``[slots, d]``, ``slots`` a multiple of ``BLOCK``, owned by the caller, who says what changes in it.
        arithmetic: of bytes.
        worthwhile: slots below which all keys are scanned in full.
    """

    __slots__ = ("_arithmetic", "_changed", "_codes", "_keys", "_one_at_a_time", "_refit_after", "_room", "_worthwhile")

    def __init__(self, keys: KeyArray, arithmetic: ByteArithmetic, *, worthwhile: int = WORTHWHILE) -> None:
        self._keys = keys
        self._arithmetic = arithmetic
        self._worthwhile = worthwhile
        self._codes: Codes | None = None
        self._changed: list[int] = []
        self._refit_after = 0
        self._room: Products = np.empty(0, dtype=np.int32)
        """For products: to be given new memory again and again costs more than to fill it."""
        self._one_at_a_time = threading.Lock()

    @property
    def directions(self) -> int:
        """Rotated directions scanned; 0 while the bank is too small for a rotation to pay."""
        return 0 if self._codes is None else self._codes.directions

    def write(self, slot: int) -> None:
        """Take note that the key of a slot has changed. The work is done by the next search."""
        if self._codes is None:
            return
        self._changed.append(slot)
        if len(self._changed) >= self._refit_after:
            self._codes = None
            self._changed.clear()

    def search_of_many(
        self, hidden: BoolArray, queries: KeyArray, k: int, margin: ScoreArray, *, give_up: int
    ) -> Callable[[], Candidates]:
        """For every query, slots among which its ``k`` nearest are; see ``PrunedIndex.search_of_many``.

        None is missed: products bound scores from above, see ``Codes``. Float64 steps on the way err by parts of ``u**2`` of
        ``|q| |x|``; half of ``margin`` covers them many times. The k-th best is known by float32 scores, whose error the
        other half covers.

        Args:
            hidden: ``[size]``, True where a slot must not be found; the slots scanned, a multiple of ``BLOCK``.
            queries: ``[n, d]``.
            k: neighbours wanted.
            margin: ``[n]`` from ``scan_margin``.
            give_up: leave out queries with more slots to look at than this.
        """
        size = len(hidden)
        if size < self._worthwhile or 8 * k * BLOCK > size:
            return partial(candidates, self._keys[:size], hidden, queries, k, margin, give_up=give_up)
        return partial(self._search, self._follow(size), hidden, queries, k, margin, give_up)

    def _search(
        self, codes: Codes, hidden: BoolArray, queries: KeyArray, k: int, margin: ScoreArray, give_up: int
    ) -> Candidates:
        parts = []
        with self._one_at_a_time:
            for start in range(0, len(queries), _QUERIES):
                part = slice(start, start + _QUERIES)
                asked = codes.asked(queries[part])
                room = self._room_for(len(asked.numbers))
                scan = _Scan(self._arithmetic, self._keys, codes.numbers[: len(hidden)], hidden, room)
                rows, slots, complete = scan.candidates(queries[part], asked, k, margin[part], give_up)
                parts.append((rows + start, slots, complete))
        return Candidates(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def _room_for(self, queries: int) -> Products:
        """Room for the products of so many queries with as many tiles as are kept, ``[tiles, n * tile]``."""
        size = _SAMPLE * queries * TILE
        if len(self._room) < size:
            self._room = np.empty(size, dtype=np.int32)
        return self._room[:size].reshape(_SAMPLE, -1)

    def _follow(self, size: int) -> Codes:
        """Codes with all changes taken in."""
        if self._codes is None:
            self._codes, self._refit_after = Codes(self._keys, size), size
        elif self._changed:
            self._refit_after -= len(self._changed)
            self._codes.write(np.array(self._changed))
            self._changed.clear()
        return self._codes


class _Found(NamedTuple):
    """Keys whose products are high, ``[m]`` each, in the order of rows."""

    rows: IntArray
    """Which query."""
    slots: IntArray
    products: Products

    @classmethod
    def together(cls, parts: list[_Found]) -> _Found:
        rows, slots, products = (np.concatenate(column) for column in zip(*parts, strict=True))
        order = np.argsort(rows.astype(np.int16), kind="stable")  # short numbers are sorted in one pass
        return cls(rows.take(order), slots.take(order), products.take(order))

    def reaching(self, floor: Products) -> _Found:
        """Those whose product reaches ``floor``, ``[n]``."""
        kept = np.flatnonzero(self.products >= floor.take(self.rows))
        return _Found(self.rows.take(kept), self.slots.take(kept), self.products.take(kept))


class _Tile(NamedTuple):
    """What a tile gave."""

    start: int
    """Its first slot."""
    products: Products
    """``[n, depth, count]``."""
    peaks: Products
    """``[n, count]`` maxima over the depth."""

    def reaching(self, floor: Products) -> _Found:
        """Its keys whose product reaches ``floor``, ``[n]``."""
        rows, places, products = reaching(self.products, self.peaks, floor)
        return _Found(rows, places + self.start, products)


class _Scan:
    """One scan for a few queries.

    Args:
        arithmetic: of bytes.
        keys: ``[slots, d]``.
        numbers: ``[size, width]`` their codes.
        hidden: ``[size]``.
        room: ``[tiles, n * tile]`` for the products of so many tiles.
    """

    def __init__(
        self,
        arithmetic: ByteArithmetic,
        keys: KeyArray,
        numbers: Bytes,
        hidden: BoolArray,
        room: Products,
    ) -> None:
        self._arithmetic = arithmetic
        self._keys = keys
        self._numbers = numbers
        self._hidden = hidden
        self._room = room

    def candidates(
        self, queries: KeyArray, asked: Asked, k: int, margin: ScoreArray, give_up: int
    ) -> tuple[IntArray, IntArray, BoolArray]:
        """Row and slot of the candidates of every query, and which queries were not given up.

        Args:
            queries: ``[n, d]``.
            asked: the same as they are multiplied.
            k: neighbours wanted.
            margin: ``[n]``.
            give_up: see ``RoundedIndex.search_of_many``.
        """
        count = len(queries)
        seeds = max(_SEEDS, 2 * k)
        seen, known = np.zeros(count, dtype=np.int64), np.full(count, -np.inf)

        def scores_of(found: _Found) -> KeyArray:
            scores: KeyArray = np.einsum(
                "ij,ij->i", self._keys.take(found.slots, axis=0), queries.take(found.rows, axis=0)
            )
            return scores

        def floor_by(found: _Found) -> Products:
            """What a product must reach, by what is known of the best found."""
            high = np.maximum(kth_of_rows(found.rows, found.products, count, seeds, _HIDDEN), _LOWEST)
            best = found.reaching(high)
            np.maximum(known, kth_of_rows(best.rows, scores_of(best), count, k, -np.inf), out=known)
            return asked.floor(known, margin)

        def note(found: _Found, floor: Products) -> _Found:
            """Count what was found, and ask no more for what has too much."""
            np.add(seen, np.bincount(found.rows, minlength=count), out=seen)
            floor[seen > give_up] = _HIGHEST
            return found

        starts = _in_turn(range(0, len(self._numbers), TILE))
        sample = [self._tile(start, asked.numbers, place) for place, start in enumerate(starts[:_SAMPLE])]
        # Of pairs: half as many to look at, and none left out, as slots may belong to two symbols in turn.
        peaks = np.concatenate([np.maximum(tile.peaks[:, ::2], tile.peaks[:, 1::2]) for tile in sample], axis=1)
        fewest = min(seeds, peaks.shape[1])
        floor = np.maximum(np.partition(peaks, -fewest, axis=1)[:, -fewest], _LOWEST)
        first = note(_Found.together([tile.reaching(floor) for tile in sample]), floor)
        complete = seen <= give_up
        floor = floor_by(first.reaching(floor))
        floor[~complete] = _HIGHEST
        seen[complete] = 0
        parts = [note(tile.reaching(floor), floor) for tile in sample]
        for place, start in enumerate(starts[_SAMPLE:], start=_SAMPLE):
            if place == _AGAIN:
                parts = [_Found.together(parts)]
                floor = np.maximum(floor, floor_by(parts[0]))
                parts = [parts[0].reaching(floor)]
            parts.append(note(self._tile(start, asked.numbers, 0).reaching(floor), floor))
        found = _Found.together(parts)
        complete = seen <= give_up
        floor = floor_by(found)
        floor[~complete] = _HIGHEST
        found = found.reaching(floor)
        scores = scores_of(found)
        np.maximum(known, kth_of_rows(found.rows, scores, count, k, -np.inf), out=known)
        near = np.flatnonzero(scores >= floor_below(known, margin).take(found.rows))
        return found.rows.take(near), found.slots.take(near), complete

    def _tile(self, start: int, queries: Bytes, place: int) -> _Tile:
        """Products of queries with the keys of the tile that begins with a slot, in a place of the room."""
        numbers, hidden = self._numbers[start : start + TILE], self._hidden[start : start + TILE]
        count, width = len(queries), len(numbers)
        products = self._room[place, : count * width].reshape(count, width)
        self._arithmetic.multiply(queries, numbers, products)
        _hide(products, np.flatnonzero(hidden))
        blocks = products.reshape(count, _DEPTH, -1)
        peaks: Products = np.empty((count, blocks.shape[2]), dtype=np.int32)
        self._arithmetic.maxima(blocks, peaks)
        return _Tile(start, blocks, peaks)


def _hide(products: Products, covered: IntArray) -> None:
    """Put the number that nothing reaches in some columns, which mostly follow each other."""
    if not len(covered):
        return
    first, last = int(covered[0]), int(covered[-1]) + 1
    products[:, slice(first, last) if last - first == len(covered) else covered] = _HIDDEN


def _in_turn(starts: range) -> list[int]:
    """The same numbers, neighbours far apart."""
    step = max(1, len(starts) // _SPREAD)
    return [start for first in range(step) for start in starts[first::step]]
