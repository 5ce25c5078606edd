"""``recall why``: one decision, told so that a person can follow it."""

from __future__ import annotations

from collections.abc import Mapping
from math import expm1
from typing import Final

import click
import msgspec
from rich.text import Text

from bot.cli.common import Context, standard_options
from bot.cli.help import ExampleCommand
from bot.cli.runs import open_journal, read_state, run_option
from bot.cli.terminal import facts, listing, output
from bot.errors import UsageError
from bot.journal import Journal, RunKind, StoredRun, schema
from bot.orders import Decision, Order, OrderReason, Verdict
from strategies.bars import format_time
from strategies.base import Explanation, Signal

_MOST_NEIGHBOURS: Final = 10

VERDICTS: Final[dict[Verdict, str]] = {
    Verdict.FOLLOWED: "an order brings the position to the target",
    Verdict.ON_TARGET: "the position is on target already",
    Verdict.WITHIN_BAND: "the change is smaller than the no-trade band (risk.no_trade_band)",
    Verdict.UNKNOWN_HELD: "the strategy does not know, so the position is held and nothing is opened",
    Verdict.CLIPPED_POSITION: "cut to the largest position allowed (risk.max_position)",
    Verdict.CLIPPED_SYMBOL_LEVERAGE: "cut to the largest leverage of the symbol (maximum_leverage of its instrument)",
    Verdict.CLIPPED_LEVERAGE: "cut to the leverage allowed over all symbols (risk.max_leverage)",
    Verdict.CLIPPED_QUANTITY: "cut to the venue's largest market order",
    Verdict.BELOW_MINIMUM: "too small for the venue once rounded to its lots",
    Verdict.LATE_BAR: "the bar came late, so it may only reduce",
    Verdict.SYMBOL_UNAVAILABLE: "the symbol's data has a hole, so only exits are allowed",
    Verdict.HALTED_BY_LOSS: "halted by the daily loss limit (risk.daily_loss_limit)",
    Verdict.HALTED_BY_OPERATOR: "halted by the operator, so only exits are allowed",
    Verdict.FLATTENED_BY_OPERATOR: "the operator asked for a flat book",
    Verdict.ORDER_WORKING: "an earlier order of this symbol is still working",
    Verdict.LONG_ONLY: "a coin of the spot market cannot be sold short, so the target became flat",
    Verdict.BANKRUPT: "equity is gone, so nothing can be opened",
    Verdict.ACCOUNT_UNKNOWN: "the venue cannot be asked what the account is, so only exits are allowed",
    Verdict.FOREIGN: "somebody else trades the symbol on this account, so it is left alone",
}
REASONS: Final[dict[OrderReason, str]] = {
    OrderReason.CLIENT: "whoever sent it took it back",
    OrderReason.POST_ONLY: "it could have been filled at once, and was never to take",
    OrderReason.IMMEDIATE_OR_CANCEL: "the rest could not be filled at once",
    OrderReason.FILL_OR_KILL: "not all of it could be filled at once",
    OrderReason.REDUCE_ONLY: "there was no position left that it could reduce",
    OrderReason.PRICE_BAND: "its price is farther from the market than the venue allows",
    OrderReason.OFF_GRID: "its price is not on the tick, or its quantity not on the lot",
    OrderReason.BELOW_MINIMUM: "it is smaller than the venue takes",
    OrderReason.ABOVE_MAXIMUM: "it is larger than the venue takes",
    OrderReason.LIQUIDATION: "the margin of the account was gone",
    OrderReason.INCOMPLETE: "it lacks a price or a direction",
    OrderReason.VENUE: "the venue did not want it, or ended it by itself",
    OrderReason.LOST: "it was written down, and the venue has never heard of it",
}


@click.command(cls=ExampleCommand, examples=("recall why last", "recall why 1042", "recall why 1042 --run RUN --json"))
@click.argument("decision", default="last")
@run_option
@standard_options
def why(context: Context, decision: str, run_id: str) -> None:
    """Explain one DECISION: what was seen, remembered and ruled.

    DECISION is a number from 0 on, or 'last'.
    """
    journal = open_journal(context)
    run = journal.find_run(run_id)
    found = find_decision(journal, run, decision)
    rows = journal.read_rows(schema.orders, run_id=run.record.run_id, decision_number=found.number)
    fates = {row["client_order_id"]: {"status": row["status"], "reason": row["reason"]} for row in rows}
    if context.as_json:
        context.answer({**msgspec.to_builtins(found), "order_fates": fates})
        return
    _explain(found, fates)


def find_decision(journal: Journal, run: StoredRun, name: str) -> Decision:
    """A decision of a run by its number, or the last one.

    Raises:
        UsageError: there is no such decision.
    """
    if name != "last" and not name.isdecimal():
        raise UsageError(f"decision {name!r} is neither a number nor 'last'; see recall why --help")
    made = _decisions_made(journal, run)
    number = made - 1 if name == "last" else int(name)
    found = journal.read_decisions(run.record.run_id, after=number - 1, limit=1) if 0 <= number < made else []
    if found and found[0][1].number == number:
        return found[0][1]
    run_id = run.record.run_id
    if not made:
        raise UsageError(f"run {run_id} has not decided anything yet; let it run for a bar")
    if number >= made:
        raise UsageError(f"run {run_id} has made {made:,} decisions, the last is number {made - 1}; there is no {name}")
    raise UsageError(
        f"decision {name} of run {run_id} is not in the journal; replay it with recall backtest --keep-decisions"
    )


