"""The books of the matching: what waits, what is held, and between which prices nothing can happen."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Final

import msgspec

from bot.orders import ZERO, ExecutionKind, Order, written

ANY_BAR: Final = (math.inf, -math.inf)
"""The quiet range of a symbol with an order that waits: no bar lies in it."""


class Progress(msgspec.Struct, omit_defaults=True):
    """How far an order has come that still waits."""

    filled: Decimal = ZERO
    """Base units."""
    cost: Decimal = ZERO
    """Quantity times price of what is filled."""
    fills: int = 0
    protections: int = 0
    """Executions at levels that it has set, while it waits to be filled further."""
    wait: int = 0
    """Bars that it lets pass before it meets one."""
    triggered: bool = False
    rests: bool = False
    """It has come to the market, and others may take it."""
    ahead: Decimal = ZERO
    """Base units that stand before it at its price."""

    @property
    def average_price(self) -> Decimal | None:
        """Of what is filled; ``None`` where nothing is."""
        return self.cost / self.filled if self.filled else None


class WorkingOrder(msgspec.Struct, frozen=True):
    """An order that waits, and what has become of it so far."""

    order: Order
    filled: Decimal = ZERO
    average_price: Decimal | None = None
    triggered: bool = False
    """Whether it is conditional no more; false for an order without a trigger."""
    rests: bool = False
    """Whether it has come to the market and waits there."""

    @property
    def remaining(self) -> Decimal:
        """Base units still to be filled."""
        return self.order.quantity - self.filled


class Exit(msgspec.Struct, frozen=True):
    """A level that was reached by a position larger than the volume let out."""

    kind: ExecutionKind
    """Stop loss or take profit."""
    price: Decimal
    """Of the market when it was reached, before what a taker pays: no part of the exit gets a better one."""


def _no_orders() -> list[Order]:
    return []


class BookSide(msgspec.Struct, omit_defaults=True):
    """What the matching knows of one symbol: orders that wait, the position, and the levels that protect it."""

    symbol: str
    working: list[Order] = msgspec.field(default_factory=_no_orders)
    """In the order of submission. Written even where it is empty; see ``bot.orders.written``."""
    quantity: Decimal = written(ZERO)
    stop_loss: Decimal | None = written(None)
    take_profit: Decimal | None = written(None)
    protected_by: str = written("")
    """Client order id of the order that set the levels."""
    protective_fills: int = written(0)
    progress: dict[str, Progress] = {}
    """Of those waiting orders that something has happened to, by client order id."""
    cost: Decimal = ZERO
    """Signed cost of the position, quantity times average entry price; kept where positions can be liquidated."""
    liquidation: Decimal | None = None
    """Price at which the venue takes the position over."""
    bankruptcy: Decimal | None = None
    """Price at which the position's margin is gone: what it is closed at then."""
    leaving: Exit | None = None
    """The exit that is under way: what is left of the position goes to the next opens."""
    guard: Order | None = None
    """Of coins at a venue: the conditional sale there that is their stop loss; see ``bot.orders.GuardOrder``."""
    guards: int = 0
    """How many there have been."""

    def copy(self) -> BookSide:
        """One that does not change with this one."""
        progress = {name: msgspec.structs.replace(each) for name, each in self.progress.items()}
        return msgspec.structs.replace(self, working=list(self.working), progress=progress)

    def quiet_range(self) -> tuple[float, float]:
        """Between these two prices no bar can touch a level of the position; the levels themselves count as touched."""
        if self.leaving is not None:
            return ANY_BAR
        stop, target = self.stop_loss, self.take_profit
        if self.liquidation is not None:
            nearer = max if self.quantity > 0 else min
            stop = self.liquidation if stop is None else nearer(stop, self.liquidation)
        below, above = (stop, target) if self.quantity > 0 else (target, stop)
        return (
            -math.inf if below is None else float(below),
            math.inf if above is None else float(above),
        )

    def shown(self, order: Order) -> WorkingOrder:
        """A waiting order for readers."""
        progress = self.progress.get(order.client_order_id)
        if progress is None:
            return WorkingOrder(order)
        return WorkingOrder(order, progress.filled, progress.average_price, progress.triggered, progress.rests)
