"""Comparing what the journal believes with what the venue says. Pure: two views in, corrections out.

The venue wins. What is not ours, an order that we did not send or a position that our fills do not explain, is never
touched: it is a reason to stand down. Applying the corrections to the journal's view and comparing again finds nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Final

from bot.execution.bybit.decode import ExecutionType, VenueExecution, VenueOrder, VenueOrderStatus, is_protective
from bot.execution.bybit.spot import fee_of
from bot.orders import ZERO


@dataclass(frozen=True, slots=True)
class JournalView:
    """What the journal believes."""

    working: frozenset[str]
    """Client order ids of orders that may still be filled, sent or about to be."""
    known: frozenset[str]
    """Client order ids of all orders of the run."""
    executions: frozenset[str]
    """Ids of all executions that were applied."""
    positions: Mapping[str, Decimal]
    """Signed quantity by symbol."""
    symbols: frozenset[str] = frozenset()
    """What the run trades: fills of these at the levels of a position are its own, though they name no order of it."""
    is_spot: bool = False
    """Positions are coins, and a purchase pays its fee in them."""


@dataclass(frozen=True, slots=True)
class VenueView:
    """What the venue says. Its parts must have been asked for after one another with nothing pushed in between."""

    orders: tuple[VenueOrder, ...]
    """Open and recently closed ones."""
    executions: tuple[VenueExecution, ...]
    positions: Mapping[str, Decimal]
    stop_losses: Mapping[str, Decimal | None] = field(default_factory=dict)
    """At which price the venue itself closes a position, by symbol; ``None`` where it does not."""
    costs: Mapping[str, Decimal] = field(default_factory=dict)
    """Signed quantity times average price of each position, by symbol: what its wallet reckons it at."""


@dataclass(frozen=True, slots=True)
class MissedExecution:
    """A fill of ours that never arrived: it is to be applied as if it had."""

    execution: VenueExecution


@dataclass(frozen=True, slots=True)
class EndedOrder:
    """An order that the journal has as working and the venue has not."""

    client_order_id: str
    status: VenueOrderStatus
    """``UNKNOWN``: the venue does not know it, so that it never arrived or has been forgotten."""


@dataclass(frozen=True, slots=True)
class ForeignOrder:
    """An open order that the run did not send."""

    order: VenueOrder


@dataclass(frozen=True, slots=True)
class ForeignPosition:
    """A position that is not what our fills come to: somebody else traded this symbol, or a fill is past the venue's memory."""

    symbol: str
    believed: Decimal
    held: Decimal


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """What the comparison found."""

    missed: tuple[MissedExecution, ...] = ()
    ended: tuple[EndedOrder, ...] = ()
    foreign_orders: tuple[ForeignOrder, ...] = ()
    foreign_positions: tuple[ForeignPosition, ...] = ()

    @property
    def is_equal(self) -> bool:
        """Both views agree."""
        return not (self.missed or self.ended or self.foreign_orders or self.foreign_positions)


@dataclass(frozen=True, slots=True)
class _Missed:
    found: tuple[MissedExecution, ...] = ()
    change: Mapping[str, Decimal] = field(default_factory=dict)


def reconcile(journal: JournalView, venue: VenueView) -> Reconciliation:
    """Corrections that make the journal's view the venue's."""
    missed = _missed(journal, venue)
    believed = {
        symbol: journal.positions.get(symbol, ZERO) + missed.change.get(symbol, ZERO)
        for symbol in {*journal.positions, *missed.change, *venue.positions}
    }
    return Reconciliation(
        missed.found,
        _ended(journal, venue),
        tuple(
            ForeignOrder(order)
            for order in sorted(venue.orders, key=lambda order: order.order_id)
            if order.is_open and not order.guards_position and order.client_order_id not in journal.known
        ),
        tuple(
            ForeignPosition(symbol, believed[symbol], venue.positions.get(symbol, ZERO))
            for symbol in sorted(believed)
            if believed[symbol] != venue.positions.get(symbol, ZERO)
        ),
    )


_FORCED: Final = frozenset({ExecutionType.ADL, ExecutionType.BUST})


def is_own(execution: VenueExecution, known: Collection[str], symbols: Collection[str]) -> bool:
    """Whether a fill changes the run's own position: by an order of it, or because of the position itself.

    Args:
        execution: of the account.
        known: client order ids of all orders of the run.
        symbols: what it trades.
    """
    if execution.client_order_id in known:
        return execution.kind in _FORCED or execution.kind is ExecutionType.TRADE
    by_position = execution.kind in _FORCED or (
        execution.kind is ExecutionType.TRADE and is_protective(execution.stop_type)
    )
    return by_position and execution.symbol in symbols


def corrected(journal: JournalView, found: Reconciliation) -> JournalView:
    """The journal's view once its own corrections are applied; what is foreign stays as it is."""
    positions = dict(journal.positions)
    for missed in found.missed:
        execution = missed.execution
        change = _change_of(execution, journal.is_spot)
        positions[execution.symbol] = positions.get(execution.symbol, ZERO) + change
    return replace(
        journal,
        working=journal.working - {ended.client_order_id for ended in found.ended},
        executions=journal.executions | {missed.execution.execution_id for missed in found.missed},
        positions=positions,
    )


def _change_of(execution: VenueExecution, is_spot: bool) -> Decimal:
    assert execution.side is not None
    withheld = fee_of(execution)[1] if is_spot else ZERO
    return execution.quantity * execution.side.sign - withheld


def _missed(journal: JournalView, venue: VenueView) -> _Missed:
    ours = {order.order_id for order in venue.orders if order.client_order_id in journal.known}
    fresh = {
        execution.execution_id: execution
        for execution in venue.executions
        if execution.execution_id not in journal.executions
        and execution.side is not None
        # Also a fill that names no order of the client's, as those of some topics do.
        and (execution.order_id in ours or is_own(execution, journal.known, journal.symbols))
    }
    found = sorted(fresh.values(), key=lambda execution: (execution.time, execution.sequence, execution.execution_id))
    change: dict[str, Decimal] = {}
    for execution in found:
        change[execution.symbol] = change.get(execution.symbol, ZERO) + _change_of(execution, journal.is_spot)
    return _Missed(tuple(MissedExecution(execution) for execution in found), change)


def _ended(journal: JournalView, venue: VenueView) -> tuple[EndedOrder, ...]:
    told = {order.client_order_id: order for order in venue.orders}
    ended = []
    for name in sorted(journal.working):
        order = told.get(name)
        if order is None:
            ended.append(EndedOrder(name, VenueOrderStatus.UNKNOWN))
        elif not order.is_open:
            ended.append(EndedOrder(name, order.status))
    return tuple(ended)
