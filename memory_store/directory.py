"""Which entry remembers which bar: ids by symbol and bar time, and the order in which a symbol's bars must come."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Mapping

import numpy as np

from memory_store.records import TIME_LIMIT, IntArray, MemoryBankError
from memory_store.ring import Ring

_COMPACTED_LATE = 64
"""A column this short is not worth clearing out."""


class _Column:
    """The entries of one symbol: times and ids, both increasing; those gone stay until they are an eighth."""

    __slots__ = ("gone", "ids", "times")

    def __init__(self) -> None:
        self.times = array("q")
        self.ids = array("q")
        self.gone = 0


class Directory:
    """Names of the entries of a ring. Symbols are numbered in the order of their first bar, so that arrays can hold them."""

    __slots__ = ("_columns", "_numbers", "_ring", "last_times", "names")

    def __init__(self, ring: Ring) -> None:
        self.names: list[str] = []
        """Symbol of every number."""
        self.last_times: dict[str, int] = {}
        """Latest bar time of every symbol, evicted entries included, milliseconds."""
        self._ring = ring
        self._numbers: dict[str, int] = {}
        self._columns: list[_Column] = []

    def admit(self, symbol: str, bar_time: int) -> None:
        """Refuse a bar that may not become an entry.

        Raises:
            MemoryBankError: the symbol is empty, the bar is there already, or time runs backwards.
        """
        if not symbol:
            raise MemoryBankError("symbol is empty; an entry belongs to one")
        if not -TIME_LIMIT < bar_time < TIME_LIMIT:
            raise MemoryBankError(f"{symbol}: bar time {bar_time} is no time in milliseconds")
        last = self.last_times.get(symbol)
        if last is None or bar_time > last:
            return
        if self.find(symbol, bar_time) is not None:
            raise MemoryBankError(f"{symbol}: the bar at {bar_time} is in the memory already")
        raise MemoryBankError(
            f"{symbol}: the bar at {bar_time} would come after the bar at {last}; append bars in order of time"
        )

    def number(self, symbol: str) -> int | None:
        """Number of a symbol that has had an entry."""
        return self._numbers.get(symbol)

    def add(self, symbol: str, bar_time: int, entry_id: int) -> int:
        """Name an admitted entry; returns the symbol's number."""
        number = self._numbers.get(symbol)
        if number is None:
            number = self._numbers[symbol] = len(self.names)
            self.names.append(symbol)
            self._columns.append(_Column())
        column = self._columns[number]
        column.times.append(bar_time)
        column.ids.append(entry_id)
        self.last_times[symbol] = bar_time
        return number

    def removed(self, number: int) -> None:
        """An entry of a symbol has left the ring; the symbol's time goes on from its latest bar."""
        column = self._columns[number]
        column.gone += 1
        if column.gone > _COMPACTED_LATE + len(column.ids) // 8:
            ids = np.frombuffer(column.ids, dtype=np.int64)
            held = self._ring.locate(ids)[1]
            times = np.frombuffer(column.times, dtype=np.int64)[held].tobytes()
            column.times, column.ids, column.gone = array("q", times), array("q", ids[held].tobytes()), 0

    def find(self, symbol: str, bar_time: int) -> int | None:
        """Id of the entry of a bar, if it is held."""
        number = self._numbers.get(symbol)
        if number is None:
            return None
        column = self._columns[number]
        place = bisect_left(column.times, bar_time)
        if place == len(column.times) or column.times[place] != bar_time or not self._ring.holds(column.ids[place]):
            return None
        return column.ids[place]

    def fill(self, names: tuple[str, ...], numbers: IntArray, bar_times: IntArray, ids: IntArray) -> IntArray:
        """Name the entries of a ring that is being filled, all at once; returns the numbers that their symbols get, ``[n]``.

        Args:
            names: symbols.
            numbers: ``[n]`` index into ``names``.
            bar_times: ``[n]``.
            ids: ``[n]`` increasing.

        Raises:
            MemoryBankError: as ``admit``, or a number is no index.
        """
        if len(set(names)) != len(names):
            raise MemoryBankError("symbols are damaged: a name is given twice")
        if len(numbers) and not 0 <= int(numbers.min()) <= int(numbers.max()) < len(names):
            raise MemoryBankError(f"symbols are damaged: their numbers are not indexes into {len(names)} names")
        own = np.zeros(len(names), dtype=np.int64)
        used, first = np.unique(numbers, return_index=True)
        for place in used[np.argsort(first)].tolist():
            symbol, mine = names[place], np.flatnonzero(numbers == place)
            times = bar_times[mine]
            self.admit(symbol, int(times[0]))
            early = np.flatnonzero(np.diff(times) <= 0)
            if len(early):
                before, after = times[early[0] : early[0] + 2].tolist()
                raise MemoryBankError(
                    f"{symbol}: the bar at {after} would come after the bar at {before}, its entry is damaged"
                )
            if times[-1] >= TIME_LIMIT:
                raise MemoryBankError(f"{symbol}: bar time {times[-1]} is no time in milliseconds")
            own[place] = self.add(symbol, int(times[-1]), int(ids[mine[-1]]))
            column = self._columns[int(own[place])]
            column.times, column.ids = array("q", times.tobytes()), array("q", ids[mine].tobytes())
        return own[numbers]

    def advance(self, last_times: Mapping[str, int]) -> None:
        """Take over later bar times of symbols, whose entries are gone."""
        for symbol, bar_time in last_times.items():
            self.last_times[symbol] = max(bar_time, self.last_times.get(symbol, bar_time))
