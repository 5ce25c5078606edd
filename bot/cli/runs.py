"""Commands that look at a run or tell it something: runs, status, positions, halt, resume, flatten."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from bot.banks.recall import recall_document
from bot.cli.common import Context, market_words, standard_options
from bot.cli.help import ExampleCommand
from bot.cli.instance import is_running
from bot.cli.terminal import console, facts, listing, output
from bot.engine import EngineState
from bot.errors import UsageError
from bot.journal import Journal, RunStatus, StoredRun
from bot.orders import ModelSwap, OperatorAction, OperatorCommand, Retraining
from bot.risk import RiskState
from memory_store.recall_monitor import RecallMonitor
from strategies.bars import format_time


def run_option(command: Any) -> Any:
    """Add ``--run``."""
    return click.option(
        "--run", "run_id", default="latest", metavar="RUN", help="A run's id [default: newest paper or live run]."
    )(command)


def open_journal(context: Context) -> Journal:
    """The journal of the configuration."""
    return Journal(context.config.journal_url, durable=True)


def read_state(journal: Journal, run: StoredRun) -> EngineState | None:
    """Account, book and halts of a run after its last step."""
    stored = journal.read_state(run.record.run_id)
    return None if stored is None else msgspec.json.decode(stored[0], type=EngineState)


@click.command(cls=ExampleCommand, examples=("recall runs", "recall runs --limit 5 --json"))
@click.option("--limit", default=20, show_default=True, type=click.IntRange(min=1), help="How many.")
@standard_options
def runs(context: Context, limit: int) -> None:
    """List runs and walks, newest first."""
    from backtest.walk_forward.listing import list_walks

    found = open_journal(context).list_runs(limit=limit)
    rows: list[dict[str, Any]] = [
        {
            "run_id": run.record.run_id,
            "kind": str(run.record.kind),
            "status": _status(context, run),
            "strategy": run.record.strategy,
            "symbols": list(run.record.symbols),
            "interval": run.record.interval,
            "started_at": run.started_at,
            "total_return": None if run.summary is None else run.summary.get("total_return"),
        }
        for run in found
    ]
    rows += [
        {
            "run_id": walk.walk_id,
            "kind": "walk-forward",
            "status": str(RunStatus.FINISHED),
            "strategy": walk.strategy,
            "symbols": list(walk.symbols),
            "interval": walk.interval,
            "started_at": walk.written_at,
            "total_return": walk.total_return,
        }
        for walk in list_walks(context.config.storage.data_dir)
    ]
    rows = sorted(rows, key=lambda row: -row["started_at"])[:limit]
    if context.as_json:
        context.answer(rows)
        return
    if not rows:
        output.print("There are no runs yet: start one with recall paper or recall backtest.")
        return
    table = listing("run", "status", "strategy", "market", "return", right=("return",))
    for row in rows:
        cells = [row["run_id"], row["status"], row["strategy"], market_words(row["symbols"], row["interval"])]
        table.add_row(*cells, "-" if row["total_return"] is None else f"{row['total_return']:+.2%}")
    output.print(table)


@click.command(cls=ExampleCommand, examples=("recall status", "recall status --json"))
@run_option
@standard_options
def status(context: Context, run_id: str) -> None:
    """Show how a run stands: account, halts, last bar."""
    journal = open_journal(context)
    run = journal.find_run(run_id)
    document = _status_document(context, journal, run)
    if context.as_json:
        context.answer(document)
        return
    table = facts()
    for name, value in document.items():
        table.add_row(name.replace("_", " "), _shown(name, value))
    output.print(table)


@click.command(cls=ExampleCommand, examples=("recall positions", "recall positions --json"))
@run_option
@standard_options
def positions(context: Context, run_id: str) -> None:
    """Show the open positions of a run and what protects them."""
    journal = open_journal(context)
    run = journal.find_run(run_id)
    state = read_state(journal, run)
    rows = [] if state is None else _open_positions(state)
    if context.as_json:
        context.answer(rows)
        return
    if not rows:
        output.print(f"{run.record.run_id} holds nothing.")
        return
    numbers = ("quantity", "entry", "mark", "profit", "stop", "target")
    table = listing("symbol", "side", *numbers, right=numbers)
    for row in rows:
        table.add_row(
            row["symbol"],
            row["side"],
            row["quantity"],
            f"{row['entry_price']:,.8g}",
            f"{row['mark']:,.8g}",
            f"{row['unrealised']:+,.2f}",
            row["stop_loss"] or "-",
            row["take_profit"] or "-",
        )
    output.print(table)


def _open_positions(state: EngineState) -> list[dict[str, Any]]:
    books = {book.symbol: book for book in state.books}
    marks = state.core.portfolio.marks
    rows = []
    for position in state.core.portfolio.positions:
        if position.quantity:
            book, mark = books[position.symbol], marks[position.symbol]
            rows.append(
                {
                    "symbol": position.symbol,
                    "side": "long" if position.quantity > 0 else "short",
                    "quantity": str(abs(position.quantity)),
                    "entry_price": float(position.entry_price),
                    "mark": mark,
                    "unrealised": float(position.quantity) * mark - float(position.cost),
                    "stop_loss": None if book.stop_loss is None else str(book.stop_loss),
                    "take_profit": None if book.take_profit is None else str(book.take_profit),
                }
            )
    return rows


def _operator(action: OperatorAction, effect: str, summary: str) -> click.Command:
    @click.command(
        name=str(action),
        cls=ExampleCommand,
        help=summary,
        examples=(f"recall {action}", f"recall {action} --reason 'central bank at 14:00'"),
    )
    @run_option
    @click.option("--reason", default="", help="Why, for the journal.")
    @standard_options
    def command(context: Context, run_id: str, reason: str) -> None:
        journal = open_journal(context)
        run = journal.find_run(run_id)
        if run.status is RunStatus.FINISHED:
            raise UsageError(f"run {run.record.run_id} is finished, so there is nothing to {action}; see recall runs")
        command_id = journal.issue_command(run.record.run_id, OperatorCommand(action, reason))
        if context.as_json:
            context.answer({"run_id": run.record.run_id, "command": str(action), "command_id": command_id})
            return
        when = (
            "from its next step on"
            if _status(context, run) == "running"
            else f"as soon as recall {run.record.kind} goes on with it"
        )
        console.print(f"[bold]{run.record.run_id}[/] {effect}, {when}.", soft_wrap=True)

    return command


halt = _operator(OperatorAction.HALT, "opens nothing more", "Open nothing from now on; manage what is open.")
resume = _operator(OperatorAction.RESUME, "trades again", "Trade again: take away every halt.")
flatten = _operator(
    OperatorAction.FLATTEN, "closes every position and halts", "Close every position at the next bar and halt."
)


def _status(context: Context, run: StoredRun) -> str:
    """The journal's status, but *interrupted* where a run that was not stopped has no process any more."""
    if run.status is RunStatus.RUNNING and not is_running(context.config.storage.data_dir):
        return "interrupted"
    return str(run.status)