def _decisions_made(journal: Journal, run: StoredRun) -> int:
    if run.record.kind is RunKind.REPLAY:
        return 0 if run.summary is None else int(run.summary["bars"])
    state = read_state(journal, run)
    return 0 if state is None else state.core.decisions


def _explain(decision: Decision, fates: Mapping[str, Mapping[str, str | None]]) -> None:
    signal = decision.signal
    seen = signal.explanation
    output.print(f"[bold]Decision {decision.number:,}[/]  {signal.symbol}, bar {format_time(signal.bar_open_time)}\n")
    table = facts()
    table.add_row("wanted", Text(_wish(signal)))
    if signal.expected_return is not None:
        table.add_row("expected", _expectation(signal))
    if seen is not None and seen.prediction is not None:
        table.add_row("model", _model_view(seen))
    side = "long" if decision.position > 0 else "short"
    held = f"{side} {abs(decision.position)}" if decision.position else "nothing"
    table.add_row("held then", f"{held}, equity {decision.equity:,.2f}")
    for position, verdict in enumerate(decision.verdicts):
        table.add_row("" if position else "ruled", VERDICTS[verdict])
    for order in decision.orders:
        table.add_row("ordered", _order_text(order))
        table.add_row("became", _fate_text(fates.get(order.client_order_id, {})))
    output.print(table)
    if seen is not None and seen.neighbours:
        _show_neighbours(seen)


def _wish(signal: Signal) -> str:
    reason = f": {signal.reason}" if signal.reason else ""
    if signal.target_exposure is None:
        return f"unknown, so hold{reason}"
    if signal.target_exposure == 0.0:
        return f"no position{reason}"
    side = "long" if signal.target_exposure > 0.0 else "short"
    return f"{side} with {abs(signal.target_exposure):.1%} of equity{reason}"


def _expectation(signal: Signal) -> str:
    text = f"{_percent(signal.expected_return)} over the primary horizon"
    if len(signal.quantiles) < 2:
        return text
    (low, worst), (high, best) = signal.quantiles[0], signal.quantiles[-1]
    text += f", with {high - low:.0%} between {_percent(worst)} and {_percent(best)}"
    seen = signal.explanation
    if seen is None or seen.rise_probability is None or seen.volatility is None:
        return text
    return f"{text}; a rise with {seen.rise_probability:.0%}, volatility {seen.volatility:.2%}"


def _percent(log_return: float | None) -> str:
    """A log return as a change of price, which is what a percent sign means to a trader."""
    return "-" if log_return is None else f"{expm1(log_return):+.2%}"


def _model_view(seen: Explanation) -> str:
    share = "" if seen.gate is None else f", where the memory has a share of {seen.gate:.1%}"
    return f"{seen.model_id or '-'} predicts {seen.prediction:+.3f}{share}"


def _order_text(order: Order) -> str:
    levels = f"stop {order.stop_loss or 'none'}, target {order.take_profit or 'none'}"
    if order.reduce_only:
        levels = "only to reduce the position"
    price = "market" if order.limit_price is None else f"limit {order.limit_price}"
    return f"{order.side} {order.quantity} at {price}, {levels} (id {order.client_order_id})"


def _fate_text(fate: Mapping[str, str | None]) -> str:
    """What has become of an order."""
    status, reason = fate.get("status"), fate.get("reason")
    if status in (None, "intended"):
        return "not known yet: it waits"
    return f"{status}: {REASONS[OrderReason(reason)]}" if reason else str(status)


def _show_neighbours(seen: Explanation) -> None:
    closest = sorted(seen.neighbours, key=lambda neighbour: -neighbour.weight)
    rose = sum(neighbour.weight for neighbour in closest if neighbour.outcome > 0.0)
    average = sum(neighbour.weight * expm1(neighbour.outcome) for neighbour in closest)
    output.print(
        f"\nIt remembered {len(closest)} of {seen.memory_size:,} moments. "
        f"By weight {rose:.0%} of them rose, {average:+.2%} on average:",
        soft_wrap=True,
    )
    columns = ("similarity", "weight", "what followed")
    table = listing("bar", "symbol", *columns, right=columns)
    for neighbour in closest[:_MOST_NEIGHBOURS]:
        after = Text(_percent(neighbour.outcome), style="green" if neighbour.outcome > 0.0 else "red")
        cells = (format_time(neighbour.bar_open_time), neighbour.symbol, f"{neighbour.similarity:.3f}")
        table.add_row(*cells, f"{neighbour.weight:.1%}", after)
    output.print(table)
    if len(closest) > _MOST_NEIGHBOURS:
        output.print(f"and {len(closest) - _MOST_NEIGHBOURS} more; --json shows all", style="dim")
