"""What a client may do to the account, the same over REST and over the websocket: parameters in, Bybit's result out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from backtest.sandbox.account import MarginSetting
from backtest.sandbox.exchange import Exchange
from backtest.sandbox.protocol import JsonObject
from backtest.sandbox.records import BookKey, Category, PositionMode, VenueOrder
from backtest.sandbox.refusals import ORDER_GONE, SPOT_ORDER_GONE, VenueRefusal, bad_parameter
from backtest.sandbox.tickets import (
    Parameters,
    number,
    order_filter,
    read_category,
    read_name,
    read_ticket,
    text,
    whole,
)

LARGEST_BATCH: Final = {Category.LINEAR: 20, Category.SPOT: 10, Category.INVERSE: 20, Category.OPTION: 20}
_GONE: Final = {
    "cancel": "order not exists or too late to cancel",
    "replace": "order not exists or too late to replace",
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a request came to."""

    result: JsonObject
    extra: JsonObject = field(default_factory=dict)
    """``retExtInfo``: of batches, the code of each order."""


class Operations:
    """Requests that change something."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def create(self, parameters: Parameters) -> Outcome:
        """``/v5/order/create``."""
        return Outcome(_named(self._exchange.create(read_ticket(parameters))))

    def amend(self, parameters: Parameters) -> Outcome:
        """``/v5/order/amend``."""
        order = self._find(parameters, "replace")
        self._exchange.amend(
            order,
            quantity=number(parameters, "qty"),
            price=number(parameters, "price"),
            trigger_price=number(parameters, "triggerPrice"),
            stop_loss=number(parameters, "stopLoss"),
            take_profit=number(parameters, "takeProfit"),
        )
        return Outcome(_named(order))

    def cancel(self, parameters: Parameters) -> Outcome:
        """``/v5/order/cancel``."""
        order = self._find(parameters, "cancel")
        if order.book.category is Category.SPOT and not order.is_of(order_filter(parameters)):
            raise VenueRefusal(SPOT_ORDER_GONE)
        self._exchange.cancel(order)
        return Outcome(_named(order))

    def cancel_all(self, parameters: Parameters) -> Outcome:
        """``/v5/order/cancel-all``."""
        category = read_category(parameters)
        symbol, base, settle = (text(parameters, name) for name in ("symbol", "baseCoin", "settleCoin"))
        if category is Category.LINEAR and not (symbol or base or settle):
            raise bad_parameter("params error: symbol or baseCoin or settleCoin is required")
        kind = order_filter(parameters) if category is Category.SPOT else text(parameters, "orderFilter")
        cancelled = []
        for order in self._exchange.open_orders():
            if order.book.category is not category or not order.is_open:
                continue
            if (symbol and order.book.symbol != symbol) or (base and not order.book.symbol.startswith(base)):
                continue
            if (settle and settle != "USDT") or not order.is_of(kind):
                continue
            self._exchange.cancel(order)
            cancelled.append(_named(order))
        return Outcome({"list": cancelled, "success": "1"})

    def create_batch(self, parameters: Parameters) -> Outcome:
        """``/v5/order/create-batch``: each order by itself, the code of each in ``retExtInfo``."""
        return self._batch(parameters, self.create, {"createAt": ""})

    def amend_batch(self, parameters: Parameters) -> Outcome:
        """``/v5/order/amend-batch``."""
        return self._batch(parameters, self.amend, {})

    def cancel_batch(self, parameters: Parameters) -> Outcome:
        """``/v5/order/cancel-batch``."""
        return self._batch(parameters, self.cancel, {})

    def set_leverage(self, parameters: Parameters) -> Outcome:
        """``/v5/position/set-leverage``."""
        _linear(parameters)
        buy, sell = number(parameters, "buyLeverage"), number(parameters, "sellLeverage")
        if buy is None or sell is None:
            raise bad_parameter("params error: leverage invalid")
        if buy != sell:
            raise bad_parameter("buy leverage not equal sell leverage")
        self._exchange.set_leverage(text(parameters, "symbol"), buy)
        return Outcome({})

    def switch_mode(self, parameters: Parameters) -> Outcome:
        """``/v5/position/switch-mode``."""
        _linear(parameters)
        if not text(parameters, "symbol") and not text(parameters, "coin"):
            raise bad_parameter("params error: symbol or coin is required")
        try:
            mode = PositionMode(whole(parameters, "mode", -1))
        except ValueError:
            raise bad_parameter("params error: position_mode invalid") from None
        self._exchange.switch_mode(mode)
        return Outcome({})

    def trading_stop(self, parameters: Parameters) -> Outcome:
        """``/v5/position/trading-stop``: levels of the whole position."""
        _linear(parameters)
        for name in ("trailingStop", "activePrice", "tpSize", "slSize", "tpLimitPrice", "slLimitPrice"):
            if number(parameters, name):
                raise bad_parameter(f"the sandbox has tpslMode Full without {name}")
        if text(parameters, "tpslMode") == "Partial":
            raise bad_parameter("the sandbox has tpslMode Full only")
        symbol, index = text(parameters, "symbol"), whole(parameters, "positionIdx", 0)
        if symbol not in self._exchange.instruments:
            raise bad_parameter("params error: symbol invalid")
        if index not in self._exchange.standing.indices:
            raise bad_parameter("position idx not match position mode")
        self._exchange.protect(
            BookKey(Category.LINEAR, symbol, index),
            stop_loss=number(parameters, "stopLoss"),
            take_profit=number(parameters, "takeProfit"),
        )
        return Outcome({})

    def set_margin_mode(self, parameters: Parameters) -> Outcome:
        """``/v5/account/set-margin-mode``."""
        try:
            margin = MarginSetting(text(parameters, "setMarginMode"))
        except ValueError:
            raise bad_parameter("params error: setMarginMode invalid") from None
        self._exchange.set_margin(margin)
        return Outcome({"reasons": []})

    def _find(self, parameters: Parameters, deed: str) -> VenueOrder:
        category = read_category(parameters)
        order_id, link_id = read_name(parameters)
        order = self._exchange.find(category, order_id, link_id)
        symbol = text(parameters, "symbol")
        if order is None or (symbol and symbol != order.book.symbol):
            if category is Category.SPOT:
                raise VenueRefusal(SPOT_ORDER_GONE)
            raise VenueRefusal(ORDER_GONE, _GONE[deed])
        return order

    def _batch(self, parameters: Parameters, one: Callable[[Parameters], Outcome], added: JsonObject) -> Outcome:
        category = read_category(parameters)
        requests = parameters.get("request")
        if not isinstance(requests, list) or not requests:
            raise bad_parameter("params error: request invalid")
        if len(requests) > LARGEST_BATCH[category]:
            raise bad_parameter(f"the number of orders exceeds {LARGEST_BATCH[category]}")
        results, codes = [], []
        for request in requests:
            wanted: Mapping[str, Any] = request if isinstance(request, dict) else {}
            row = {"category": str(category), "symbol": text(wanted, "symbol")}
            try:
                row |= one({**wanted, "category": str(category)}).result
                codes.append({"code": 0, "msg": "OK"})
                if added:
                    row["createAt"] = str(self._exchange.now())
            except VenueRefusal as problem:
                row |= {"orderId": text(wanted, "orderId"), "orderLinkId": text(wanted, "orderLinkId"), **added}
                codes.append({"code": problem.code, "msg": problem.message})
            results.append(row)
        return Outcome({"list": results}, {"list": codes})


def _named(order: VenueOrder) -> JsonObject:
    return {"orderId": order.order_id, "orderLinkId": order.link_id}


def _linear(parameters: Parameters) -> None:
    if read_category(parameters) is not Category.LINEAR:
        raise bad_parameter("params error: Category is invalid")
