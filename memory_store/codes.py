"""Leading coordinates of keys as whole numbers of one byte, and how far they are from what they stand for."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from memory_store.records import IntArray, KeyArray, ScoreArray
from memory_store.rotation import coordinates, fit_basis, of_length_one

Bytes = npt.NDArray[np.int8]
Products = npt.NDArray[np.int32]

_LARGEST: Final = 127.0
_LARGEST_PRODUCT: Final = 2.0**30
_SMALLEST: Final = 1e-100  # stands for the largest number of rows that are nothing but zeros
_WHOLE: Final = 1.0 + 1e-9  # more than float64 rounds of a length
_ROWS: Final = 16384
_FEWEST: Final = 8
"""Numbers of a code at least: of fewer than two groups of four torch 2.13 multiplies some wrongly."""
_GATHER_COST: Final = 256.0
"""Reading one number of a key that lies anywhere costs as much as multiplying so many bytes."""


class Asked(NamedTuple):
    """Queries as they are multiplied."""

    numbers: Bytes
    """``[n, width]``."""
    unit: ScoreArray
    """``[n]`` the score that a product of 1 stands for."""
    error: ScoreArray
    """``[n]`` by how much at most a score may be above what its product stands for."""

    def floor(self, known: ScoreArray, margin: ScoreArray) -> Products:
        """``[n]`` what the product of a key must reach whose score may be ``known``, less a margin."""
        least = np.floor((known - margin - self.error) / self.unit)
        floor: Products = np.clip(least, -_LARGEST_PRODUCT, _LARGEST_PRODUCT).astype(np.int32)
        return floor


class Codes:
    """Codes of the first keys of an array. With a query's code a key's has a product that bounds their score from above.

    Let ``a`` and ``b`` be the ``coordinates`` of query and key, and ``a'`` and ``b'`` what their codes stand for. Then
    ``q.x <= a.b = a'.b' + (a - a').b' + a.(b - b')``, and the last two terms are at most ``|a - a'| |b'| + |a| |b - b'|``,
    whichever key it is. ``a'.b'`` is a whole number times two steps, and exact.

    Args:
        keys: ``[slots, d]``.
        size: keys at the beginning from which rotation and rounding are derived.
    """

    def __init__(self, keys: KeyArray, size: int) -> None:
        self._keys = keys
        self._basis = fit_basis(keys[:size], _GATHER_COST)
        columns = self._basis.shape[1] + 1
        self.numbers: Bytes = np.zeros((len(keys), max(_FEWEST, -(-columns // 4) * 4)), dtype=np.int8)
        """``[slots, width]``, zeros after the last coordinate and after the last key."""
        self._longest = self._error = 0.0
        """Upper bounds of the length of what a code stands for, and of its distance from the coordinates."""
        parts = [slice(start, min(start + _ROWS, size)) for start in range(0, size, _ROWS)]
        largest = max(float(np.abs(coordinates(keys[part], self._basis)).max()) for part in parts)
        self._step = max(largest, _SMALLEST) / _LARGEST
        for part in parts:
            self._write(part)

    @property
    def directions(self) -> int:
        """Leading directions of the rotation."""
        return int(self._basis.shape[1])

    def write(self, slots: IntArray) -> None:
        """Take in that the keys of some slots have changed."""
        for start in range(0, len(slots), _ROWS):
            self._write(slots[start : start + _ROWS])

    def asked(self, queries: KeyArray) -> Asked:
        """Queries ``[n, d]`` as they are multiplied: scaled to length one, each with a step of its own."""
        units, lengths = of_length_one(queries)
        exact = coordinates(units, self._basis)
        steps = np.maximum(np.abs(exact).max(axis=1), _SMALLEST) / _LARGEST
        rounded = np.rint(exact / steps[:, None])
        distances = np.linalg.norm(exact - rounded * steps[:, None], axis=1)
        error = (distances * self._longest + np.linalg.norm(exact, axis=1) * self._error) * _WHOLE
        return Asked(self._padded(rounded), lengths * steps * self._step, lengths * error)

    def _write(self, slots: slice | IntArray) -> None:
        exact = coordinates(self._keys[slots], self._basis)
        rounded = np.clip(np.rint(exact / self._step), -_LARGEST, _LARGEST)
        self.numbers[slots] = self._padded(rounded)
        rounded *= self._step
        self._longest = max(self._longest, float(np.linalg.norm(rounded, axis=1).max(initial=0.0)) * _WHOLE)
        self._error = max(self._error, float(np.linalg.norm(exact - rounded, axis=1).max(initial=0.0)) * _WHOLE)

    def _padded(self, rounded: ScoreArray) -> Bytes:
        numbers: Bytes = np.zeros((len(rounded), self.numbers.shape[1]), dtype=np.int8)
        numbers[:, : rounded.shape[1]] = rounded
        return numbers
