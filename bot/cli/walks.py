"""What ``recall walk-forward`` and ``recall sweep`` ask for alike: a market, windows, and who computes them."""

from __future__ import annotations

import functools
from concurrent.futures import Executor
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

import click

from bot.assembly import Home, home_of
from bot.cli.common import (
    Command,
    Context,
    chosen_market,
    chosen_span,
    market_options,
    stored_calendars,
    with_choices,
)
from bot.config import Config
from bot.errors import UsageError
from strategies.bars import Calendar, interval_ms

if TYPE_CHECKING:
    from backtest.walk_forward.windows import Window

_JUDGES: Final = ("arch", "scipy", "purgedcv")
"""What judges a result."""


@dataclass(frozen=True, slots=True)
class WalkOptions:
    """What the command line says about a walk; ``None`` where it leaves the choice to the configuration or the candles."""

    symbols: str | None
    interval: str | None
    train_start: str | None
    start: str | None
    end: str | None
    scheme: str
    train_months: int
    test_months: int
    strategy: str | None
    memory_size: int | None
    workers: int
    threads: int
    cluster: str | None


@dataclass(frozen=True, slots=True)
class PlannedWalk:
    """A walk whose candles are there."""

    config: Config
    home: Home
    symbols: tuple[str, ...]
    interval: str
    calendars: dict[str, Calendar]
    windows: tuple[Window, ...]


def walk_options(command: Command) -> Command:
    """Add the options of a walk; the command gets them as ``walk``, a :class:`WalkOptions`."""

    @market_options
    @click.option("--train-start", help="First bar to learn from: 2021-01-01 (UTC) [default: the first stored].")
    @click.option(
        "--start", help="First bar to trade: 2023-01-01 (UTC) [default: --train-months after the first stored]."
    )
    @click.option("--end", help="End of the trading, exclusive: 2026-01-01 (UTC) [default: the last stored].")
    @click.option(
        "--scheme",
        type=click.Choice(["rolling", "anchored"]),
        default="rolling",
        show_default=True,
        help="Learn from the last --train-months, or from all that was.",
    )
    @click.option("--train-months", type=click.IntRange(1, 600), default=24, show_default=True, help="To learn from.")
    @click.option(
        "--test-months", type=click.IntRange(1, 600), default=6, show_default=True, help="To trade, per window."
    )
    @click.option("--strategy", help="Strategy name or package.module:Class [default: config].")
    @click.option("--memory-size", type=int, help="Capacity of the memory [default: config].")
    @click.option(
        "--workers",
        type=click.IntRange(1, 256),
        default=1,
        show_default=True,
        help="Processes; of a sweep also the trials at a time.",
    )
    @click.option(
        "--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Threads of each training."
    )
    @click.option("--cluster", metavar="ADDRESS", help="Compute on a Dask cluster: tcp://scheduler:8786.")
    @functools.wraps(command)
    def wrapped(**given: Any) -> Any:
        names = WalkOptions.__dataclass_fields__
        asked = WalkOptions(**{name: given.pop(name) for name in names})
        return command(walk=asked, **given)

    return wrapped  # type: ignore[return-value]


def planned_walk(context: Context, asked: WalkOptions) -> PlannedWalk:
    """The market and the windows that the options ask for.

    Raises:
        UsageError: there is nothing to trade, or to learn from, or an option is not understood.
    """
    from backtest.evaluation.folds import months_later
    from backtest.walk_forward.windows import Scheme, plan_windows

    config = with_choices(context, strategy=asked.strategy, memory_size=asked.memory_size)
    names, code = chosen_market(config, asked.symbols, asked.interval)
    home = home_of(config)
    calendars = stored_calendars(home.candles, names, code)
    opens, closes = chosen_span(asked.start, asked.end)
    learns, _ = chosen_span(asked.train_start, asked.start)
    stored = [home.candles.describe(name, code) for name in names]
    first = min(each.first_open for each in stored if each is not None) if learns is None else learns
    last = max(each.last_open for each in stored if each is not None) + 1
    windows = plan_windows(
        first,
        months_later(first, asked.train_months) if opens is None else opens,
        last if closes is None else min(closes, last),
        test_months=asked.test_months,
        scheme=Scheme(asked.scheme),
        train_months=asked.train_months,
        embargo_ms=config.memory.embargo * interval_ms(code),
    )
    return PlannedWalk(config, home, names, code, calendars, windows)


def chosen_executor(stack: ExitStack, asked: WalkOptions) -> Executor | None:
    """Who computes windows until the stack is closed: ``None`` is this process.

    Raises:
        UsageError: the cluster cannot be reached, or what speaks with it is not installed.
    """
    from backtest.walk_forward.runner import cluster_executor, process_executor

    if asked.cluster is not None:
        require_module("distributed", "cluster")
        return stack.enter_context(cluster_executor(asked.cluster))
    return stack.enter_context(process_executor(asked.workers)) if asked.workers > 1 else None


def require_judges() -> None:
    """
    Raises:
        UsageError: what judges a result is not installed.
    """
    missing = missing_judges()
    if missing:
        raise UsageError(
            f"judging a result needs {', '.join(missing)}; install with pip install 'recall-bot[evaluate]'"
        )


def missing_judges() -> list[str]:
    """The libraries that judge a result and are not installed."""
    return [name for name in _JUDGES if find_spec(name) is None]


def require_module(module: str, extra: str) -> None:
    """
    Raises:
        UsageError: it is not installed.
    """
    if find_spec(module) is None:
        raise UsageError(f"this needs {module}, which is not installed; pip install 'recall-bot[{extra}]'")
