"""What commands share: options, the configuration of one call, and times on the command line."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click
import structlog

from bot.cli.terminal import console
from bot.config import Config, Layers, read_layers
from bot.errors import UsageError
from bot.logs import configure_logs
from memory_store.machine_code import tell_of_compiling
from strategies.bars import Calendar, parse_interval, parse_time

if TYPE_CHECKING:
    from bot.assembly import Home
    from bot.market.candles import CandleStore

log = structlog.get_logger()

Command = TypeVar("Command", bound=Callable[..., Any])

REAL_MARKET: Final = "real"
"""What listings call the home without a name."""


@dataclass(frozen=True, slots=True)
class Context:
    """The configuration of one call, and how to answer."""

    config: Config
    as_json: bool
    layers: Layers
    """Where the values of the configuration come from."""

    def answer(self, document: Any) -> None:
        """Print the one JSON document of a ``--json`` call; what is not a finite number becomes null."""
        click.echo(json.dumps(_finite(document), indent=2, default=str, allow_nan=False))


def standard_options(command: Command) -> Command:
    """Add ``--config``, ``--set`` and ``--json``; the command gets a :class:`Context` first."""

    @click.option("--config", "config_file", type=click.Path(path_type=Path), help="TOML file [default: config.toml].")
    @click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override one key: section.key=value.")
    @click.option("--json", "as_json", is_flag=True, help="Answer with one JSON document.")
    @functools.wraps(command)
    def wrapped(config_file: Path | None, overrides: tuple[str, ...], as_json: bool, **rest: Any) -> Any:
        layers = read_layers(config_file, overrides=overrides)
        config = layers.config()
        configure_logs(config, to=console)
        tell_of_compiling(_say_what_takes_long)
        return command(Context(config, as_json, layers), **rest)

    return wrapped  # type: ignore[return-value]


def _say_what_takes_long() -> None:
    log.info("compiling for this processor, which takes some 20 seconds once after an installation or an update")


def market_options(command: Command) -> Command:
    """Add ``--symbols`` and ``--interval``."""
    command = click.option("--interval", help="Bar interval: 1 3 5 15 30 60 120 240 360 720 D W M [default: config].")(
        command
    )
    return click.option("--symbols", "--symbol", help="Symbols, separated by commas [default: config].")(command)


def strategy_options(command: Command) -> Command:
    """Add ``--strategy``, ``--model`` and ``--memory-size``."""
    command = click.option("--memory-size", type=int, help="Capacity of the memory [default: config].")(command)
    command = click.option("--model", "model_id", help="Model id from recall train, or latest [default: config].")(
        command
    )
    return click.option("--strategy", help="Strategy name or package.module:Class [default: config].")(command)


def span_options(command: Command) -> Command:
    """Add ``--start`` and ``--end``."""
    command = click.option("--end", help="End of the span, exclusive: 2026-01-01 (UTC).")(command)
    return click.option("--start", help="Start of the span, inclusive: 2024-01-01 or 2024-01-01T06:00 (UTC).")(command)


def with_choices(
    context: Context, *, strategy: str | None = None, model_id: str | None = None, memory_size: int | None = None
) -> Config:
    """The configuration with what the command line says about the strategy.

    Raises:
        UsageError: a value is out of range, or there is no such strategy.
    """
    from bot.assembly import check_strategy

    config = context.config
    changes: dict[str, dict[str, Any]] = {}
    if strategy is not None:
        check_strategy(strategy)
        changes["strategy"] = {"name": strategy}
    if model_id is not None:
        changes["model"] = {"id": model_id}
    if memory_size is not None:
        changes["memory"] = {"memory_size": memory_size}
    return config.changed(changes, "the command line") if changes else config


def chosen_market(config: Config, symbols: str | None, interval: str | None) -> tuple[tuple[str, ...], str]:
    """Symbols and interval of a call.

    Raises:
        UsageError: they are not usable.
    """
    names = config.market.symbols if symbols is None else tuple(s.strip() for s in symbols.split(",") if s.strip())
    if not names:
        raise UsageError("--symbols is empty; name at least one symbol, such as BTCUSDT")
    if len(set(names)) != len(names):
        raise UsageError(f"--symbols names one symbol twice: {','.join(names)}")
    return names, config.market.interval if interval is None else parse_interval_option(interval)


def counted(count: int, one: str, many: str | None = None) -> str:
    """A number with what it counts, such as ``1 fill`` and ``1,411 fills``."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def venue_option(command: Any) -> Any:
    """Add ``--venue``."""
    names = ["sandbox", "bybit", "testnet", "demo"]
    return click.option("--venue", type=click.Choice(names), help="Venue [default: config].")(command)


def at_venue(config: Config, symbols: str | None, interval: str | None, venue: str | None) -> Config:
    """The configuration with the market and the venue of a call.

    Raises:
        UsageError: they are not usable.
    """
    names, code = chosen_market(config, symbols, interval)
    changes: dict[str, dict[str, Any]] = {"market": {"symbols": names, "interval": code}}
    if venue is not None:
        changes["venue"] = {"name": venue}
    return config.changed(changes, "the command line")


def parse_interval_option(text: str) -> str:
    """Bybit's code of an interval.

    Raises:
        UsageError: it is unknown.
    """
    try:
        return parse_interval(text)
    except ValueError as problem:
        raise UsageError(f"--interval: {problem}") from None


def chosen_span(start: str | None, end: str | None) -> tuple[int | None, int | None]:
    """The half-open span of a call in milliseconds.

    Raises:
        UsageError: a date is not understood, or the span is empty.
    """
    try:
        first = None if start is None else parse_time(start)
        last = None if end is None else parse_time(end)
    except ValueError as problem:
        raise UsageError(str(problem)) from None
    if first is not None and last is not None and first >= last:
        raise UsageError(f"--start {start} is not before --end {end}; swap them or widen the span")
    return first, last


def existing_homes(config: Config) -> list[Home]:
    """The real market's folders, those of the testnet and of the sandboxes that were used, and the spot market of each."""
    from bot.assembly import home_named

    root = config.storage.data_dir
    sandboxes = sorted(path for path in (root / "sandbox").glob("*") if path.is_dir())
    markets = [root, root / "testnet", *sandboxes]
    others = [path for path in (*markets[1:], *(market / "spot" for market in markets)) if path.is_dir()]
    return [home_named(config, ""), *(home_named(config, path.relative_to(root).as_posix()) for path in others)]


def stored_calendars(store: CandleStore, symbols: tuple[str, ...], interval: str) -> dict[str, Calendar]:
    """The calendar of each stored symbol.

    Raises:
        UsageError: a symbol has no stored candles of that interval.
    """
    found: dict[str, Calendar] = {}
    for symbol in symbols:
        stored = store.describe(symbol, interval)
        if stored is None:
            raise UsageError(
                f"{symbol} has no stored candles of interval {interval}; get them with "
                f"recall fetch --symbols {symbol} --interval {interval}"
            )
        found[symbol] = stored.calendar
    return found


def market_words(symbols: Sequence[str], interval: str) -> str:
    """Symbols and interval for a table, in one column so that tables fit narrow windows: ``BTCUSDT, ETHUSDT 60``."""
    return f"{', '.join(symbols)} {interval}"


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _finite(below) for key, below in value.items()}
    return [_finite(below) for below in value] if isinstance(value, list | tuple) else value
