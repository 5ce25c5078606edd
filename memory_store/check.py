"""Comparing two banks, field by field and to the last bit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from memory_store.bank import MemoryBank
from memory_store.records import BankConfig, BoolArray, IntArray, Recollection
from memory_store.restoration import BankState
from memory_store.ring import NEVER, NOT_YET

_FIELDS: Final = {
    "ids": "entry_id",
    "keys": "key",
    "regimes": "regime",
    "novelties": "novelty",
    "outcomes": "outcome",
    "settled_times": "settled_time",
}
"""Columns of a state, and what one value of them is called."""
_FIELDS_OF_DECISIONS: Final = {"hits": "hits", "last_hits": "last_hit", "credits": "credit_units"}
_ABSENT: Final = (NEVER, NOT_YET)


@dataclass(frozen=True, slots=True)
class BankDifference:
    """One value in which two banks differ."""

    symbol: str | None
    """Whose entry, or whose time; ``None`` for what is the whole bank's."""
    bar_time: int | None
    """Which entry of the symbol, milliseconds; ``None`` where it is about none."""
    field: str
    """``entry`` where only one bank has it; ``key[3]`` is the first number of a key that differs."""
    left: Any
    """``None`` where there is nothing."""
    right: Any


def compare_banks(left: MemoryBank, right: MemoryBank, *, decisions: bool = True) -> Iterator[BankDifference]:
    """All differences of two banks: rules, then symbols by name with their entries by time. None means equal digests.

    Args:
        left: one bank.
        right: another one.
        decisions: compare also what follows from decisions: hits, credits, recollections. A bank that was made again from
            candles has none.
    """
    if left.encoder_version != right.encoder_version:
        yield BankDifference(None, None, "encoder_version", left.encoder_version, right.encoder_version)
    for each in fields(BankConfig):
        yield from _unequal(None, None, each.name, getattr(left.config, each.name), getattr(right.config, each.name))
    yield from _unequal(None, None, "next_id", left.next_id, right.next_id)
    if (left.config.dimension, left.config.horizons) != (right.config.dimension, right.config.horizons):
        return
    one, other = left.state(), right.state()
    compared = {**_FIELDS, **_FIELDS_OF_DECISIONS} if decisions else _FIELDS
    for symbol in sorted({*one.names, *other.names, *one.last_times, *other.last_times}):
        yield from _unequal(symbol, None, "last_time", one.last_times.get(symbol), other.last_times.get(symbol))
        yield from _entry_differences(symbol, one, other, compared)
    if decisions:
        yield from _recollection_differences(one, other)


def _entry_differences(
    symbol: str, left: BankState, right: BankState, compared: dict[str, str]
) -> Iterator[BankDifference]:
    """Differences of the entries of a symbol in the order of their bar times."""
    one, other = _places(left, symbol), _places(right, symbol)
    left_times, right_times = left.bar_times[one], right.bar_times[other]
    common, in_one, in_other = np.intersect1d(left_times, right_times, assume_unique=True, return_indices=True)
    pairs = {name: (getattr(left, name)[one[in_one]], getattr(right, name)[other[in_other]]) for name in compared}
    unequal = {name: _rows_that_differ(*columns) for name, columns in pairs.items()}
    rows = np.flatnonzero(np.logical_or.reduce(list(unequal.values())))
    shared = dict(zip(common[rows].tolist(), rows.tolist(), strict=True))
    lonely = {
        **dict.fromkeys(np.setdiff1d(left_times, common, assume_unique=True).tolist(), ("there", None)),
        **dict.fromkeys(np.setdiff1d(right_times, common, assume_unique=True).tolist(), (None, "there")),
    }
    for bar_time in sorted({*shared, *lonely}):
        if bar_time in lonely:
            yield BankDifference(symbol, bar_time, "entry", *lonely[bar_time])
            continue
        row = shared[bar_time]
        for name, (old, new) in pairs.items():
            if unequal[name][row]:
                yield from _value_differences(symbol, bar_time, compared[name], old[row], new[row])


def _value_differences(symbol: str, bar_time: int, field: str, left: Any, right: Any) -> Iterator[BankDifference]:
    """Differences of one column in one entry: of every horizon, but of a key only the first."""
    for place in np.flatnonzero(_differ(np.atleast_1d(left), np.atleast_1d(right))).tolist():
        named = f"{field}[{place}]" if np.ndim(left) else field
        old, new = (_shown(np.atleast_1d(value)[place]) for value in (left, right))
        yield BankDifference(symbol, bar_time, named, old, new)
        if field == "key":
            return


def _recollection_differences(left: BankState, right: BankState) -> Iterator[BankDifference]:
    """Differences in what waits for an outcome."""
    one, other = ({each.asker_id: _content(each) for each in state.recollections} for state in (left, right))
    for asker_id in sorted({*one, *other}):
        yield from _unequal(None, None, f"recollection of entry {asker_id}", one.get(asker_id), other.get(asker_id))


def _content(recollection: Recollection) -> tuple[Any, ...]:
    return recollection.as_of, recollection.ids.tolist(), recollection.weights.tolist()


def _unequal(symbol: str | None, bar_time: int | None, field: str, left: Any, right: Any) -> Iterator[BankDifference]:
    if left != right:
        yield BankDifference(symbol, bar_time, field, left, right)


def _places(state: BankState, symbol: str) -> IntArray:
    """Rows of a symbol's entries, in the order of their bar times."""
    if symbol not in state.names:
        return np.empty(0, dtype=np.int64)
    places = np.flatnonzero(state.symbols == state.names.index(symbol))
    return places[np.argsort(state.bar_times[places], kind="stable")]


def _rows_that_differ(left: npt.NDArray[Any], right: npt.NDArray[Any]) -> BoolArray:
    different = _differ(left, right)
    return different if different.ndim == 1 else np.logical_or.reduce(different, axis=1)


def _differ(left: npt.NDArray[Any], right: npt.NDArray[Any]) -> BoolArray:
    """Which values differ; what is pending on both sides does not."""
    different: BoolArray = (left != right) & ~((left != left) & (right != right))
    return different


def _shown(value: Any) -> Any:
    """A value for people, ``None`` for one that is not there."""
    plain = value.item()
    return None if plain in _ABSENT or plain != plain else plain
