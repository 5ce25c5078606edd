"""Exact nearest neighbours without reading all of every key.

Keys are turned so that their leading coordinates carry most of their length. Of each key only those are scanned, and the
length of the rest: by the inequality of Cauchy and Schwarz the rest of a product is at most the product of the rests'
lengths, so the scan gives an upper bound of every score. Keys whose bound stays below a score that ``k`` others are known
to have are out; the few that are left are looked at in full (:mod:`memory_store.bound_scan`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import numpy as np

from memory_store.bound_scan import TILE, TOO_FEW, TOO_MANY, Asked, Found, Sight, scan
from memory_store.index import BLOCK, Candidates, candidates
from memory_store.machine_code import fixed
from memory_store.records import BoolArray, IntArray, KeyArray, ScoreArray
from memory_store.rotation import fit_basis, of_length_one, turned, underflow

WORTHWHILE: Final = 32768
"""Slots below which a scan of all keys is as fast."""
QUERIES: Final = 128
"""Queries scanned together, at most: more share what it takes to fetch a tile, and leave less room for it."""
_ROOM: Final = 1024
"""Candidates of a query there is room for at first; few have so many."""
_ROWS: Final = 16384
GATHER_COST: Final = 16.0
"""Reading one number of a key that lies anywhere costs as much as reading so many in a row."""
BULK_GATHER_COST: Final = 64.0
"""The same where a direction is read once for many queries and the key for each of them."""
NOTHING_HIDDEN: Final = np.zeros(0, dtype=np.bool_)
ALWAYS: Final = np.zeros(0, dtype=np.int64)


class TurnedKeys:
    """What is scanned of keys, in tiles: coordinates along some directions, and the lengths of the rests.

    Args:
        keys: ``[slots, d]``, owned by the caller, who says what changes in them.
        basis: ``[d, m]`` orthonormal.
        tiles: ``[slots / TILE, m + 1, TILE]`` where they are known already; zeros until they are written otherwise.

    Raises:
        ValueError: known tiles have another shape, or directions another length than the keys: compiled code, which checks no
            bounds, would read past their end.
    """

    __slots__ = ("_keys", "basis", "tiles")

    def __init__(self, keys: KeyArray, basis: ScoreArray, tiles: KeyArray | None = None) -> None:
        self._keys = keys
        self.basis = basis
        shape = -(-len(keys) // TILE), basis.shape[1] + 1, TILE
        self.tiles: KeyArray = np.zeros(shape, dtype=np.float32) if tiles is None else tiles
        if self.tiles.shape != shape or len(basis) != keys.shape[1]:
            raise ValueError(
                f"tiles of shape {self.tiles.shape} are not those of keys of shape {keys.shape}: {shape} is wanted"
            )

    @classmethod
    def fitted(cls, keys: KeyArray, size: int, gather_cost: float) -> TurnedKeys:
        """The first ``size`` keys, along directions that suit them: see ``fit_basis``."""
        made = cls(keys, fit_basis(keys[:size], gather_cost))
        made.write(np.arange(size))
        return made

    def write(self, slots: IntArray) -> None:
        """Take in that the keys of some slots have changed."""
        for start in range(0, len(slots), _ROWS):
            part = slots[start : start + _ROWS]
            tile, place = np.divmod(part, TILE)
            self.tiles[tile, :, place] = turned(self._keys[part], self.basis)

    def near(
        self,
        queries: KeyArray,
        k: int,
        margin: ScoreArray,
        sight: Sight,
        *,
        times: IntArray | None = None,
        oldest: IntArray | None = None,
        known: float = -np.inf,
        give_up: int | None = None,
    ) -> Candidates:
        """For every query, slots among which its ``k`` nearest are.

        Why none is missed: let ``q`` and ``x`` be query and key, ``m`` the directions, ``a`` and ``b`` their rotated leading
        coordinates, ``r`` and ``s`` upper bounds of the lengths of the rests. Then ``q.x <= a.b + r s`` (Cauchy-Schwarz).
        The right side is an inner product of ``m + 1`` numbers, no longer than ``|q| |x|``. Rounding its factors to float32
        costs at most ``2 u |q| |x|``, summing it in any order ``gamma_(m+1) |q| |x|`` (Higham, Accuracy and Stability of
        Numerical Algorithms, 2nd ed., section 3.1), so the scanned bound lies at most ``gamma_(m+4) |q| |x|`` below the score,
        plus a smallest normal number for each factor and product that underflows. The score that ``k`` keys are known to have
        is one of float32, wrong by ``gamma_d |q| |x|`` at most. ``margin`` is at least ``2 gamma_(d+2) |q| |x|``, which is no
        less than both together, as ``m <= d``; likewise for two scores of float32. The query is scaled to length one, so
        that nothing else overflows or underflows. Float64 steps err by parts of ``u**2``, which the difference covers.

        Args:
            queries: ``[n, d]``.
            k: neighbours wanted.
            margin: ``[n]`` from ``scan_margin``.
            sight: what they may find.
            times: ``[n]`` when each asks, for what is there for some time only.
            oldest: ``[n]`` first slot that each may find.
            known: a score that ``k`` entries elsewhere reach; those that stay below it may be missing.
            give_up: leave out queries with more candidates than this.
        """
        count = len(queries)
        units, length = of_length_one(queries)
        asked = Asked(
            turned(units, self.basis),
            np.array(queries, dtype=np.float32, order="C"),
            length,
            np.array(margin, dtype=np.float64),
            np.zeros(count, dtype=np.int64) if times is None else np.array(times, dtype=np.int64),
            np.zeros(count, dtype=np.int64) if oldest is None else np.array(oldest, dtype=np.int64),
            np.full(count, known),
        )
        most = len(self._keys) if give_up is None else give_up
        room = min(_ROOM, most)
        complete: BoolArray = np.zeros(count, dtype=np.bool_)
        parts, crowded, waiting = [], [], np.arange(count)
        for hopeful in (True, False):
            if len(waiting):
                found = self._scan(asked.only(waiting), k, sight, room, hopeful=hopeful)
                parts.append(_pairs(found, waiting))
                complete[waiting] = found.number >= 0
                crowded += waiting[found.number == TOO_MANY].tolist()
                waiting = waiting[found.number == TOO_FEW]
        for row in crowded if most > room else ():
            alone = np.array([row])
            found = self._scan(asked.only(alone), k, sight, most, hopeful=False)
            parts.append(_pairs(found, alone))
            complete[row] = found.number[0] >= 0
        rows, slots = (np.concatenate(column) for column in zip(*parts, strict=True))
        return Candidates(rows, slots, complete)

    def _scan(self, asked: Asked, k: int, sight: Sight, most: int, *, hopeful: bool) -> Found:
        shape = len(asked.queries), most
        found = Found(np.empty(shape, np.int64), np.empty(shape, np.float32), np.empty(shape[0], np.int64))
        visible = Sight(sight.first, sight.last, fixed(sight.hidden), fixed(sight.since), fixed(sight.until))
        slack = underflow(self.basis.shape[1])
        scan(fixed(self.tiles), fixed(self._keys), visible, asked, k, slack, hopeful, found)
        return found


def _pairs(found: Found, rows: IntArray) -> tuple[IntArray, IntArray]:
    """Row and slot of all that was found for the queries of these rows."""
    asked, places = np.nonzero(np.arange(found.slots.shape[1]) < found.number[:, None])
    return rows[asked], found.slots[asked, places]


class PrunedIndex:
    """The slots of a bank, scanned by a few rotated directions.

    The rotation is derived from the keys and refitted when the number of writes since equals that of the keys it was
    fitted to; it decides the speed, never the answer. Memory: 4 bytes per slot and direction, less than half of the keys.

    Args:
        keys: ``[slots, d]``, ``slots`` a multiple of ``BLOCK``, owned by the caller, who says what changes in it.
        worthwhile: slots below which all keys are scanned in full.
        gather_cost: by which the number of directions is chosen; ``BULK_GATHER_COST`` for an index asked in bulk.
    """

    __slots__ = ("_changed", "_gather_cost", "_keys", "_refit_after", "_turned", "_worthwhile")

    def __init__(self, keys: KeyArray, *, worthwhile: int = WORTHWHILE, gather_cost: float = GATHER_COST) -> None:
        self._keys = keys
        self._gather_cost = gather_cost
        self._worthwhile = worthwhile
        self._turned: TurnedKeys | None = None
        self._changed: list[int] = []
        self._refit_after = 0

    @classmethod
    def fitted(cls, keys: KeyArray, basis: ScoreArray, tiles: KeyArray) -> PrunedIndex:
        """An index over keys that change no more, from what ``fit`` of an index over the same keys gave."""
        index = cls(keys)
        index._turned, index._refit_after = TurnedKeys(keys, basis, tiles), len(keys)
        return index

    def fit(self) -> tuple[ScoreArray, KeyArray]:
        """Directions ``[d, m]``, and the tiles of ``TurnedKeys`` along them, of all slots."""
        keys = self._follow(len(self._keys))
        return keys.basis, keys.tiles

    @property
    def directions(self) -> int:
        """Rotated directions scanned; 0 while the bank is too small for a rotation to pay."""
        return 0 if self._turned is None else int(self._turned.basis.shape[1])

    def write(self, slot: int) -> None:
        """Take note that the key of a slot has changed. The work is done by the next search."""
        if self._turned is None:
            return
        self._changed.append(slot)
        if len(self._changed) >= self._refit_after:
            self._turned = None
            self._changed.clear()

    def candidates(
        self, hidden: BoolArray, query: KeyArray, k: int, margin: ScoreArray, *, known: float = -np.inf
    ) -> IntArray:
        """Slots among which the ``k`` nearest are; none is missed, see ``TurnedKeys.near``.

        Args:
            hidden: ``[size]``, True where a slot must not be found; the slots scanned, a multiple of ``BLOCK``.
            query: ``[1, d]``.
            k: neighbours wanted.
            margin: ``[1]`` from ``scan_margin``.
            known: a score that ``k`` entries elsewhere reach; those that stay below it may be missing.
        """
        size = len(hidden)
        if size < self._worthwhile or 8 * k * BLOCK > size:
            return candidates(self._keys[:size], hidden, query, k, margin).slots
        return self._follow(size).near(query, k, margin, _all_but(hidden), known=known).slots

    def search_of_many(
        self, hidden: BoolArray, queries: KeyArray, k: int, margin: ScoreArray, *, give_up: int
    ) -> Callable[[], Candidates]:
        """The same for ``n`` queries at once, none of whose nearest is missed either.

        All changes are taken in at once. What then has to be called to search may be called by another thread, while what
        is hidden from it is written.

        Args:
            hidden: as for ``candidates``.
            queries: ``[n, d]``.
            k: neighbours wanted.
            margin: ``[n]`` from ``scan_margin``.
            give_up: leave out queries with more candidates than this.
        """
        size = len(hidden)
        if size < self._worthwhile or 8 * k * BLOCK > size:
            return partial(candidates, self._keys[:size], hidden, queries, k, margin, give_up=give_up)
        return partial(_near_many, self._follow(size), hidden, queries, k, margin, give_up)

    def _follow(self, size: int) -> TurnedKeys:
        """The first ``size`` slots as they are scanned, with all changes taken in."""
        if self._turned is None:
            self._turned, self._refit_after = TurnedKeys.fitted(self._keys, size, self._gather_cost), size
        elif self._changed:
            self._refit_after -= len(self._changed)
            self._turned.write(np.array(self._changed))
            self._changed.clear()
        return self._turned


def _near_many(
    keys: TurnedKeys, hidden: BoolArray, queries: KeyArray, k: int, margin: ScoreArray, give_up: int
) -> Candidates:
    """As many at once as are cheapest."""
    sight, parts = _all_but(hidden), []
    for start in range(0, len(queries), QUERIES):
        part = slice(start, start + QUERIES)
        near = keys.near(queries[part], k, margin[part], sight, give_up=give_up)
        parts.append((near.rows + start, near.slots, near.complete))
    return Candidates(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _all_but(hidden: BoolArray) -> Sight:
    """Of all slots those that are not hidden."""
    return Sight(0, len(hidden), hidden, ALWAYS, ALWAYS)
