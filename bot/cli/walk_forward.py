"""``recall walk-forward``: the normal way to judge a strategy that learns."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

import click

from bot.cli.common import Context, standard_options
from bot.cli.help import ExampleCommand
from bot.cli.terminal import console, listing, output, progress_bar
from bot.cli.walks import PlannedWalk, WalkOptions, chosen_executor, planned_walk, require_judges, walk_options
from bot.session import versions
from strategies.bars import Calendar, format_time

if TYPE_CHECKING:
    from backtest.walk_forward.summary import WalkForwardReport
    from backtest.walk_forward.window import WindowResult

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
@walk_options
@click.option("--only-plain", is_flag=True, help="Leave out the twins without a memory and with a shuffled one.")
@standard_options
def walk_forward(context: Context, walk: WalkOptions, only_plain: bool) -> None:
    """Train, encode, warm and trade window by window, and judge all of it as one account.

    Every window is traded with a model that knows nothing later than the embargo before it. A walk that is interrupted goes on
    when the same command is given again. A memory is also tried with shuffled outcomes, and the model without any.
    """
    require_judges()
    plan = planned_walk(context, walk)
    document, report = _walk(plan, walk, only_plain)
    if context.as_json:
        context.answer(document)
        return
    _show(report, document)
    console.print(f"\nThe whole report: [bold]recall report {document['walk_id']}[/]", soft_wrap=True)


def _walk(plan: PlannedWalk, asked: WalkOptions, only_plain: bool) -> tuple[dict[str, Any], WalkForwardReport]:
    from backtest.report.material import common_calendar
    from backtest.walk_forward.listing import SUMMARY_FILE, WALKS
    from backtest.walk_forward.runner import HUNDREDTHS, plan_jobs, run_jobs
    from backtest.walk_forward.summary import arms_of, summarise

    config, windows = plan.config, plan.windows
    root = config.storage.data_dir / WALKS
    arms = arms_of(config.strategy.name, only_plain=only_plain)
    jobs = plan_jobs(
        config,
        plan.home,
        plan.symbols,
        plan.interval,
        plan.calendars,
        windows,
        arms,
        root=root,
        threads=asked.threads,
        probes=True,
    )
    walk_id = jobs[0].folder.name
    console.print(f"walk [bold]{walk_id}[/], windows: {len(windows)}, runs: {len(jobs)}")
    with ExitStack() as stack:
        executor = chosen_executor(stack, asked)
        update = stack.enter_context(progress_bar("walking", HUNDREDTHS * len(jobs), unit="hundredths"))
        results = run_jobs(jobs, executor=executor, done=lambda count, what: update(count, None, what))
    calendar, cash = common_calendar(plan.calendars), float(config.account.initial_cash)
    trials, head = _enter(plan, calendar, results, walk_id)
    skipped = ("the memory's part, which recall walk-forward looks at without --only-plain",) if only_plain else ()
    report = summarise(
        results, calendar=calendar, initial_cash=cash, trials=trials, ledger_sha256=head, skipped=skipped
    )
    document = {
        "walk_id": walk_id,
        "strategy": config.strategy.name,
        "symbols": list(plan.symbols),
        "interval": plan.interval,
        "calendars": plan.calendars,
        "config": config.masked(),
        "versions": versions(),
        "windows": [
            {"name": each.name, "train_start": each.train_start, "train_end": each.train_end} for each in windows
        ],
        **report.to_json(),
    }
    (jobs[0].folder / SUMMARY_FILE).write_text(json.dumps(document, indent=2), encoding="utf-8")
    return document, report


def _enter(plan: PlannedWalk, calendar: Calendar, results: list[WindowResult], walk_id: str) -> tuple[Any, str]:
    """Enter the walk into the ledger; how often luck was asked with it, and the ledger's head."""
    from backtest.significance.ledger import Ledger, Trial, trials_with
    from backtest.walk_forward.summary import walk_sharpe

    ratio, days = walk_sharpe(results, calendar, float(plan.config.account.initial_cash))
    trial = Trial(
        time.time_ns() // 1_000_000,
        "walk-forward",
        plan.config.strategy.name,
        plan.symbols,
        plan.interval,
        plan.windows[0].start,
        plan.windows[-1].end,
        f"walk-{walk_id}",
        ratio,
        days,
        walk_id,
    )
    ledger = Ledger(plan.config.storage.data_dir)
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
