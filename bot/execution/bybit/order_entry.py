"""Where orders enter the venue: what a request says, and what a way in besides REST has to offer."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, Protocol

from bot.execution.bybit.spot import GUARD_FILTER
from bot.execution.instruments import Category
from bot.orders import Order, OrderType, Side, TriggerDirection

_SIDES: Final = {Side.BUY: "Buy", Side.SELL: "Sell"}


class Operation(StrEnum):
    """Operations of the websocket trade API: https://bybit-exchange.github.io/docs/v5/websocket/trade/guideline."""

    CREATE = "order.create"
    CANCEL = "order.cancel"


class NotWritten(Exception):
    """The request has not left this machine, so that another way in may be taken."""


class OrderEntry(Protocol):
    """A way into the venue besides REST."""

    async def operate(self, operation: Operation, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        """Send a request once; returns the reply in REST's shape, with ``result``.

        Raises:
            NotWritten: nothing was sent.
            Refused: it was not carried out, or nobody knows.
        """


def order_parameters(order: Order, category: Category) -> dict[str, Any]:
    """The body of an order request; numbers as plain decimal texts.

    The spot market knows no positions, and so nothing that only reduces or guards one. Without ``marketUnit`` it takes the
    quantity of a market purchase as quote units; TP/SL orders have no such unit, and those of this bot only sell.
    https://bybit-exchange.github.io/docs/v5/order/create-order
    """
    parameters: dict[str, Any] = {
        "category": category,
        "symbol": order.symbol,
        "side": _SIDES[order.side],
        "orderType": "Market" if order.order_type is OrderType.MARKET else "Limit",
        "qty": f"{order.quantity:f}",
        "orderLinkId": order.client_order_id,
    }
    if order.order_type is OrderType.LIMIT:
        parameters["timeInForce"] = str(order.time_in_force)
    if order.limit_price is not None:
        parameters["price"] = f"{order.limit_price:f}"
    if category == "spot":
        if order.trigger_price is not None:
            parameters |= {"triggerPrice": f"{order.trigger_price:f}", "orderFilter": GUARD_FILTER}
        elif order.order_type is OrderType.MARKET:
            parameters["marketUnit"] = "baseCoin"
        return parameters
    parameters["positionIdx"] = 0
    if order.reduce_only:
        parameters["reduceOnly"] = True
    if order.close_on_trigger:
        parameters["closeOnTrigger"] = True
    if order.trigger_price is not None:
        parameters["triggerPrice"] = f"{order.trigger_price:f}"
        parameters["triggerDirection"] = 1 if order.trigger_direction is TriggerDirection.RISE else 2
    if order.stop_loss is not None:
        parameters["stopLoss"] = f"{order.stop_loss:f}"
    if order.take_profit is not None:
        parameters["takeProfit"] = f"{order.take_profit:f}"
    if order.stop_loss is not None or order.take_profit is not None:
        parameters["tpslMode"] = "Full"
    return parameters
