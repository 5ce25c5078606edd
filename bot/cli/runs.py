"""Commands that look at a run or tell it something: status, runs, positions, halt, resume, flatten, why."""

from __future__ import annotations

from typing import Any

import click
import msgspec
from rich.table import Table

from bot.cli.common import Context, console, output, standard_options
from bot.engine import EngineState
from bot.errors import UsageError
from bot.journal import Journal, RunStatus, StoredRun
from bot.orders import Decision, OperatorAction, OperatorCommand
from bot.risk import RiskState
from strategies.bars import format_time

_RUN_HELP = "A run's id [default: the newest paper run]."


def run_option(command: Any) -> Any:
    """Add ``--run``."""
    return click.option("--run", "run_id", default="latest", show_default=False, help=_RUN_HELP)(command)


def open_journal(context: Context) -> Journal:
    """The journal of the configuration."""
    return Journal(context.config.journal_url, durable=True)


def read_state(journal: Journal, run: StoredRun) -> EngineState | None:
    """Account, book and halts of a run after its last step."""
    stored = journal.read_state(run.record.run_id)
    return None if stored is None else msgspec.json.decode(stored[0], type=EngineState)


@click.command(epilog="Example: recall status --json")
@run_option
@standard_options
def status(context: Context, run_id: str) -> None:
    """Show how a run stands: account, position, halts, last decision."""
    journal = open_journal(context)
    run = journal.find_run(run_id)
    document = _status_document(journal, run)
    if context.as_json:
        context.answer(document)
        return
    table = Table(box=None, show_header=False)
    table.add_column(style="bold")
    for name, value in document.items():
        table.add_row(name.replace("_", " "), _shown(name, value))
    output.print(table)


@click.command(epilog="Example: recall runs --limit 5")
@click.option("--limit", default=20, show_default=True, help="How many.")
@standard_options
def runs(context: Context, limit: int) -> None:
    """List runs, newest first."""
    found = open_journal(context).list_runs(limit=limit)
    rows = [
        {
            "run_id": run.record.run_id,
            "kind": str(run.record.kind),
            "status": str(run.status),
            "strategy": run.record.strategy,
            "symbols": list(run.record.symbols),
            "interval": run.record.interval,
            "started_at": run.started_at,
        }
        for run in found
    ]
    if context.as_json:
        context.answer(rows)
        return
    table = Table("run", "kind", "status", "strategy", "symbols", "interval", "started", box=None, header_style="bold")
    for row in rows:
        cells = [row["run_id"], row["kind"], row["status"], row["strategy"], ",".join(row["symbols"]), row["interval"]]
        table.add_row(*cells, format_time(row["started_at"]))
    output.print(table if rows else "There are no runs yet: start one with recall paper.")


@click.command(epilog="Example: recall positions")
@run_option
@standard_options
def positions(context: Context, run_id: str) -> None:
    """Show the open positions of a run and the levels that protect them."""
    journal = open_journal(context)
    state = read_state(journal, journal.find_run(run_id))
    rows: list[dict[str, Any]] = []
    if state is not None:
        books = {book.symbol: book for book in state.books}
        marks = state.core.portfolio.marks
        for position in state.core.portfolio.positions:
            if position.quantity:
                book = books[position.symbol]
                mark = marks[position.symbol]
                rows.append(
                    {
                        "symbol": position.symbol,
                        "side": "long" if position.quantity > 0 else "short",
                        "quantity": str(position.quantity),
                        "entry_price": float(position.entry_price),
                        "mark": mark,
                        "unrealised": float(position.quantity) * mark - float(position.cost),
                        "stop_loss": None if book.stop_loss is None else str(book.stop_loss),
                        "take_profit": None if book.take_profit is None else str(book.take_profit),
                    }
                )
    if context.as_json:
        context.answer(rows)
        return
    if not rows:
        output.print("The book is flat.")
        return
    table = Table(*[name.replace("_", " ") for name in rows[0]], box=None, header_style="bold")
    for row in rows:
        table.add_row(*[f"{value:,.2f}" if isinstance(value, float) else str(value or "-") for value in row.values()])
    output.print(table)


def _operator(action: OperatorAction, told: str, summary: str) -> click.Command:
    @click.command(name=str(action), help=summary, epilog=f"Example: recall {action} --reason 'news ahead'")
    @run_option
    @click.option("--reason", default="", help="Why, for the journal.")
    @standard_options
    def command(context: Context, run_id: str, reason: str) -> None:
        journal = open_journal(context)
        run = journal.find_run(run_id)
        if run.status is RunStatus.FINISHED:
            raise UsageError(f"run {run.record.run_id} is finished, so there is nothing to {action}")
        command_id = journal.issue_command(run.record.run_id, OperatorCommand(action, reason))
        if context.as_json:
            context.answer({"run_id": run.record.run_id, "command": str(action), "command_id": command_id})
            return
        when = "at once" if run.status is RunStatus.RUNNING else "when the run goes on"
        console.print(f"[bold]{run.record.run_id}[/] {told} {when}.")

    return command


