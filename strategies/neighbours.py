"""Neighbours of a decision that are made when somebody looks at them: a replay looks at few of so many."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import compress, repeat
from operator import attrgetter
from typing import Any, Final, NamedTuple, overload

import numpy as np
import numpy.typing as npt

from strategies.base import Neighbour

_WEIGHT: Final = attrgetter("weight")


class Columns(NamedTuple):
    """What is known of ``k`` neighbours besides ids and shares of the vote."""

    symbols: Sequence[str]
    bar_times: npt.NDArray[np.int64]
    similarities: npt.NDArray[np.float64]
    outcomes: npt.NDArray[np.float64]
    regimes: npt.NDArray[np.int64]
    attentions: npt.NDArray[np.floating] | None
    """Shares that a model gave them, where one did."""


class Outline(NamedTuple):
    """What is told of a neighbour in a row of numbers."""

    symbol: str
    bar_open_time: int
    similarity: float
    weight: float
    outcome: float


class Neighbours(Sequence[Neighbour]):
    """The neighbours that had a vote, best first, as they are journalled and shown.

    Args:
        ids: ``[k]`` of the entries.
        weights: ``[k]`` shares of the vote; who has 0 is left out.
        columns: of the same ``k``; called when somebody looks at them.
        heaviest: a quicker way to what ``heaviest`` says, where there is one.
    """

    __slots__ = ("_columns", "_heaviest", "_made", "_places", "ids", "weights")

    def __init__(
        self,
        ids: Sequence[int],
        weights: Sequence[float],
        columns: Callable[[], Columns],
        heaviest: Callable[[int], list[Outline]] | None = None,
    ) -> None:
        self._columns = columns
        self._heaviest = heaviest
        self._made: tuple[Neighbour, ...] | None = None
        self._places: Sequence[int] = range(len(ids))
        if not all(weights):
            self._places = list(compress(self._places, weights))
            ids, weights = list(compress(ids, weights)), list(compress(weights, weights))
        self.ids = ids
        """``[n]`` of the entries."""
        self.weights = weights
        """``[n]`` shares of the vote."""

    def made(self) -> tuple[Neighbour, ...]:
        """All of them."""
        if self._made is None:
            self._made = tuple(map(self._neighbour, range(len(self.ids)), repeat(self._columns())))
        return self._made

    def _neighbour(self, number: int, columns: Columns) -> Neighbour:
        place = self._places[number]
        symbols, times, similarities, outcomes, regimes, attentions = columns
        return Neighbour(
            self.ids[number],
            symbols[place],
            times.item(place),
            similarities.item(place),
            self.weights[number],
            outcomes.item(place),
            regimes.item(place),
            None if attentions is None else attentions.item(place),
        )

    def heaviest(self, count: int) -> list[Outline]:
        """Those with the largest shares of the vote, the largest first, equal ones in their order; nobody is made for it."""
        if self._heaviest is not None:
            return self._heaviest(count)
        order = sorted(range(len(self.weights)), key=self.weights.__getitem__, reverse=True)
        columns = self._columns()
        return [_outline(self._neighbour(number, columns)) for number in order[:count]]

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, place: int) -> Neighbour: ...

    @overload
    def __getitem__(self, place: slice) -> tuple[Neighbour, ...]: ...

    def __getitem__(self, place: int | slice) -> Neighbour | tuple[Neighbour, ...]:
        return self.made()[place]

    def __iter__(self) -> Iterator[Neighbour]:
        return iter(self.made())

    def __eq__(self, other: object) -> bool:
        return self.made() == (other.made() if isinstance(other, Neighbours) else other)

    def __hash__(self) -> int:
        return hash(self.made())

    def __repr__(self) -> str:
        return repr(self.made())


def ids_of(neighbours: Sequence[Neighbour]) -> Sequence[int]:
    """Their entries."""
    return neighbours.ids if isinstance(neighbours, Neighbours) else [each.entry_id for each in neighbours]


def heaviest_of(neighbours: Sequence[Neighbour], count: int) -> list[Outline]:
    """See ``Neighbours.heaviest``."""
    if isinstance(neighbours, Neighbours):
        return neighbours.heaviest(count)
    return [_outline(each) for each in sorted(neighbours, key=_WEIGHT, reverse=True)[:count]]


def outlines_of_rows(
    symbols: npt.NDArray[Any],
    bar_times: npt.NDArray[np.int64],
    similarities: npt.NDArray[np.float64],
    weights: npt.NDArray[np.float64],
    outcomes: npt.NDArray[np.float64],
    count: int,
) -> list[list[Outline]]:
    """The heaviest of every row of columns ``[n, k]``: see ``Neighbours.heaviest``; who has no share is left out."""
    starts = np.arange(0, weights.size, weights.shape[1])[:, None]
    # Places in the arrays laid flat, which are much quicker to take from than by ``take_along_axis``.
    places = np.argsort(-weights, axis=1, kind="stable")[:, :count] + starts
    heaviest = weights.take(places)
    columns = symbols.take(places), bar_times.take(places), similarities.take(places), heaviest, outcomes.take(places)
    rows = [list(map(Outline, *row)) for row in zip(*[column.tolist() for column in columns], strict=True)]
    for row in np.flatnonzero(~heaviest.all(axis=1)).tolist():
        rows[row] = [each for each in rows[row] if each.weight]
    return rows


def _outline(neighbour: Neighbour) -> Outline:
    return Outline(neighbour.symbol, neighbour.bar_open_time, neighbour.similarity, neighbour.weight, neighbour.outcome)
