"""Commands that look after stored memories: stats, warm, check, rebuild, prune, export, import."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from bot.assembly import home_of
from bot.banks.exchange import imported_record
from bot.banks.moments import bank_of
from bot.banks.sources import StoredSource, find_memory
from bot.banks.standing import checked_name, default_name, encode_again, prepare, reopen
from bot.banks.statistics import contents, entry_document, statistics_document
from bot.cli.common import (
    Context,
    chosen_span,
    market_options,
    parse_interval_option,
    standard_options,
    stored_calendars,
    strategy_options,
    with_choices,
)
from bot.cli.help import ExampleCommand
from bot.cli.memory_options import market_asked
from bot.cli.memory_report import show_differences, show_memories, show_pruned, show_statistics
from bot.cli.runs import open_journal
from bot.cli.terminal import console, output, progress_bar, watched_bar
from bot.errors import CheckFailed, UsageError
from bot.journal import RunKind, RunStatus
from bot.orders import OperatorAction, OperatorCommand, Pruning
from bot.session import Session
from memory_store.pruning import PruneRule
from memory_store.records import TIME_LIMIT
from strategies.bars import DAY_MS, format_time


@click.command(
    cls=ExampleCommand,
    examples=(
        "recall memory warm --symbols BTCUSDT,ETHUSDT --interval 60",
        "recall memory warm --strategy similarity --memory-size 50000 --end 2024-01-01 --name before-2024",
    ),
)
@market_options
@click.option("--end", help="Remember only bars that open before: 2024-01-01 (UTC) [default: all that are stored].")
@strategy_options
@click.option("--name", help="What the bank is called [default: strategy, symbols, interval and last day].")
@standard_options
def warm(
    context: Context,
    symbols: str | None,
    interval: str | None,
    end: str | None,
    strategy: str | None,
    model_id: str | None,
    memory_size: int | None,
    name: str | None,
) -> None:
    """Fill a bank from stored candles and print its name.

    The bank holds what a bot that starts at --end would remember: the newest moments, up to the capacity. No bot
    adds to it afterwards; ask it with recall memory search --bank NAME. A bank that exists is not overwritten.
    """
    config = with_choices(context, strategy=strategy, model_id=model_id, memory_size=memory_size)
    _, last = chosen_span(None, end)
    home = home_of(config)
    names, code = market_asked(config, home, symbols, interval)
    session = prepare(config, home, stored_calendars(home.candles, names, code), code, last)
    chosen = checked_name(name or default_name(session))
    _report_filled(context, _fill(context, session, chosen))


def _report_filled(context: Context, report: dict[str, Any]) -> None:
    """What was filled, and its name on standard output."""
    if context.as_json:
        context.answer(report)
        return
    console.print(
        f"{report['entries']:,} moments of {report['bars']:,} bars, {format_time(report['first_close'])} to "
        f"{format_time(report['last_close'])}, at {report['bars_per_second']:,.0f} bars/s",
        soft_wrap=True,
    )
    click.echo(report["bank"])


def _fill(context: Context, session: Session, name: str, *, source: str = "") -> dict[str, Any]:
    """Warm a session's memory and store it."""
    journal = open_journal(context)
    journal.refuse_taken(name)
    bank = bank_of(session.strategy)
    bars = sum(map(len, session.history.values()))
    with watched_bar("remembering") as watch:
        watch(lambda: bank.next_id, min(bank.config.holds, bars))
        started = time.perf_counter()
        session.warm()
        seconds = time.perf_counter() - started
    with progress_bar("storing", len(bank), unit="moments") as update:
        record = msgspec.structs.replace(session.record(name, RunKind.MEMORY), source=source)
        journal.create_memory(record, bank, progress=update)
    journal.close()
    closes = [series.close_time for series in session.history.values() if len(series)]
    return {
        "bank": name,
        "strategy": session.strategy.name,
        "model_id": session.model_id or None,
        "encoder_version": bank.encoder_version,
        "symbols": list(session.symbols),
        "interval": session.interval,
        "capacity": bank.config.holds,
        "entries": len(bank),
        "bars": bars,
        "first_close": min(int(times[0]) for times in closes),
        "last_close": max(int(times[-1]) for times in closes),
        "seconds": seconds,
        "bars_per_second": bars / seconds,
    }


