"""``recall walk-forward``: the normal way to judge a strategy that learns."""

from __future__ import annotations

import json
import time
from concurrent.futures import Executor
from contextlib import ExitStack
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

import click

from bot.assembly import Home, home_of
from bot.cli.common import (
    Context,
    chosen_market,
    chosen_span,
    market_options,
    standard_options,
    stored_calendars,
    with_choices,
)
from bot.cli.help import ExampleCommand
from bot.cli.terminal import console, listing, output, progress_bar
from bot.config import Config
from bot.errors import UsageError
from bot.session import versions
from strategies.bars import Calendar, format_time, interval_ms

if TYPE_CHECKING:
    from backtest.walk_forward.summary import WalkForwardReport
    from backtest.walk_forward.window import WindowResult
    from backtest.walk_forward.windows import Window

_MODULES: Final = ("arch", "scipy", "purgedcv")
"""What judges a result."""
_FIGURES: Final = (
    ("total_return", "total return", "{:+.2%}"),
    ("annual_return", "annual return", "{:+.2%}"),
    ("sharpe_ratio", "Sharpe ratio", "{:+.2f}"),
    ("max_drawdown", "deepest drawdown", "{:.2%}"),
    ("trades", "round trips", "{:,}"),
    ("win_rate", "won, after costs", "{:.1%}"),
    ("profit_factor", "profit factor", "{:.2f}"),
    ("exposure_time", "time in the market", "{:.1%}"),
    ("annual_turnover", "turnover, a year", "{:,.1f} x"),
    ("fees_paid", "fees", "{:,.2f}"),
    ("slippage_paid", "slippage", "{:,.2f}"),
    ("alpha", "alpha, annual", "{:+.2%}"),
    ("beta", "beta", "{:+.2f}"),
)


@click.command(
    name="walk-forward",
    cls=ExampleCommand,
    examples=(
        "recall walk-forward --symbols BTCUSDT --interval 60 --start 2023-01-01 --end 2026-01-01",
        "recall walk-forward --scheme anchored --test-months 3 --workers 2 --json",
        "recall walk-forward --strategy sma_cross --set strategy.parameters.fast=10 --start 2023-01-01",
    ),
)
@market_options
@click.option("--train-start", help="First bar to learn from: 2021-01-01 (UTC) [default: the first stored].")
@click.option("--start", help="First bar to trade: 2023-01-01 (UTC) [default: --train-months after the first stored].")
@click.option("--end", help="End of the trading, exclusive: 2026-01-01 (UTC) [default: the last stored].")
@click.option(
    "--scheme",
    type=click.Choice(["rolling", "anchored"]),
    default="rolling",
    show_default=True,
    help="Learn from the last --train-months, or from all that was.",
)
@click.option("--train-months", type=click.IntRange(1, 600), default=24, show_default=True, help="To learn from.")
@click.option("--test-months", type=click.IntRange(1, 600), default=6, show_default=True, help="To trade, per window.")
@click.option("--strategy", help="Strategy name or package.module:Class [default: config].")
@click.option("--memory-size", type=int, help="Capacity of the memory [default: config].")
@click.option("--only-plain", is_flag=True, help="Leave out the twins without a memory and with a shuffled one.")
@click.option("--workers", type=click.IntRange(1, 256), default=1, show_default=True, help="Processes.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Threads of each training.")
@click.option("--cluster", metavar="ADDRESS", help="Compute on a Dask cluster: tcp://scheduler:8786.")
@standard_options
def walk_forward(
    context: Context,
    symbols: str | None,
    interval: str | None,
    train_start: str | None,
    start: str | None,
    end: str | None,
    scheme: str,
    train_months: int,
    test_months: int,
    strategy: str | None,
    memory_size: int | None,
    only_plain: bool,
    workers: int,
    threads: int,
    cluster: str | None,
) -> None:
    """Train, encode, warm and trade window by window, and judge all of it as one account.

    Every window is traded with a model that knows nothing later than the embargo before it. A walk that is interrupted goes on
    when the same command is given again. A memory is also tried with shuffled outcomes, and the model without any.
    """
    require_judges()
    config = with_choices(context, strategy=strategy, memory_size=memory_size)
    names, code = chosen_market(config, symbols, interval)
    home = home_of(config)
    calendars = stored_calendars(home.candles, names, code)
    opens, closes = chosen_span(start, end)
    learns, _ = chosen_span(train_start, start)
    windows = plan_walk(config, home, names, code, learns, opens, closes, scheme, train_months, test_months)
    document, report = _walk(config, home, names, code, calendars, windows, only_plain, workers, threads, cluster)
    if context.as_json:
        context.answer(document)
        return
    _show(report, document)
    console.print(f"\nThe whole report: [bold]recall report {document['walk_id']}[/]", soft_wrap=True)


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


def chosen_executor(stack: ExitStack, workers: int, cluster: str | None) -> Executor | None:
    """Who computes windows until the stack is closed: ``None`` is this process.

    Raises:
        UsageError: the cluster cannot be reached, or what speaks with it is not installed.
    """
    from backtest.walk_forward.runner import cluster_executor, process_executor

    if cluster is not None:
        require_module("distributed", "cluster")
        return stack.enter_context(cluster_executor(cluster))
    return stack.enter_context(process_executor(workers)) if workers > 1 else None


