"""Standing banks: memories that were filled from candles and stay in the journal, to be asked, exported and checked.

A standing bank is recorded like a run that never traded: with its settings and the candles that it was made from, so that
it can be made again and compared.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from bot.assembly import Home, build_strategy
from bot.banks.moments import bank_of
from bot.config import Config
from bot.errors import UsageError
from bot.journal import Journal, StoredRun
from bot.journal.records import TRADING
from bot.session import Session, extended_history, open_session, reopen_session
from strategies.bars import BarSeries, Calendar, format_time

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+:-]{0,63}")
_NAMED_SYMBOLS: Final = 3


def prepare(config: Config, home: Home, calendars: Mapping[str, Calendar], interval: str, end: int | None) -> Session:
    """A session whose history fills a bank: all bars that open before ``end``, up to the memory's capacity.

    Raises:
        UsageError: there are too few bars, no such strategy or model, or the strategy has no memory.
    """
    symbols = tuple(calendars)
    if end is None:
        last = [home.candles.last_open_time(symbol, interval) or 0 for symbol in symbols]
        end = max(last) + 1
    session = open_session(config, home, symbols, interval, dict(calendars), end, hindsight=True)
    bank_of(session.strategy)
    return session


def reopen(config: Config, journal: Journal, run: StoredRun) -> Session:
    """The session of a run or of a standing bank, not warmed yet.

    Raises:
        UsageError: the candles or the model are not there any more, or the candles have changed.
    """
    if run.record.copied:
        origin = f"of run {run.record.source}" if run.record.source else "of another program"
        raise UsageError(
            f"{run.record.run_id} is a copy of a memory {origin} and can be asked, but not be made again from candles; do "
            "that where it came from"
        )
    if not run.record.source:
        return reopen_session(config, run)
    return reopen_session(config, run, bars=shown_bars(config, journal, journal.find_run(run.record.source)))


def shown_bars(config: Config, journal: Journal, run: StoredRun) -> dict[str, BarSeries]:
    """All bars that went into the memory of a run or of a standing bank."""
    return extended_history(reopen(config, journal, run), journal, run)


def encode_again(
    config: Config, journal: Journal, run: StoredRun, changes: Mapping[str, Mapping[str, Any]]
) -> tuple[Session, str]:
    """A session that fills a bank from the very bars of another memory, and the run whose bars they reach into.

    Args:
        config: says where candles and models are now.
        journal: where the memory is.
        run: whose memory.
        changes: keys of the configuration that are to be other than they were, such as the model.

    Raises:
        UsageError: the candles or the model are not there, or the strategy has no memory.
    """
    earlier = reopen(config, journal, run)
    history = extended_history(earlier, journal, run)
    settings = earlier.config.changed(changes, "the command line")
    model_id = settings.model.id if "model" in changes else journal.model_of(run)
    strategy, model_id = build_strategy(
        settings, earlier.symbols, earlier.interval, earlier.home.models, model_id=model_id or None
    )
    bank_of(strategy)
    source = run.record.run_id if run.record.kind in TRADING else run.record.source
    return replace(earlier, config=settings, strategy=strategy, model_id=model_id, history=history), source


def default_name(session: Session) -> str:
    """``similarity-BTCUSDT+ETHUSDT-60-20251231``: strategy, symbols, interval, and the day that it reaches."""
    symbols = session.symbols
    named = "+".join(symbols) if len(symbols) <= _NAMED_SYMBOLS else f"{symbols[0]}+{len(symbols) - 1}more"
    day = format_time(last_close(session.history.values()))[:10].replace("-", "")
    return f"{session.strategy.name}-{named}-{session.interval}-{day}"


def checked_name(name: str) -> str:
    """The name, when it may name a bank.

    Raises:
        UsageError: it may not.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(f"--name {name!r} cannot name a bank; use up to 64 letters, digits, '.', '_', '+', ':' or '-'")
    return name


def last_close(history: Iterable[BarSeries]) -> int:
    """Close of the newest bar, milliseconds."""
    return max(int(series.close_time[-1]) for series in history if len(series))
