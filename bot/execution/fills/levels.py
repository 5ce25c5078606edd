"""How a position leaves the market: at its stop loss, at its take profit, or taken over by the venue.

A stop or target that the open has already passed fills at the open, any other at its level. Both are market orders once
reached, as at Bybit: worsened like these, charged as taker, and bounded by the volume like these. What the volume of the bar
does not let out goes to the next opens, ahead of every order that waits, and never at a better price than that of the moment
when the level was reached: a price that comes back does not make good what could not be sold. Until it is out the position can
still be liquidated, and nothing else of the symbol is filled.

A liquidation closes the whole position at once, as the venue takes it over, whatever the volume.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from bot.execution.fills.book import Exit
from bot.execution.fills.moment import Moment, is_beyond
from bot.execution.instruments import exact
from bot.orders import ZERO, Execution, ExecutionKind, Side

_STOP_LOSS: Final = ExecutionKind.STOP_LOSS
_TAKE_PROFIT: Final = ExecutionKind.TAKE_PROFIT
_LIQUIDATION: Final = ExecutionKind.LIQUIDATION


class LevelExits:
    """What a bar does to the levels of a position."""

    __slots__ = ("_moment",)

    def __init__(self, moment: Moment) -> None:
        self._moment = moment

    def go_on(self) -> None:
        """Bring what is left of an exit to the market at the open."""
        moment = self._moment
        book, opened = moment.book, moment.opened
        leaving, liquidation = book.leaving, book.liquidation
        if leaving is None:
            return
        is_long = book.quantity > 0
        if liquidation is not None and is_beyond(opened, liquidation, is_long):
            self._take_over()
            return
        self._leave(_worse(opened, leaving.price, is_long), leaving.kind)

    def look_at_stop(self) -> None:
        """Stop loss or liquidation, whichever the price comes to first."""
        moment = self._moment
        book, opened = moment.book, moment.opened
        stop, liquidation = book.stop_loss, book.liquidation
        if not book.quantity or (stop is None and liquidation is None):
            return
        is_long, is_leaving = book.quantity > 0, book.leaving is not None
        extreme = exact(moment.bar.low) if is_long else exact(moment.bar.high)
        if liquidation is not None and is_beyond(extreme, liquidation, is_long):
            is_first = stop is None or not is_beyond(liquidation, stop, is_long) or liquidation == stop
            if is_leaving or is_first or is_beyond(opened, liquidation, is_long):
                self._take_over()
                return
        if stop is not None and not is_leaving and is_beyond(extreme, stop, is_long):
            self._leave(_worse(opened, stop, is_long), _STOP_LOSS)
            if book.leaving is not None:
                self.look_at_stop()  # What is left may fall on, to where the venue takes it over.

    def look_at_target(self) -> None:
        """Take profit, where the price went through it."""
        moment = self._moment
        book, opened = moment.book, moment.opened
        target = book.take_profit
        if target is None or not book.quantity or book.leaving is not None:
            return
        if book.quantity > 0 and exact(moment.bar.high) > target:
            self._leave(max(opened, target), _TAKE_PROFIT)
        elif book.quantity < 0 and exact(moment.bar.low) < target:
            self._leave(min(opened, target), _TAKE_PROFIT)

    def take_over(self, price: Decimal) -> None:
        """Let the venue close the position around ``price``."""
        moment = self._moment
        quantity = moment.book.quantity
        side = Side.SELL if quantity > 0 else Side.BUY
        taken = moment.pricing.taken(price, side, abs(quantity), moment.bar, sent=False)
        self._close(taken, abs(quantity), _LIQUIDATION)

    def _take_over(self) -> None:
        """The venue closes the position at the price that is left of its margin."""
        book = self._moment.book
        assert book.bankruptcy is not None
        self._close(book.bankruptcy, abs(book.quantity), _LIQUIDATION)

    def _leave(self, market: Decimal, kind: ExecutionKind) -> None:
        """Close what the volume lets out of a position whose level was reached, where the price is ``market``."""
        moment = self._moment
        book, wanted = moment.book, abs(moment.book.quantity)
        quantity = wanted
        if moment.budget is not None and moment.rules.share_exits:
            quantity = min(wanted, moment.budget)
            moment.budget -= quantity
            if quantity < wanted and book.leaving is None:
                book.leaving = Exit(kind, market)
            if not quantity:
                return
        side = Side.SELL if book.quantity > 0 else Side.BUY
        self._close(moment.pricing.taken(market, side, quantity, moment.bar, sent=False), quantity, kind)

    def _close(self, price: Decimal, quantity: Decimal, kind: ExecutionKind) -> None:
        """Book an exit of so much of the position."""
        moment = self._moment
        book = moment.book
        side = Side.SELL if book.quantity > 0 else Side.BUY
        book.protective_fills += 1
        if book.protected_by in book.progress:
            # Another order may set the levels before this one does again, and ids must go on counting.
            book.progress[book.protected_by].protections = book.protective_fills
        moment.executions.append(
            Execution(
                execution_id=f"{book.protected_by}-p{book.protective_fills}",
                client_order_id=book.protected_by,
                symbol=book.symbol,
                side=side,
                quantity=quantity,
                price=price,
                fee=price * quantity * moment.pricing.taker_fee,
                kind=kind,
                time=moment.bar.open_time,
            )
        )
        moment.hold(quantity if side is Side.BUY else -quantity, price)
        if not book.quantity:
            book.quantity = ZERO
            book.stop_loss = book.take_profit = book.leaving = None


def _worse(one: Decimal, other: Decimal, is_long: bool) -> Decimal:
    """The price at which who leaves a position has less."""
    return min(one, other) if is_long else max(one, other)
