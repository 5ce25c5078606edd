"""``recall audit`` and ``recall probe``: proofs that a user can run."""

from __future__ import annotations

import time
from contextlib import closing
from importlib.metadata import version

import click
from rich.markup import escape

from backtest.audit import audit_run
from backtest.probe import ProbeReport, probe_strategy
from backtest.recursion import MULTIPLES, RecursionReport, check_recursion
from backtest.significance.certificate import PrefixInvariance
from bot.assembly import build_strategy, home_of
from bot.cli.common import (
    Context,
    chosen_market,
    chosen_span,
    counted,
    market_options,
    span_options,
    standard_options,
    stored_calendars,
    strategy_options,
    with_choices,
)
from bot.cli.help import ExampleCommand
from bot.cli.runs import open_journal
from bot.cli.terminal import listing, output, progress_bar, watched_bar
from bot.errors import CheckFailed, UsageError
from bot.journal import RunKind
from bot.journal.probes import ProbeRecord, probed_settings
from bot.portfolio import ClosedTrade
from bot.session import engine_of, reopen_session


@click.command(cls=ExampleCommand, examples=("recall audit", "recall audit RUN --json"))
@click.argument("run", default="latest")
@standard_options
def audit(context: Context, run: str) -> None:
    """Replay RUN from its journal and report every field that differs.

    Zero is the only pass: exit code 1 if any field differs. Decisions, orders, fills, trades, equity, memory and the state
    that the run would go on from are recomputed from the recorded bars, never read back.
    """
    journal = open_journal(context)
    stored = journal.find_run(run)
    if stored.record.kind is RunKind.REPLAY:
        raise UsageError(f"run {stored.record.run_id} is a replay itself; audit a paper or live run, see recall runs")
    session = reopen_session(context.config, stored)
    trades: list[ClosedTrade] = []
    with watched_bar("replaying", unit="decisions") as watch:
        session.warm(stored=True)
        engine = engine_of(stored.record.kind, session, stored.record.run_id, trades)
        watch(lambda: engine.core.decisions_made, journal.count(stored.record.run_id, "decisions"))
        report = audit_run(journal, stored, session, engine, trades)
    if context.as_json:
        context.answer(report.to_json())
    else:
        for difference in report.differences:
            output.print(
                f"[red]{difference.where}[/]: [bold]{difference.field}[/] was {escape(str(difference.recorded))}, "
                f"replay gives {escape(str(difference.replayed))}",
                soft_wrap=True,
            )
        more = report.differing - len(report.differences)
        if more:
            output.print(f"... and {more} more fields")
        output.print(
            f"{report.run_id}: {counted(report.bars, 'bar')}, {counted(report.decisions, 'decision')}, "
            f"{counted(report.fills, 'fill')} ({counted(report.buys, 'buy')}, {counted(report.sells, 'sell')}, "
            f"{counted(report.protective_fills, 'stop or target', 'stops and targets')}), "
            f"{counted(report.memory_entries, 'memory entry', 'memory entries')}: "
            f"[bold]{counted(report.differing, 'difference')}[/]"
        )
    if report.differing:
        raise CheckFailed(f"run {report.run_id} does not replay the same: {report.differing} fields differ")


@click.command(
    cls=ExampleCommand,
    examples=(
        "recall probe --symbols BTCUSDT --interval 60 --strategy sma_cross --cuts 20",
        "recall probe --strategy my_package.my_module:MyStrategy",
    ),
)
@market_options
@span_options
@strategy_options
@click.option(
    "--cuts", default=8, show_default=True, type=click.IntRange(min=1), help="How many random points to cut at."
)
@click.option(
    "--seed",
    default=7,
    show_default=True,
    type=click.IntRange(min=0),
    help="Seed of the cuts and of the changed future.",
)
@click.option(
    "--bars", "at_most", default=4000, show_default=True, type=click.IntRange(min=4), help="Bars to probe at most."
)
@standard_options
def probe(
    context: Context,
    symbols: str | None,
    interval: str | None,
    start: str | None,
    end: str | None,
    strategy: str | None,
    model_id: str | None,
    memory_size: int | None,
    cuts: int,
    seed: int,
    at_most: int,
) -> None:
    """Look for lookahead: change the future and see that the past stays.

    Features, memory entries, signals and orders up to each cut must stay the same to the last bit. Then the past before the
    start is made longer, which must not change a signal of a strategy without a memory. Exit code 1 if either does.
    """
    config = with_choices(context, strategy=strategy, model_id=model_id, memory_size=memory_size)
    names, code = chosen_market(config, symbols, interval)
    first, last = chosen_span(start, end)
    home = home_of(config)
    calendars = stored_calendars(home.candles, names, code)
    with progress_bar("probing", cuts, unit="cuts") as update:
        report = probe_strategy(
            config, home, names, code, calendars, first, last, cuts=cuts, seed=seed, at_most=at_most, progress=update
        )
    with progress_bar("recursion", 1 + len(MULTIPLES), unit="warm-ups") as update:
        past = check_recursion(config, home, names, code, calendars, first, last, at_most=at_most, progress=update)
    _, model_id = build_strategy(config, names, code, home.models)
    prefix = PrefixInvariance.of(report)
    found = ProbeRecord(
        time.time_ns() // 1_000_000,
        version("recall-bot"),
        at_most,
        prefix.cuts,
        prefix.changed,
        past.changes,
        prefix.first_change,
        prefix.sha256,
    )
    with closing(open_journal(context)) as journal:
        journal.write_probe(probed_settings(config.masked(), names, code, model_id), found)
    if context.as_json:
        context.answer({**report.to_json(), "recursion": past.to_json()})
    else:
        _show_cuts(report)
        verdict = "nothing before a cut changed" if not report.leaks else f"{report.leaks} cuts show lookahead"
        output.print(f"{config.strategy.name} on {', '.join(names)}: {verdict}.\n")
        _show_warm_ups(past)
    if report.leaks:
        raise CheckFailed(f"{config.strategy.name} looks ahead: {report.cuts[report.first_leak].first_change}")
    if past.changes:
        raise CheckFailed(
            f"{config.strategy.name} needs a longer past than the {past.required_bars} bars it asks for: its signals change "
            f"up to {max(each.last_change for each in past.warm_ups)} bars later; raise required_bars"
        )


def _show_cuts(report: ProbeReport) -> None:
    counts = ("bars before", "bars after", "changed")
    table = listing("cut at", *counts, "first change", right=counts)
    for cut in report.cuts:
        table.add_row(cut.at, str(cut.bars_before), str(cut.bars_after), str(cut.changed), cut.first_change or "-")
    output.print(table)


def _show_warm_ups(past: RecursionReport) -> None:
    if not past.warm_ups:
        output.print("There are too few bars before the start to make the past longer; start later.")
        return
    counts = ("signals", "changed", "until bar")
    table = listing("warmed from", *counts, "first change", right=counts)
    for each in past.warm_ups:
        until = str(each.last_change) if each.changed else "-"
        table.add_row(f"{each.bars:,} bars", str(each.compared), str(each.changed), until, each.first_change or "-")
    output.print(table)
    if past.changes:
        told = "signals depend on how long the past was"
    elif any(each.changed for each in past.warm_ups):
        told = "its memory knows more after a longer past, which may change signals"
    else:
        told = "no signal depends on how long the past was"
    output.print(f"Warmed from {past.required_bars:,} bars, which it asks for, and from more: {told}.", soft_wrap=True)
