"""The encoder bar by bar and tile by tile, the same to the last bit.

There is one kernel with one shape: a single tile of ``TILE`` bars. Live, the tile that is under way is computed again at
every bar with its future rows blank; in replay and warm-up every tile is computed once, full. A row of a matrix product
does not depend on the other rows, and what the attention masks gets exactly zero weight, so both give a bar the same
numbers. All of it runs on one thread (see :mod:`strategies.memory_transformer.threads`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from strategies.memory_transformer.encoder import TILE
from strategies.memory_transformer.tile_kernel import EncodedSeries, FloatRows, TileKernel, TileState


class EncodedBar(NamedTuple):
    """State and key of one bar, each ``[d_model]``."""

    hidden: FloatRows
    key: FloatRows


class _Tile(NamedTuple):
    """A tile computed ahead of time."""

    features: FloatRows
    known: int
    encoded: EncodedSeries
    state: TileState


class StreamingEncoder:
    """The encoder of one symbol, which takes bars in order.

    Args:
        kernel: the model's kernel.
        first_ordinal: absolute number of the first bar; tiles are aligned to absolute numbers, so that a bar sits at
            the same place of its tile whatever history it was loaded with.
    """

    def __init__(self, kernel: TileKernel, first_ordinal: int) -> None:
        self._kernel = kernel
        self._first_ordinal = first_ordinal
        self._next_ordinal = first_ordinal
        self._features = self._blank_tile()
        self._state = kernel.initial_state()
        self._ahead: deque[_Tile] = deque()
        """Tiles computed ahead, the one under way first."""

    @property
    def next_ordinal(self) -> int:
        """Absolute number of the bar that is expected next."""
        return self._next_ordinal

    def push(self, features: FloatRows) -> EncodedBar:
        """State and key of the next bar, from its scaled features ``[n_features]``.

        Raises:
            ValueError: a feature is not finite.
        """
        _check_finite(features)
        row = self._next_ordinal % TILE
        self._features[row] = features
        tile = self._matching_tile(row)
        if tile is None:
            encoded, state = self._compute(self._features, self._next_ordinal - row, self._state)
        else:
            encoded, state = tile.encoded, tile.state
        return self._go_on(row, encoded, state)

    def push_expected(self) -> EncodedBar:
        """The same of a bar that was looked ahead to and came as it was expected."""
        row, tile = self._next_ordinal % TILE, self._ahead[0]
        self._features[row] = tile.features[row]
        return self._go_on(row, tile.encoded, tile.state)

    def _go_on(self, row: int, encoded: EncodedSeries, state: TileState) -> EncodedBar:
        """The bar at a row of the tile under way has come."""
        self._next_ordinal += 1
        if row == TILE - 1:
            self._begin_tile(state)
        return EncodedBar(encoded.hidden[row], encoded.keys[row])

    def encode_series(self, features: FloatRows) -> EncodedSeries:
        """States and keys of the next bars, ``[n, n_features]`` scaled: what ``push`` gives for each, and leaves behind.

        Raises:
            ValueError: a feature is not finite.
        """
        _check_finite(features)
        self._ahead.clear()
        width = self._kernel.config.d_model
        hidden, keys = (np.empty((len(features), width), dtype=np.float32) for _ in range(2))
        done = 0
        for tile in self._tiles(features):
            row = self._next_ordinal % TILE
            part = slice(done, done + tile.known - row)
            hidden[part], keys[part] = tile.encoded.hidden[row : tile.known], tile.encoded.keys[row : tile.known]
            self._features = tile.features
            self._next_ordinal += tile.known - row
            done += tile.known - row
            if tile.known == TILE:
                self._begin_tile(tile.state)
        return EncodedSeries(hidden, keys)

    def look_ahead(self, features: FloatRows) -> EncodedSeries:
        """Compute the next bars at once, so that their ``push`` costs nothing.

        Only a convenience: a bar whose features turn out to be others is computed anew, as are those after it.

        Args:
            features: scaled features expected of the next bars, ``[n, n_features]``, one or more.

        Returns:
            States and keys of these bars, should they come as expected.

        Raises:
            ValueError: a feature is not finite.
        """
        _check_finite(features)
        self._ahead = deque(self._tiles(features))
        row = self._next_ordinal % TILE
        return _rows_of(self._ahead, row, len(features))

    def look_further(self, features: FloatRows) -> EncodedSeries:
        """The same for the bars after those that were computed, which must have ended with their tile.

        Args:
            features: scaled features expected of them, ``[n, n_features]``, one or more.

        Raises:
            ValueError: a feature is not finite.
        """
        _check_finite(features)
        assert self._ahead and self._ahead[-1].known == TILE, "no tile that was computed ahead ends where these begin"
        begin = self._next_ordinal - self._next_ordinal % TILE + TILE * len(self._ahead)
        tiles = list(self._tiles_from(features, begin, 0, self._blank_tile(), self._ahead[-1].state))
        self._ahead += tiles
        return _rows_of(tiles, 0, len(features))

    def _tiles(self, features: FloatRows) -> Iterator[_Tile]:
        """The tiles that hold the next bars, should these be their features."""
        row = self._next_ordinal % TILE
        return self._tiles_from(features, self._next_ordinal - row, row, self._features.copy(), self._state)

    def _tiles_from(
        self, features: FloatRows, begin: int, row: int, expected: FloatRows, state: TileState
    ) -> Iterator[_Tile]:
        """The tiles that hold bars.

        Args:
            features: of the bars.
            begin: absolute number of the first bar of the first tile.
            row: of the first of the bars in it.
            expected: features of that tile so far; written to.
            state: of the tile before.
        """
        done = 0
        while done < len(features):
            known = min(TILE, row + len(features) - done)
            expected[row:known] = features[done : done + known - row]
            encoded, state = self._compute(expected, begin, state)
            yield _Tile(expected, known, encoded, state)
            done += known - row
            begin, row, expected = begin + TILE, 0, self._blank_tile()

    def _matching_tile(self, row: int) -> _Tile | None:
        """The tile under way as computed ahead, if it saw this bar as it is."""
        if not self._ahead:
            return None
        tile = self._ahead[0]
        if row >= tile.known or not np.array_equal(tile.features[row], self._features[row]):
            self._ahead.clear()
            return None
        return tile

    def _compute(self, features: FloatRows, begin: int, state: TileState) -> tuple[EncodedSeries, TileState]:
        """Run the kernel on the tile that begins at an absolute number."""
        return self._kernel(features, self._first_ordinal - begin, state)

    def _begin_tile(self, state: TileState) -> None:
        """Go on to the next tile."""
        self._state = state
        self._features = self._blank_tile()
        if self._ahead:
            self._ahead.popleft()

    def _blank_tile(self) -> FloatRows:
        return np.zeros((TILE, self._kernel.config.n_features), dtype=np.float32)


def _rows_of(tiles: Iterable[_Tile], first: int, count: int) -> EncodedSeries:
    """Some consecutive rows of tiles."""
    hidden, keys = zip(*[tile.encoded for tile in tiles], strict=True)
    rows = slice(first, first + count)
    return EncodedSeries(np.concatenate(hidden)[rows], np.concatenate(keys)[rows])


def _check_finite(features: FloatRows) -> None:
    if not np.isfinite(features).all():
        raise ValueError("a scaled feature is not finite; the encoder takes finite numbers only")