@click.command(
    cls=ExampleCommand,
    examples=("recall memory stats", "recall memory stats latest", "recall memory stats NAME --json"),
)
@click.argument("name", required=False)
@standard_options
def stats(context: Context, name: str | None) -> None:
    """Show what a memory holds, and which moments helped.

    Also how well its keys tell moments apart, on a sample, and how many true neighbours an approximate index finds. NAME is
    a bank, a run, or 'latest' for the newest paper run. Without it every memory in the database is listed.
    """
    journal = open_journal(context)
    if name is None:
        show_memories(context, journal.list_memories())
        return
    with console.status("looking at the memory ..."):
        run = find_memory(journal, name)
        source = StoredSource(context.config, journal, run, rules={})
        assert run.bank_id is not None
        document = statistics_document(journal.read_memory(run.bank_id), source, source.open(TIME_LIMIT))
    if context.as_json:
        context.answer(document)
        return
    show_statistics(document)


@click.command(
    cls=ExampleCommand,
    examples=("recall memory check latest", "recall memory check NAME", "recall memory check NAME --json"),
)
@click.argument("name")
@standard_options
def check(context: Context, name: str) -> None:
    """Make a memory again from its candles and compare.

    Also from the bars that a run was shown, and with its model. NAME is a bank, a run, or 'latest'. Zero differences is the
    only pass: exit code 1 if any field differs. Of a run also what its decisions remembered is compared; recall audit
    compares the decisions themselves.
    """
    # Imported here because only proofs need the replay.
    from backtest.memory_check import check_memory

    journal = open_journal(context)
    run = find_memory(journal, name)
    session = reopen(context.config, journal, run)
    bank = bank_of(session.strategy)
    bars = sum(map(len, session.history.values())) + journal.count(run.record.run_id, "bars")
    with watched_bar("making it again") as watch:
        watch(lambda: bank.next_id, bars)
        report = check_memory(journal, run, session)
    if context.as_json:
        context.answer(report.to_json())
    else:
        show_differences(report)
    if report.differing:
        raise CheckFailed(
            f"memory {report.name} is not what its candles and its model make: {report.differing} fields differ"
        )


@click.command(
    cls=ExampleCommand,
    examples=("recall memory rebuild NAME --model latest", "recall memory rebuild latest --name recovered"),
)
@click.argument("memory")
@click.option("--model", "model_id", help="Encode with another model: an id from recall train, or latest.")
@click.option("--memory-size", type=int, help="Capacity of the new bank [default: that of the old one].")
@click.option("--name", help="What the new bank is called [default: the old name and -rebuilt].")
@standard_options
def rebuild(context: Context, memory: str, model_id: str | None, memory_size: int | None, name: str | None) -> None:
    """Encode the bars of a MEMORY anew into another bank.

    Prints the name of the new bank. MEMORY is a bank, a run, or 'latest'. It is only read: the new bank stands beside it,
    so a bot that runs is not disturbed.
    """
    journal = open_journal(context)
    run = find_memory(journal, memory)
    chosen = checked_name(name or f"{run.record.run_id}-rebuilt")
    changes: dict[str, dict[str, Any]] = {}
    if model_id is not None:
        changes["model"] = {"id": model_id}
    if memory_size is not None:
        changes["memory"] = {"memory_size": memory_size}
    session, source = encode_again(context.config, journal, run, changes)
    _report_filled(context, _fill(context, session, chosen, source=source))


