"""What all commands share: options, the console, progress bars, and times on the command line."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bot.config import Config, load_config
from bot.errors import UsageError
from bot.market.candles import CandleStore
from strategies.bars import Calendar, parse_interval, parse_time

Command = TypeVar("Command", bound=Callable[..., Any])

console = Console(stderr=True, highlight=False)
"""Talk to people: on standard error, so that standard output stays for results."""
output = Console(highlight=False)
"""Results for people."""


@dataclass(frozen=True, slots=True)
class Context:
    """The configuration of one call, and how to answer."""

    config: Config
    as_json: bool

    def answer(self, document: dict[str, Any] | list[Any]) -> None:
        """Print the one JSON document of a ``--json`` call."""
        click.echo(json.dumps(document, indent=2, default=str))


def standard_options(command: Command) -> Command:
    """Add ``--config``, ``--set`` and ``--json``; the command gets a :class:`Context` first."""

    @click.option("--config", "config_file", type=click.Path(path_type=Path), help="TOML file [default: config.toml].")
    @click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override one key: section.key=value.")
    @click.option("--json", "as_json", is_flag=True, help="Answer with one JSON document.")
    @functools.wraps(command)
    def wrapped(config_file: Path | None, overrides: tuple[str, ...], as_json: bool, **rest: Any) -> Any:
        return command(Context(load_config(config_file, overrides=overrides), as_json), **rest)

    return wrapped  # type: ignore[return-value]


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
        UsageError: a value is out of range.
    """
    config = context.config
    changes: dict[str, dict[str, Any]] = {}
    if strategy is not None:
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


@contextmanager
def progress_bar(label: str, total: float | None, *, unit: str = "bars") -> Iterator[Callable[..., None]]:
    """A progress bar on standard error; yields ``update(done, total=None, note="")``. Nothing is drawn off a terminal."""
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(label, total=total, note="")

        def update(done: float, total: float | None = None, note: str = "") -> None:
            progress.update(task, completed=done, note=note, **({} if total is None else {"total": total}))

        yield update
