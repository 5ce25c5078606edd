"""Which entry remembers which bar: ids by symbol and bar time, and the order in which a symbol's bars must come."""

from __future__ import annotations

from collections.abc import Mapping

from memory_store.records import TIME_LIMIT, MemoryBankError


class Directory:
    """Names of entries. Symbols are numbered in the order of their first bar, so that arrays can hold them."""

    __slots__ = ("_ids", "_numbers", "last_times", "names")

    def __init__(self) -> None:
        self.names: list[str] = []
        """Symbol of every number."""
        self.last_times: dict[str, int] = {}
        """Latest bar time of every symbol, evicted entries included, milliseconds."""
        self._numbers: dict[str, int] = {}
        self._ids: list[dict[int, int]] = []

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

    def add(self, symbol: str, bar_time: int, entry_id: int) -> int:
        """Name an admitted entry; returns the symbol's number."""
        number = self._numbers.get(symbol)
        if number is None:
            number = self._numbers[symbol] = len(self.names)
            self.names.append(symbol)
            self._ids.append({})
        self._ids[number][bar_time] = entry_id
        self.last_times[symbol] = bar_time
        return number

    def remove(self, number: int, bar_time: int) -> None:
        """Forget the entry of a bar; the symbol's time goes on from its latest bar."""
        del self._ids[number][bar_time]

    def find(self, symbol: str, bar_time: int) -> int | None:
        """Id of the entry of a bar, if there is one."""
        number = self._numbers.get(symbol)
        return None if number is None else self._ids[number].get(bar_time)

    def advance(self, last_times: Mapping[str, int]) -> None:
        """Take over later bar times of symbols, whose entries are gone."""
        for symbol, bar_time in last_times.items():
            self.last_times[symbol] = max(bar_time, self.last_times.get(symbol, bar_time))