def require_module(module: str, extra: str) -> None:
    """
    Raises:
        UsageError: it is not installed.
    """
    if find_spec(module) is None:
        raise UsageError(f"this needs {module}, which is not installed; pip install 'recall-bot[{extra}]'")


def missing_judges() -> list[str]:
    """The libraries that judge a result and are not installed."""
    return [name for name in _MODULES if find_spec(name) is None]


def plan_walk(
    config: Config,
    home: Home,
    names: tuple[str, ...],
    code: str,
    learns: int | None,
    opens: int | None,
    closes: int | None,
    scheme: str,
    train_months: int,
    test_months: int,
) -> tuple[Window, ...]:
    """The windows that the options of a walk ask for.

    Raises:
        UsageError: there is nothing to trade, or to learn from.
    """
    from backtest.evaluation.folds import months_later
    from backtest.walk_forward.windows import Scheme, plan_windows

    stored = [home.candles.describe(name, code) for name in names]
    first = min(each.first_open for each in stored if each is not None) if learns is None else learns
    last = max(each.last_open for each in stored if each is not None) + 1
    return plan_windows(
        first,
        months_later(first, train_months) if opens is None else opens,
        last if closes is None else min(closes, last),
        test_months=test_months,
        scheme=Scheme(scheme),
        train_months=train_months,
        embargo_ms=config.memory.embargo * interval_ms(code),
    )


def _walk(
    config: Config,
    home: Home,
    names: tuple[str, ...],
    code: str,
    calendars: dict[str, Calendar],
    windows: tuple[Window, ...],
    only_plain: bool,
    workers: int,
    threads: int,
    cluster: str | None,
) -> tuple[dict[str, Any], WalkForwardReport]:
    from backtest.report.material import common_calendar
    from backtest.walk_forward.runner import HUNDREDTHS, plan_jobs, run_jobs
    from backtest.walk_forward.summary import SUMMARY_FILE, WALKS, arms_of, summarise

    root = config.storage.data_dir / WALKS
    arms = arms_of(config.strategy.name, only_plain=only_plain)
    jobs = plan_jobs(config, home, names, code, calendars, windows, arms, root=root, threads=threads, probes=True)
    walk_id = jobs[0].folder.name
    console.print(f"walk [bold]{walk_id}[/], {len(windows)} windows, {len(jobs)} runs")
    with ExitStack() as stack:
        executor = chosen_executor(stack, workers, cluster)
        update = stack.enter_context(progress_bar("walking", HUNDREDTHS * len(jobs), unit="hundredths"))
        results = run_jobs(jobs, executor=executor, done=lambda count, what: update(count, None, what))
    calendar, cash = common_calendar(calendars), float(config.account.initial_cash)
    trials, head = _enter(config, names, code, calendar, windows, results, walk_id)
    skipped = ("the memory's part, which recall walk-forward looks at without --only-plain",) if only_plain else ()
    report = summarise(
        results, calendar=calendar, initial_cash=cash, trials=trials, ledger_sha256=head, skipped=skipped
    )
    document = {
        "walk_id": walk_id,
        "strategy": config.strategy.name,
        "symbols": list(names),
        "interval": code,
        "calendars": calendars,
        "config": config.masked(),
        "versions": versions(),
        "windows": [
            {"name": each.name, "train_start": each.train_start, "train_end": each.train_end} for each in windows
        ],
        **report.to_json(),
    }
    (jobs[0].folder / SUMMARY_FILE).write_text(json.dumps(document, indent=2), encoding="utf-8")
    return document, report


def _enter(
    config: Config,
    names: tuple[str, ...],
    code: str,
    calendar: Calendar,
    windows: tuple[Window, ...],
    results: list[WindowResult],
    walk_id: str,
) -> tuple[Any, str]:
    """Enter the walk into the ledger; how often luck was asked with it, and the ledger's head."""
    from backtest.significance.ledger import Ledger, Trial, trials_with
    from backtest.walk_forward.summary import walk_sharpe

    ratio, days = walk_sharpe(results, calendar, float(config.account.initial_cash))
    trial = Trial(
        time.time_ns() // 1_000_000,
        "walk-forward",
        config.strategy.name,
        names,
        code,
        windows[0].start,
        windows[-1].end,
        f"walk-{walk_id}",
        ratio,
        days,
        walk_id,
    )
    ledger = Ledger(config.storage.data_dir)
    head = ledger.enter(trial)
    return trials_with(ledger.related(trial), trial), head


def _show(report: WalkForwardReport, document: dict[str, Any]) -> None:
    for sentence in (*report.significance.sentences(), *report.certificate.sentences()):
        output.print(sentence, soft_wrap=True)
    arms = tuple(str(each.arm) for each in report.arms)
    table = listing("window", "hold", *arms, right=("hold", *arms))
    for rows in zip(*(each.windows for each in report.arms), strict=True):
        span = f"{format_time(rows[0].start)[:10]} to {format_time(rows[0].end)[:10]}"
        table.add_row(span, f"{rows[0].hold_return:+.2%}", *(f"{row.total_return:+.2%}" for row in rows))
    output.print()
    output.print(table)
    figures = listing("all windows", *arms, right=arms)
    for name, words, form in _FIGURES:
        values = [document["arms"][arm]["metrics"][name] for arm in arms]
        figures.add_row(words, *("-" if value is None else form.format(value) for value in values))
    output.print()
    output.print(figures)