def _status_document(context: Context, journal: Journal, run: StoredRun) -> dict[str, Any]:
    record = run.record
    state = read_state(journal, run)
    document: dict[str, Any] = {
        "run_id": record.run_id,
        "kind": str(record.kind),
        "status": _status(context, run),
        "strategy": record.strategy,
        "model_id": journal.model_of(run) or None,
        "symbols": list(record.symbols),
        "interval": record.interval,
        "started_at": run.started_at,
        "bars": journal.count(record.run_id, "bars"),
        "fills": journal.count(record.run_id, "executions"),
    }
    if state is None:
        return document
    core = state.core
    portfolio = core.portfolio
    equity = float(portfolio.cash) + sum(
        float(p.quantity) * portfolio.marks.get(p.symbol, 0.0) for p in portfolio.positions
    )
    document |= {
        "last_bar": max(core.last_open_times.values(), default=None),
        "equity": equity,
        "profit": equity - float(portfolio.initial_cash + portfolio.transferred),
        "fees_paid": float(portfolio.fees_paid),
        "trades": portfolio.trades_closed,
        "open_positions": sum(1 for position in portfolio.positions if position.quantity),
        "working_orders": sum(len(book.working) for book in state.books),
        "halts": _halts(core.risk),
        **({} if core.recall is None else {"memory_recall": recall_document(RecallMonitor(state=core.recall).reading)}),
        **_models_document(context, journal, run, core.decisions),
        "waiting_commands": [str(command.action) for _, command in journal.waiting_commands(record.run_id)],
    }
    return document


def _models_document(context: Context, journal: Journal, run: StoredRun, decisions: int) -> dict[str, Any]:
    """How often a run has changed its model, and what came of its last retraining; nothing for runs without a model."""
    if not run.record.model_id:
        return {}
    events = [event for _, event in journal.read_events(run.record.run_id)]
    trained = [event for event in events if isinstance(event, Retraining)]
    recorded = run.record.config.get("retraining", {}).get("every_bars", 0)
    every, bars = context.config.retraining.every_bars or recorded, decisions // len(run.record.symbols)
    last = msgspec.to_builtins(trained[-1]) if trained else None
    done = 0 if last is None else last["due"]
    return {
        "model_swaps": sum(isinstance(event, ModelSwap) for event in events),
        "retrainings": len(trained),
        "last_retraining": last,
        "next_retraining_in_bars": max(0, (done // every + 1) * every - bars) if every else None,
    }


def _halts(state: RiskState) -> list[str]:
    found = []
    if state.halted_by_operator:
        found.append("operator, flat" if state.flatten else "operator")
    if state.halted_by_loss:
        found.append("daily loss")
    found += [f"{symbol} unavailable" for symbol in state.unavailable]
    found += [f"{symbol} traded by somebody else" for symbol in state.foreign]
    if state.unknown_because:
        found.append(f"account unknown: {state.unknown_because}")
    return found


def _retraining_line(told: dict[str, Any]) -> str:
    """What came of a retraining, in one line."""
    losses = ""
    if told["candidate_loss"] is not None:
        losses = (
            f": loss {told['candidate_loss']:.4f} against {told['running_loss']:.4f}, "
            f"standard error of the difference {told['standard_error']:.4f}"
        )
    who = told["candidate"] or "no candidate"
    return f"{who} {told['verdict']} at bar {told['due']:,} ({told['trigger']}){losses}; {told['reason']}"


def _recall_line(told: dict[str, Any]) -> str:
    """What the running check of an approximate memory shows, in one line."""
    if told["share"] is None:
        return "not checked yet"
    line = f"{told['share']:.1%} of the true neighbours found, {told['worst']:.1%} at worst, {told['asked']:,} checks"
    return f"ALARM: {line}; an exact index finds all" if told["alarm"] else line


def _shown(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if name in ("started_at", "last_bar"):
        return format_time(value)
    if name == "profit":
        return f"{value:+,.2f}"
    if name == "last_retraining":
        return _retraining_line(value)
    if name == "memory_recall":
        return _recall_line(value)
    if isinstance(value, float):
        return f"{value:,.2f}"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return f"{value:,}" if isinstance(value, int) else str(value)
