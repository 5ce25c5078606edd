"""Trading rules of symbols as the venue last told them: asked for daily, and kept on disk for when it does not answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

import msgspec
import structlog

from bot.errors import VenueError
from bot.execution.instruments import Instrument
from bot.market.parts import write_atomically
from strategies.bars import HOUR_MS

REFRESH_MS: Final = 24 * HOUR_MS
"""Bybit changes filters without notice, order sizes mostly on the 3rd and 17th of a month."""
RETRY_MS: Final = HOUR_MS // 6
"""After a venue that did not answer."""

_log = structlog.get_logger(__name__)


class InstrumentSource(Protocol):
    """Where trading rules are asked for."""

    endpoint: str

    async def tradable(self, symbols: Iterable[str]) -> tuple[dict[str, Instrument], dict[str, str]]:
        """Rules of those that are open for trading, and of the others why they are not.

        Raises:
            VenueError: the venue does not answer.
        """


class _Kept(msgspec.Struct, frozen=True):
    """The file: rules of one host by symbol, and when it told them (milliseconds)."""

    endpoint: str
    instruments: dict[str, Instrument]
    told_at: dict[str, int]


@dataclass(frozen=True, slots=True)
class FilterChange:
    """One rule of a symbol that is another now."""

    symbol: str
    name: str
    """A field of ``Instrument``."""
    before: str
    now: str

    def __str__(self) -> str:
        return f"{self.name} of {self.symbol} was {self.before} and is {self.now}"


@dataclass(frozen=True, slots=True)
class Rulebook:
    """What a look at the trading rules came to."""

    instruments: dict[str, Instrument]
    """In the order asked. Also of symbols that are closed now, where their rules are known from before: a position in one
    may still have to be closed."""
    told_at: int
    """When the venue told the oldest of them, milliseconds."""
    changes: tuple[FilterChange, ...] = ()
    """Against what was known before, also before this process began."""
    closed: Mapping[str, str] = field(default_factory=dict)
    """Symbols that the venue does not let trade now, and why."""
    failure: str = ""
    """Why the venue was not heard, where these are old rules."""

    def age_ms(self, now: int) -> int:
        """How old the oldest of the rules is."""
        return max(0, now - self.told_at)


class InstrumentBook:
    """The rules of the symbols of one market.

    Args:
        path: of the file that keeps them; its folder is made when it is first written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._due = 0

    def is_due(self, now: int) -> bool:
        """Whether it is time to ask again: a day after an answer, ten minutes after a failure.

        Args:
            now: milliseconds.
        """
        return now >= self._due

    async def refresh(self, rest: InstrumentSource, symbols: Sequence[str], now: int) -> Rulebook:
        """Ask the venue, say what has changed and keep it; where the venue does not answer, what is kept.

        Args:
            rest: the venue's public data.
            symbols: whose rules are wanted.
            now: the present, milliseconds.

        Raises:
            VenueError: the venue does not answer or does not know a symbol, and nothing is kept of it.
        """
        kept = self._read(rest.endpoint)
        try:
            told, closed = await rest.tradable(symbols)
        except VenueError as problem:
            return self._recalled(kept, symbols, now, str(problem))
        unknown = [reason for symbol, reason in closed.items() if symbol not in kept.instruments]
        if unknown:
            raise VenueError(unknown[0])
        self._due = now + REFRESH_MS
        changes = [
            change for symbol, rules in told.items() for change in filter_changes(kept.instruments.get(symbol), rules)
        ]
        for change in changes:
            _log.warning(
                "trading rule changed", symbol=change.symbol, rule=change.name, was=change.before, now=change.now
            )
        for symbol, reason in closed.items():
            _log.error("symbol not open for trading", symbol=symbol, reason=reason)
        known = _Kept(rest.endpoint, {**kept.instruments, **told}, {**kept.told_at, **dict.fromkeys(told, now)})
        self._write(known)
        return Rulebook(
            {symbol: known.instruments[symbol] for symbol in symbols},
            min((known.told_at[symbol] for symbol in symbols), default=now),
            tuple(changes),
            closed,
        )

    def _recalled(self, kept: _Kept, symbols: Sequence[str], now: int, failure: str) -> Rulebook:
        """The rules that are kept, since the venue does not answer."""
        missing = [symbol for symbol in symbols if symbol not in kept.instruments]
        if missing:
            raise VenueError(f"{failure}; no trading rules of {missing[0]} are kept from before either")
        self._due = now + RETRY_MS
        book = Rulebook(
            {symbol: kept.instruments[symbol] for symbol in symbols},
            min((kept.told_at[symbol] for symbol in symbols), default=now),
            failure=failure,
        )
        _log.warning("trading rules from before", hours_old=round(book.age_ms(now) / HOUR_MS, 1), reason=failure)
        return book

    def _read(self, endpoint: str) -> _Kept:
        """What is kept of a host; nothing where another host told it, or the file cannot be read."""
        nothing = _Kept(endpoint, {}, {})
        try:
            kept = msgspec.json.decode(self._path.read_bytes(), type=_Kept)
        except FileNotFoundError:
            return nothing
        except (OSError, msgspec.MsgspecError) as problem:
            _log.warning("kept trading rules cannot be read", path=str(self._path), reason=str(problem))
            return nothing
        sound = kept.endpoint == endpoint and kept.instruments.keys() == kept.told_at.keys()
        return kept if sound else nothing

    def _write(self, kept: _Kept) -> None:
        encoded = msgspec.json.format(msgspec.json.encode(kept), indent=2) + b"\n"
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._path, lambda temporary: temporary.write_bytes(encoded))
        except OSError as problem:
            # Whoever asked has them all the same; only the next start could miss them.
            _log.warning("trading rules not kept", path=str(self._path), reason=problem.strerror or str(problem))


def filter_changes(before: Instrument | None, now: Instrument) -> list[FilterChange]:
    """Rules of a symbol that differ; none where nothing was known."""
    if before is None:
        return []
    pairs = [(name, getattr(before, name), getattr(now, name)) for name in Instrument.__struct_fields__]
    return [FilterChange(now.symbol, name, str(old), str(new)) for name, old, new in pairs if old != new]