@click.command(
    cls=ExampleCommand,
    examples=(
        "recall memory prune NAME --unused-days 365 --dry-run",
        "recall memory prune NAME --credit-below -0.02",
    ),
)
@click.argument("name")
@click.option(
    "--unused-days", type=click.FloatRange(min=0), help="Evict moments older than this that no decision ever used."
)
@click.option("--credit-below", type=float, help="Evict moments whose advice cost more than this: -0.02.")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@standard_options
def prune(context: Context, name: str, unused_days: float | None, credit_below: float | None, dry_run: bool) -> None:
    """Evict moments that were of no use, or of harm.

    NAME is a bank, a run, or 'latest'. Age is counted from the newest bar. Credit is how much a moment improved the
    forecasts that used it, in log returns. Only a run's decisions use moments: of a bank filled from candles none was ever
    used, and --unused-days goes by age alone. The rows stay, marked as evicted. A run prunes its memory itself before its
    next bar, by the same rule, and so that it can be audited.
    """
    if unused_days is None and credit_below is None:
        raise UsageError("nothing says what to prune; give --unused-days, --credit-below or both")
    rule = PruneRule(None if unused_days is None else round(unused_days * DAY_MS), credit_below)
    journal = open_journal(context)
    run = find_memory(journal, name)
    is_run = run.record.kind is not RunKind.MEMORY
    if run.status is RunStatus.FINISHED and is_run and not dry_run:
        raise UsageError(
            f"run {run.record.run_id} is finished, so its memory stays as its decisions saw it; prune a copy (recall memory "
            "export, then import), or look with --dry-run"
        )
    source = StoredSource(context.config, journal, run, rules={})
    bank = source.open(TIME_LIMIT).bank
    as_of = contents(source, bank).last_close or 0
    assert run.bank_id is not None
    decisions = journal.read_memory(run.bank_id).statistics.recollections
    due = [bank.entry(entry_id) for entry_id in bank.prune_candidates(rule, as_of=as_of)]
    if is_run and not dry_run:
        told = Pruning(rule.unused_for_ms, rule.credit_below)
        journal.issue_command(run.record.run_id, OperatorCommand(OperatorAction.PRUNE, pruning=told))
    elif not dry_run:
        journal.prune_memory(run.bank_id, rule, as_of=as_of)
    document = {
        "memory": run.record.run_id,
        "as_of": as_of,
        "held": len(bank) - (0 if dry_run or is_run else len(due)),
        "pruned": len(due),
        "dry_run": dry_run,
        "waiting": is_run and not dry_run,
        "decisions_remembered": decisions,
        "entries": [entry_document(source, entry) for entry in due],
    }
    if context.as_json:
        context.answer(document)
        return
    if unused_days is not None and not decisions:
        output.print(
            f"No decision ever asked {run.record.run_id}: every moment of it counts as unused, so this goes by age alone.",
            style="yellow",
            soft_wrap=True,
        )
    show_pruned(document)


@click.command(
    cls=ExampleCommand,
    examples=("recall memory export latest memory.parquet", "recall memory export NAME bank.parquet --json"),
)
@click.argument("name")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@standard_options
def export(context: Context, name: str, file: Path) -> None:
    """Write a memory into a Parquet FILE.

    NAME is a bank, a run, or 'latest'. Everything that it ever held is in the file, evicted moments too, with what its
    decisions remembered and how it was made. A FILE that exists is replaced.
    """
    journal = open_journal(context)
    run = find_memory(journal, name)
    with console.status("writing ..."):
        written = journal.export_memory(run, file)
    size = file.stat().st_size
    if context.as_json:
        context.answer({"memory": written.name, "file": str(file), "entries": written.entries, "bytes": size})
        return
    output.print(f"{written.entries:,} moments of {written.name} are in {file}, {size / 1e6:,.1f} MB.", soft_wrap=True)


@click.command(
    "import",
    cls=ExampleCommand,
    examples=("recall memory import memory.parquet", "recall memory import memory.parquet --name second-look"),
)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--name", help="What the bank is called [default: the name of the file].")
@click.option("--interval", help="Of a file that does not say it: bar interval [default: config].")
@strategy_options
@standard_options
def import_(
    context: Context,
    file: Path,
    name: str | None,
    interval: str | None,
    strategy: str | None,
    model_id: str | None,
    memory_size: int | None,
) -> None:
    """Make a bank from a Parquet FILE and print its name.

    FILE is one of recall memory export; it says how it was made. For a file of another program --strategy, --model and
    --interval say it. A bank that exists is not overwritten.
    """
    config = with_choices(context, strategy=strategy, model_id=model_id, memory_size=memory_size)
    if interval is not None:
        config = config.changed({"market": {"interval": parse_interval_option(interval)}}, "the command line")
    chosen = checked_name(file.stem if name is None else name)
    journal = open_journal(context)
    journal.refuse_taken(chosen)
    with console.status("reading ..."):
        bank_id = journal.import_memory(imported_record(config, file, chosen), file)
    held = journal.read_memory(bank_id).statistics.held
    if context.as_json:
        context.answer({"bank": chosen, "file": str(file), "held": held})
        return
    console.print(f"{held:,} moments", soft_wrap=True)
    click.echo(chosen)


COMMANDS: Final = (warm, stats, check, rebuild, prune, export, import_)
