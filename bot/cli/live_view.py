"""What a person sees of a running bot: one status line, and a summary at the end."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.status import Status
from rich.table import Table

from bot.engine import Step
from bot.orders import Decision
from bot.paper import PaperRun
from bot.portfolio import Portfolio
from bot.session import Session
from strategies.bars import format_time

_LINES_WITHOUT_TERMINAL = 500


class LiveView:
    """A status line on a terminal; elsewhere a line for every fill and now and then one for the state."""

    def __init__(self, console: Console, session: Session, run: PaperRun, *, quiet: bool) -> None:
        self._console = console
        self._session = session
        self._run = run
        self._quiet = quiet
        self._status: Status | None = None
        self._bars = 0

    def __enter__(self) -> Self:
        if not self._quiet and self._console.is_terminal:
            self._status = self._console.status("waiting for the first closed bar ...", spinner="dots")
            self._status.start()
        elif not self._quiet:
            self._console.print("waiting for the first closed bar ...")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status is not None:
            self._status.stop()

    def show(self, step: Step) -> None:
        """Tell what a step brought."""
        self._bars += len(step.decisions)
        if self._quiet:
            return
        for fill in step.executions:
            self._console.print(
                f"{format_time(fill.time)}  {fill.side.upper():4} {fill.quantity} {fill.symbol} at {fill.price}  "
                f"fee {fill.fee:.4f}  [dim]{fill.kind}[/]"
            )
        line = self._line(step)
        if self._status is not None:
            self._status.update(line)
        elif self._bars == len(step.decisions) or self._bars % _LINES_WITHOUT_TERMINAL < len(step.decisions):
            self._console.print(line)

    def _line(self, step: Step) -> str:
        portfolio = self._run.engine.portfolio
        change = portfolio.equity / float(portfolio.initial_cash) - 1.0
        held = [f"{symbol} {p.quantity:+}" for symbol, p in portfolio.positions.items() if p.quantity]
        decision = step.decisions[-1]
        return (
            f"[bold]{format_time(decision.close_time)}[/]  bar {self._bars:,}  equity {portfolio.equity:,.2f} ({change:+.2%})"
            f"  {', '.join(held) or 'flat'}  {_wanted(decision)}  [dim]Ctrl-C stops[/]"
        )


def _wanted(decision: Decision) -> str:
    signal = decision.signal
    target = "unknown" if signal.target_exposure is None else f"{signal.target_exposure:+.2f}"
    remembered = ""
    if signal.explanation is not None and signal.explanation.neighbours:
        best = max(signal.explanation.neighbours, key=lambda neighbour: neighbour.weight)
        remembered = f", like {format_time(best.bar_open_time)[:10]} ({best.similarity:.2f}, then {best.outcome:+.1%})"
    return f"target {target}{remembered}"


def print_farewell(console: Console, document: dict[str, Any], portfolio: Portfolio) -> None:
    """The summary at the end of a session."""
    table = Table(title=f"run {document['run_id']}", show_header=False, box=None, title_justify="left")
    table.add_column(style="bold")
    table.add_row("bars decided", f"{document['bars']:,} now, {document['decisions']:,} decisions in the whole run")
    table.add_row("equity", f"{document['equity']:,.2f} ({document['total_return']:+.2%})")
    table.add_row("closed trades", f"{document['trades']:,}")
    table.add_row("fees paid", f"{document['fees_paid']:,.2f}")
    held = [
        f"{symbol} {p.quantity:+} at {p.entry_price:.2f}" for symbol, p in portfolio.positions.items() if p.quantity
    ]
    table.add_row("open positions", ", ".join(held) or "none")
    console.print(table)
    if document["finished"]:
        console.print("The venue has no more bars: the run is finished.")
    else:
        console.print(
            "The same command goes on with this run. Look at it with recall status, recall why, recall audit."
        )
