"""What a person sees of a running bot: fills as they happen, one status line, and a summary at the end."""

from __future__ import annotations

from math import expm1
from types import TracebackType
from typing import Any, Final, Self

from rich.console import Console
from rich.status import Status
from rich.text import Text

from bot.cli.terminal import facts
from bot.engine import Step
from bot.orders import AccountStanding, Decision, Execution, Notice, NoticeKind, Side
from bot.portfolio import Portfolio
from bot.run import Run
from bot.trading import AccountNews
from strategies.bars import format_time

_LINES_WITHOUT_TERMINAL: Final = 500
_MOST_HOLDINGS: Final = 3
_MARGIN: Final = 5
"""Columns of the spinner before the line, and of the ^C that a terminal writes behind it."""


class LiveView:
    """A status line on a terminal; elsewhere a line for every fill and now and then one for the state."""

    def __init__(self, console: Console, run: Run, *, quiet: bool) -> None:
        self._console = console
        self._run = run
        self._quiet = quiet
        self._status: Status | None = None
        self._bars = 0

    def __enter__(self) -> Self:
        if not self._quiet:
            self._console.print("Waiting for the first closed bar. Ctrl-C stops cleanly.")
            if self._console.is_terminal:
                self._status = self._console.status("", spinner="dots")
                self._status.start()
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
            self._console.print(_fill_line(fill))
        if self._status is not None:
            line = self._line(step)
            line.truncate(self._console.width - _MARGIN, overflow="ellipsis")
            self._status.update(line)
        elif self._bars == len(step.decisions) or self._bars % _LINES_WITHOUT_TERMINAL < len(step.decisions):
            self._console.print(self._line(step), soft_wrap=True)

    def tell(self, news: AccountNews) -> None:
        """Tell what the account told."""
        if self._quiet:
            return
        for event in news:
            if isinstance(event, Execution):
                self._console.print(_fill_line(event))
            elif isinstance(event, Notice):
                colour = "red" if event.kind is NoticeKind.ALARM else "yellow"
                self._console.print(Text.assemble((f"{event.kind}: ", colour), f"{event.symbol} {event.text}".strip()))
            elif isinstance(event, AccountStanding) and not event.known:
                self._console.print(Text(f"Exits only until the account is known: {event.reason}.", style="yellow"))

    def _line(self, step: Step) -> Text:
        """What matters most comes first: a narrow terminal cuts the end."""
        portfolio = self._run.engine.portfolio
        change = portfolio.equity / float(portfolio.invested) - 1.0
        decision = step.decisions[-1]
        return Text.assemble(
            (format_time(decision.close_time), "bold"),
            f"  bar {self._bars:,}  {portfolio.equity:,.2f} ",
            (f"({change:+.2%})", _colour(change)),
            f"  {_holdings(portfolio)}  {_wish(decision)}",
            (_work(self._run), "dim"),
        )


def _work(run: Run) -> str:
    """What happens to the model in the background, if anything."""
    progress = None if run.models is None else run.models.progress
    if progress is None:
        return ""
    return f"  {progress.phase} {progress.share:.0%}" if progress.share else f"  {progress.phase} a model"


def _fill_line(fill: Execution) -> Text:
    return Text.assemble(
        f"{format_time(fill.time)}  ",
        (f"{fill.side.upper():4}", "green" if fill.side is Side.BUY else "red"),
        f" {fill.quantity} {fill.symbol} at {fill.price}, fee {fill.fee:.2f}",
        (f"  {fill.kind.replace('_', ' ')}", "dim"),
    )


def _holdings(portfolio: Portfolio) -> str:
    held = [f"{symbol} {p.quantity:+}" for symbol, p in portfolio.positions.items() if p.quantity]
    more = f" and {len(held) - _MOST_HOLDINGS} more" if len(held) > _MOST_HOLDINGS else ""
    return ", ".join(held[:_MOST_HOLDINGS]) + more if held else "flat"


def _wish(decision: Decision) -> str:
    signal = decision.signal
    text = "wants ?" if signal.target_exposure is None else f"wants {signal.target_exposure:+.2f}"
    if signal.explanation is not None and signal.explanation.neighbours:
        best = max(signal.explanation.neighbours, key=lambda neighbour: neighbour.weight)
        text += f"  like {format_time(best.bar_open_time)[:10]} (then {expm1(best.outcome):+.1%})"
    return text


def _colour(change: float) -> str:
    return "green" if change > 0.0 else "red" if change < 0.0 else ""


def print_farewell(console: Console, document: dict[str, Any], portfolio: Portfolio, *, goes_on: bool) -> None:
    """The summary at the end of a session; ``goes_on`` where the next one can take the run up again."""
    table = facts()
    table.add_row("run", document["run_id"])
    table.add_row("bars", f"{document['bars']:,} in this session, {document['decisions']:,} decisions in the whole run")
    change = document["total_return"]
    table.add_row("equity", Text.assemble(f"{document['equity']:,.2f} ", (f"({change:+.2%})", _colour(change))))
    table.add_row("closed trades", f"{document['trades']:,}")
    table.add_row("fees paid", f"{document['fees_paid']:,.2f}")
    held = [
        f"{symbol} {p.quantity:+} at {float(p.entry_price):,.8g}"
        for symbol, p in portfolio.positions.items()
        if p.quantity
    ]
    table.add_row("open positions", ", ".join(held) or "none")
    console.print()
    console.print(table)
    console.print()
    if document["finished"]:
        console.print("The venue has no more bars, so the run is finished.")
    elif goes_on:
        console.print("The same command goes on with this run.")
    else:
        console.print(
            "The account was a sandbox's inside this process and has ended with it; the next run is a new one."
        )
    console.print("Look at it with recall status, positions, why last; prove it with recall audit.")
