"""Funding rates: stored by symbol, fetched from the venue or brought in files.

``root/BTCUSDT.parquet`` holds settlement times and rates, the rates as exact text. As with candles, what is stored is never
revised: a rate that comes again with another value is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from bot.errors import StorageError
from bot.execution.instruments import exact
from bot.market.candles import check_symbol
from bot.market.funding_rates import FundingRates
from bot.market.importing import read_table, read_time_column
from bot.market.parts import folder_lock, write_atomically
from bot.market.validation import DataError
from strategies.bars import format_time

PAGE_RATES: Final = 200
"""Settlements that one request can return (https://bybit-exchange.github.io/docs/v5/market/history-fund-rate)."""

RATE_COLUMNS: Final = ("funding_rate", "fundingrate", "rate")
"""Names that the column of rates in a file may have, without regard to capitals."""

PageOfRates = Callable[[str, int, int], Sequence[tuple[int, Decimal]]]
"""Settlements of a symbol from the second to the third argument, milliseconds, both included: the newest ``PAGE_RATES``."""

_SCHEMA: Final = pa.schema([("time_ms", pa.int64()), ("rate", pa.string())])


class FundingStore:
    """Funding rates under one folder. Instances hold no state."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def load(self, symbol: str) -> FundingRates:
        """All that is stored of a symbol; nothing where nothing is.

        Raises:
            DataError: the file is damaged.
        """
        path = self._path(symbol)
        if not path.is_file():
            return FundingRates()
        try:
            with pq.ParquetFile(path) as file:
                table = file.read()
            times = tuple(table.column("time_ms").to_pylist())
            rates = tuple([Decimal(text) for text in table.column("rate").to_pylist()])
        except (pa.ArrowException, OSError, KeyError, InvalidOperation) as problem:
            reason = str(problem).splitlines()[0]
            raise DataError(f"funding file {path} is damaged ({reason}); delete it and fetch it again") from None
        return FundingRates(times, rates)

    def append(self, symbol: str, rates: Sequence[tuple[int, Decimal]]) -> int:
        """Store settlements durably, in any order; what is stored already is skipped. Returns how many were new.

        Raises:
            DataError: one differs from what is stored, or from another one of the same time.
            StorageError: the disk refused; what was stored before is intact.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with folder_lock(self.root, exclusive=True):
                stored = self.load(symbol)
                known = dict(zip(stored.times, stored.rates, strict=True))
                for time, rate in rates:
                    if known.setdefault(time, rate) != rate:
                        raise DataError(
                            f"{symbol}: the funding rate of {format_time(time)} is stored as {known[time]} and came as "
                            f"{rate}; rates are never revised: delete {self._path(symbol)} if it is the wrong one"
                        )
                if len(known) > len(stored.times):
                    self._write(symbol, known)
        except OSError as problem:
            raise StorageError(
                f"{self.root} cannot be written: {problem.strerror}; free space or check rights"
            ) from None
        return len(known) - len(stored.times)

    def _write(self, symbol: str, known: dict[int, Decimal]) -> None:
        times = sorted(known)
        table = pa.Table.from_pydict({"time_ms": times, "rate": [str(known[time]) for time in times]}, schema=_SCHEMA)
        write_atomically(self._path(symbol), lambda temporary: pq.write_table(table, temporary, compression="zstd"))

    def _path(self, symbol: str) -> Path:
        return self.root / f"{check_symbol(symbol)}.parquet"


def fetch_funding(
    store: FundingStore,
    page: PageOfRates,
    symbol: str,
    start: int,
    end: int,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Bring the store up to ``end``, asking for all settlements in ``[start, end)`` that lie after the newest stored one.

    The venue answers with the newest settlements of a window, so the span is walked backwards and stored once it is whole:
    an interrupted call leaves no hole.

    Args:
        store: where they go.
        page: the request.
        symbol: the venue's name.
        start: of the span, milliseconds; the store goes on after its newest settlement whatever this says.
        end: of the span.
        progress: told after every page how much of the span is done, and all of it, milliseconds.

    Returns:
        How many settlements were new.
    """
    stored = store.load(symbol)
    first = max(start, stored.times[-1] + 1) if stored.times else start
    found: list[tuple[int, Decimal]] = []
    last = end - 1
    while last >= first:
        rows = page(symbol, first, last)
        found += rows
        oldest = min((time for time, _ in rows), default=first)
        last = oldest - 1 if len(rows) >= PAGE_RATES else first - 1
        if progress is not None:
            progress(end - 1 - last, end - first)
    return store.append(symbol, found)


def read_funding_file(path: Path) -> list[tuple[int, Decimal]]:
    """Settlements of a Parquet or CSV file: a column of times, as in files of candles, and one of ``RATE_COLUMNS``.

    Raises:
        DataError: the file cannot be used.
    """
    columns = read_table(path)
    name = next((name for name in RATE_COLUMNS if name in columns), None)
    if name is None:
        raise DataError(
            f"funding file {path} has no column of rates, one of {', '.join(RATE_COLUMNS)} "
            f"(found: {', '.join(columns)}); rename or add it"
        )
    times = read_time_column(columns, path).tolist()
    return [(time, _rate(value, time, path)) for time, value in zip(times, columns[name].to_pylist(), strict=True)]


def _rate(value: Any, time: int, path: Path) -> Decimal:
    try:
        rate = exact(value) if isinstance(value, float) else Decimal(str(value))
        if not rate.is_finite() or not -1 < rate < 1:
            raise InvalidOperation
    except InvalidOperation:
        raise DataError(f"funding file {path} has {value!r} for a rate at {format_time(time)}; mend the file") from None
    return rate