halt = _operator(
    OperatorAction.HALT, "opens nothing from now on; it takes effect", "Open nothing; manage what is open."
)
resume = _operator(OperatorAction.RESUME, "trades again; it takes effect", "Take away every halt.")
flatten = _operator(
    OperatorAction.FLATTEN,
    "closes every position at the next bar and halts; it takes effect",
    "Close every position and halt.",
)


@click.command(epilog="Examples: recall why last; recall why 1042 --run latest")
@click.argument("decision", default="last")
@run_option
@standard_options
def why(context: Context, decision: str, run_id: str) -> None:
    """Explain one DECISION (its number, or 'last'): what was seen, remembered, and ruled."""
    journal = open_journal(context)
    run = journal.find_run(run_id)
    found = _find_decision(journal, run, decision)
    if context.as_json:
        context.answer(msgspec.to_builtins(found))
        return
    _explain(found)


def _find_decision(journal: Journal, run: StoredRun, name: str) -> Decision:
    run_id = run.record.run_id
    if name == "last":
        state = read_state(journal, run)
        number = -1 if state is None else state.core.decisions - 1
    elif name.isdigit():
        number = int(name)
    else:
        raise UsageError(f"decision {name!r} is neither a number nor 'last'")
    found = journal.read_decisions(run_id, after=number - 1, limit=1) if number >= 0 else []
    if not found or found[0][1].number != number:
        kept = "" if run.record.kind == "paper" else "; replays keep all decisions only with --keep-decisions"
        raise UsageError(f"decision {name} of run {run_id} is not in the journal{kept}")
    return found[0][1]


def _explain(decision: Decision) -> None:
    signal = decision.signal
    wanted = (
        "holds what it has (unknown)"
        if signal.target_exposure is None
        else f"wants {signal.target_exposure:+.3f} of equity"
    )
    output.print(f"[bold]Decision {decision.number}[/]: {signal.symbol}, bar {format_time(signal.bar_open_time)}")
    output.print(f"The strategy {wanted}: {signal.reason or 'no reason given'}.")
    output.print(
        f"Position then {decision.position}, equity {decision.equity:,.2f}. Verdicts: {', '.join(decision.verdicts)}."
    )
    for order in decision.orders:
        levels = f", stop {order.stop_loss or '-'}, target {order.take_profit or '-'}"
        output.print(f"Order {order.client_order_id}: {order.side} {order.quantity} at {order.order_type}{levels}.")
    seen = signal.explanation
    if seen is None:
        return
    if seen.prediction is not None:
        gate = "" if seen.gate is None else f", the memory's share {seen.gate:.1%}"
        output.print(f"Model {seen.model_id or '-'}: prediction {seen.prediction:+.4f}{gate}.")
    if seen.neighbours:
        output.print(f"It remembers (of {seen.memory_size:,} moments):")
        table = Table("moment", "symbol", "similarity", "weight", "what followed", box=None, header_style="bold")
        for neighbour in sorted(seen.neighbours, key=lambda each: -each.weight)[:12]:
            cells = [format_time(neighbour.bar_open_time), neighbour.symbol, f"{neighbour.similarity:.3f}"]
            table.add_row(*cells, f"{neighbour.weight:.1%}", f"{neighbour.outcome:+.2%}")
        output.print(table)


def _status_document(journal: Journal, run: StoredRun) -> dict[str, Any]:
    record = run.record
    state = read_state(journal, run)
    document: dict[str, Any] = {
        "run_id": record.run_id,
        "kind": str(record.kind),
        "status": str(run.status),
        "strategy": record.strategy,
        "model_id": record.model_id or None,
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
        "profit": equity - float(portfolio.initial_cash),
        "fees_paid": float(portfolio.fees_paid),
        "trades": portfolio.trades_closed,
        "open_positions": sum(1 for position in portfolio.positions if position.quantity),
        "working_orders": sum(len(book.working) for book in state.books),
        "halts": _halts(core.risk),
        "waiting_commands": len(journal.waiting_commands(record.run_id)),
    }
    return document


def _halts(state: RiskState) -> list[str]:
    found = []
    if state.halted_by_operator:
        found.append("operator, flattening" if state.flatten else "operator")
    if state.halted_by_loss:
        found.append("daily loss")
    found += [f"{symbol} unavailable" for symbol in state.unavailable]
    return found


def _shown(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if name in ("started_at", "last_bar"):
        return format_time(value)
    if isinstance(value, float):
        return f"{value:,.2f}"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return str(value)
