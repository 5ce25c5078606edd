"""Orders, executions, positions and balances as Bybit puts them on the wire: every number a string, times too.

Field names are those of https://bybit-exchange.github.io/docs/v5/order/order-list and its neighbours, and of the pages of the
private streams; a field that says nothing here holds what Bybit sends then.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal

from backtest.sandbox.protocol import JsonObject
from backtest.sandbox.records import SIDE_TEXT, TYPE_TEXT, BookKey, Category, ClosedProfit, VenueExecution, VenueOrder
from bot.execution.instruments import Instrument
from bot.orders import ZERO

_EIGHT_PLACES = Decimal("1e-8")


@dataclass(frozen=True, slots=True)
class PositionView:
    """One position at a moment."""

    key: BookKey
    instrument: Instrument
    quantity: Decimal
    """Negative when short."""
    entry_price: Decimal
    mark_price: Decimal
    leverage: Decimal
    unrealised: Decimal
    realised: Decimal
    """By the round trip that is open, net."""
    earned: Decimal
    """By all round trips, net."""
    maintenance: Decimal
    stop_loss: Decimal | None
    take_profit: Decimal | None
    liquidation: Decimal | None
    bankruptcy: Decimal | None
    isolated: bool
    created: int
    updated: int
    sequence: int

    @property
    def value(self) -> Decimal:
        """At the entry price, as Bybit's ``positionValue``."""
        return abs(self.quantity) * self.entry_price

    @property
    def initial_margin(self) -> Decimal:
        """Of its value."""
        return self.value / self.leverage


@dataclass(frozen=True, slots=True)
class CoinBalance:
    """One coin of the wallet."""

    coin: str
    balance: Decimal
    price: Decimal
    """In US dollars."""
    unrealised: Decimal = ZERO
    realised: Decimal = ZERO
    position_margin: Decimal = ZERO
    order_margin: Decimal = ZERO
    maintenance: Decimal = ZERO
    locked: Decimal = ZERO

    @property
    def equity(self) -> Decimal:
        """Balance and unrealised profit."""
        return self.balance + self.unrealised


def plain(value: Decimal) -> str:
    """A number without exponent and without trailing zeros."""
    return format(value.normalize(), "f") if value else "0"


def rounded(value: Decimal) -> str:
    """A quotient or sum to eight decimal places."""
    return plain(value.quantize(_EIGHT_PLACES, ROUND_HALF_EVEN))


def price_text(value: Decimal | None, instrument: Instrument, absent: str = "") -> str:
    """A price with the decimals of its tick."""
    return absent if value is None else format(value.quantize(instrument.tick_size), "f")


def quantity_text(value: Decimal, instrument: Instrument) -> str:
    """A quantity with the decimals of its lot."""
    return format(value.quantize(instrument.lot_size), "f")


def moment_text(time: int) -> str:
    """A time in milliseconds as Bybit writes dates of keys: to the second, UTC."""
    return datetime.fromtimestamp(time / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def order_row(order: VenueOrder) -> JsonObject:
    """An order as ``/v5/order/realtime`` and ``/v5/order/history`` list it."""
    row = _order_core(order)
    row["slippageToleranceType"] = "UNKNOWN"
    row["slippageTolerance"] = ""
    row["extraFees"] = ""
    return row


def order_push_row(order: VenueOrder) -> JsonObject:
    """An order as the ``order`` topic tells it."""
    row = _order_core(order)
    del row["isLeverage"]
    row["category"] = str(order.book.category)
    row["closedPnl"] = rounded(order.closed_profit)
    row["feeCurrency"] = order_fee_coin(order)
    row["createType"] = order.create_type
    return row


def _order_core(order: VenueOrder) -> JsonObject:
    instrument = order.instrument
    remaining = order.remaining
    is_spot = order.book.category is Category.SPOT
    created_at = price_text(order.last_price, instrument)
    price = order.price if order.price is not None else order.last_price
    return {
        "orderId": order.order_id,
        "orderLinkId": order.link_id,
        "blockTradeId": "",
        "symbol": order.book.symbol,
        "price": price_text(price, instrument),
        "qty": quantity_text(order.quantity, instrument)
        if order.quote_quantity is None
        else plain(order.quote_quantity),
        "side": SIDE_TEXT[order.side],
        "isLeverage": "",
        "positionIdx": order.book.index,
        "orderStatus": str(order.status),
        "cancelType": order.cancel_type,
        "rejectReason": order.reject_reason,
        "avgPrice": rounded(order.value / order.filled) if order.filled else "",
        "leavesQty": quantity_text(remaining, instrument),
        "leavesValue": rounded(remaining * price),
        "cumExecQty": quantity_text(order.filled, instrument),
        "cumExecValue": plain(order.value),
        "cumExecFee": plain(order.fee),
        "timeInForce": str(order.time_in_force),
        "orderType": TYPE_TEXT[order.order_type],
        "stopOrderType": order.stop_order_type,
        "orderIv": "",
        "triggerPrice": price_text(order.trigger_price, instrument),
        "takeProfit": price_text(order.take_profit, instrument),
        "stopLoss": price_text(order.stop_loss, instrument),
        "tpTriggerBy": "LastPrice" if order.take_profit is not None else "",
        "slTriggerBy": "LastPrice" if order.stop_loss is not None else "",
        "triggerDirection": order.trigger_direction,
        "triggerBy": order.trigger_by,
        "lastPriceOnCreated": "" if is_spot else created_at,
        **({"basePrice": created_at} if is_spot else {}),
        "reduceOnly": order.reduce_only,
        "closeOnTrigger": order.close_on_trigger,
        "smpType": "None",
        "smpGroup": 0,
        "smpOrderId": "",
        "tpslMode": "Full" if order.stop_loss is not None or order.take_profit is not None else "",
        "tpLimitPrice": "",
        "slLimitPrice": "",
        "placeType": "",
        "createdTime": str(order.created),
        "updatedTime": str(order.updated),
        "cumFeeDetail": {order_fee_coin(order): plain(order.fee)} if order.fee else {},
        "rpiTakerAccess": False,
        "rpiMatchedQty": "0",
    }


def order_fee_coin(order: VenueOrder) -> str:
    """The coin that fees of an order are charged in: what it receives, on the spot market; else the settlement coin."""
    return order.book.base_coin if order.book.category is Category.SPOT and order.side.sign > 0 else "USDT"


def execution_row(execution: VenueExecution) -> JsonObject:
    """A fill as ``/v5/execution/list`` lists it."""
    instrument = execution.instrument
    return {
        "symbol": execution.book.symbol,
        "orderType": execution.order_type,
        "underlyingPrice": "",
        "orderLinkId": execution.link_id,
        "side": SIDE_TEXT[execution.side],
        "indexPrice": "",
        "orderId": execution.order_id,
        "stopOrderType": execution.stop_order_type or "UNKNOWN",
        "leavesQty": quantity_text(execution.remaining, instrument),
        "execTime": str(execution.time),
        "feeCurrency": execution.fee_coin,
        "isMaker": execution.is_maker,
        "execFee": plain(execution.fee),
        "feeRate": plain(execution.fee_rate),
        "execId": execution.execution_id,
        "tradeIv": "",
        "blockTradeId": "",
        "markPrice": price_text(execution.mark_price, instrument),
        "execPrice": price_text(execution.price, instrument),
        "markIv": "",
        "orderQty": quantity_text(execution.order_quantity, instrument),
        "orderPrice": price_text(execution.order_price, instrument),
        "execValue": plain(execution.price * execution.quantity),
        "execType": execution.kind,
        "execQty": quantity_text(execution.quantity, instrument),
        "closedSize": quantity_text(execution.closed_size, instrument) if execution.closed_size else "",
        "extraFees": "",
        "seq": execution.sequence,
    }


def execution_push_row(execution: VenueExecution) -> JsonObject:
    """A fill as the ``execution`` topic tells it."""
    return {
        **execution_row(execution),
        "category": str(execution.book.category),
        "isLeverage": "0",
        "marketUnit": execution.market_unit,
        "execPnl": rounded(execution.profit),
        "createType": execution.create_type,
        "extraFees": [],
    }


def fast_execution_row(execution: VenueExecution) -> JsonObject:
    """A fill as the ``execution.fast`` topic tells it: without a fee, and for a maker without the client's own id."""
    instrument = execution.instrument
    return {
        "category": str(execution.book.category),
        "symbol": execution.book.symbol,
        "execId": execution.execution_id,
        "execPrice": price_text(execution.price, instrument),
        "execQty": quantity_text(execution.quantity, instrument),
        "orderId": execution.order_id,
        "isMaker": execution.is_maker,
        "orderLinkId": "" if execution.is_maker else execution.link_id,
        "side": SIDE_TEXT[execution.side],
        "execTime": str(execution.time),
        "seq": execution.sequence,
    }


def position_row(view: PositionView) -> JsonObject:
    """A position as ``/v5/position/list`` lists it."""
    return {
        **_position_core(view),
        "avgPrice": rounded(view.entry_price),
        "mmrSysUpdateTime": "",
    }


def position_push_row(view: PositionView) -> JsonObject:
    """A position as the ``position`` topic tells it."""
    return {
        **_position_core(view),
        "entryPrice": rounded(view.entry_price),
        "mmrSysUpdatedTime": "",
        "category": str(view.key.category),
    }


def _position_core(view: PositionView) -> JsonObject:
    instrument, quantity = view.instrument, view.quantity
    side = "Buy" if quantity > 0 else "Sell" if quantity < 0 else ""
    return {
        "positionIdx": view.key.index,
        "riskId": 1,
        "riskLimitValue": "2000000",
        "symbol": view.key.symbol,
        "side": side,
        "size": quantity_text(abs(quantity), instrument) if quantity else "0",
        "positionValue": rounded(view.value),
        "tradeMode": 1 if view.isolated else 0,
        "positionStatus": "Normal",
        "autoAddMargin": 0,
        "adlRankIndicator": 2 if quantity else 0,
        "leverage": plain(view.leverage),
        "breakEvenPrice": "",
        "positionBalance": rounded(view.initial_margin) if view.isolated else "0",
        "markPrice": price_text(view.mark_price, instrument),
        "liqPrice": price_text(view.liquidation, instrument),
        "bustPrice": price_text(view.bankruptcy, instrument),
        "positionMM": rounded(view.maintenance),
        "positionMMByMp": rounded(view.maintenance),
        "positionIM": rounded(view.initial_margin),
        "positionIMByMp": rounded(view.initial_margin),
        "tpslMode": "Full",
        "takeProfit": price_text(view.take_profit, instrument),
        "stopLoss": price_text(view.stop_loss, instrument),
        "trailingStop": "0",
        "unrealisedPnl": rounded(view.unrealised),
        "curRealisedPnl": rounded(view.realised),
        "cumRealisedPnl": rounded(view.earned),
        "seq": view.sequence,
        "isReduceOnly": False,
        "leverageSysUpdatedTime": "",
        "sessionAvgPrice": "",
        "createdTime": str(view.created),
        "updatedTime": str(view.updated),
    }


def wallet_row(coins: list[CoinBalance]) -> JsonObject:
    """The account as ``/v5/account/wallet-balance`` and the ``wallet`` topic tell it."""
    equity = sum((coin.equity * coin.price for coin in coins), ZERO)
    balance = sum((coin.balance * coin.price for coin in coins), ZERO)
    unrealised = sum((coin.unrealised for coin in coins), ZERO)
    initial = sum((coin.position_margin + coin.order_margin for coin in coins), ZERO)
    maintenance = sum((coin.maintenance for coin in coins), ZERO)
    initial_rate = initial / equity if equity > 0 else ZERO
    maintenance_rate = maintenance / equity if equity > 0 else ZERO
    return {
        "totalEquity": rounded(equity),
        "accountIMRate": rounded(initial_rate),
        "accountIMRateByMp": rounded(initial_rate),
        "totalMarginBalance": rounded(equity),
        "totalInitialMargin": rounded(initial),
        "totalInitialMarginByMp": rounded(initial),
        "accountType": "UNIFIED",
        "totalAvailableBalance": rounded(max(equity - initial, ZERO)),
        "accountMMRate": rounded(maintenance_rate),
        "accountMMRateByMp": rounded(maintenance_rate),
        "totalPerpUPL": rounded(unrealised),
        "totalWalletBalance": rounded(balance),
        "accountLTV": "0",
        "totalMaintenanceMargin": rounded(maintenance),
        "totalMaintenanceMarginByMp": rounded(maintenance),
        "coin": [_coin_row(coin) for coin in coins],
    }


def _coin_row(coin: CoinBalance) -> JsonObject:
    return {
        "availableToBorrow": "",
        "bonus": "0",
        "accruedInterest": "0",
        "availableToWithdraw": "",
        "totalOrderIM": rounded(coin.order_margin),
        "equity": rounded(coin.equity),
        "totalPositionMM": rounded(coin.maintenance),
        "usdValue": rounded(coin.equity * coin.price),
        "spotHedgingQty": "0",
        "unrealisedPnl": rounded(coin.unrealised),
        "collateralSwitch": True,
        "borrowAmount": "0.0",
        "totalPositionIM": rounded(coin.position_margin),
        "walletBalance": plain(coin.balance),
        "cumRealisedPnl": rounded(coin.realised),
        "locked": rounded(coin.locked),
        "marginCollateral": True,
        "coin": coin.coin,
        "spotBorrow": "0",
    }


def closed_profit_row(closed: ClosedProfit) -> JsonObject:
    """One row of ``/v5/position/closed-pnl``."""
    order = closed.order
    instrument = order.instrument
    price = order.price if order.price is not None else order.last_price
    return {
        "symbol": order.book.symbol,
        "orderType": TYPE_TEXT[order.order_type],
        "leverage": plain(closed.leverage),
        "updatedTime": str(closed.time),
        "side": SIDE_TEXT[order.side],
        "orderId": order.order_id,
        "closedPnl": rounded(closed.profit),
        "avgEntryPrice": rounded(closed.entry_value / closed.quantity),
        "qty": quantity_text(order.quantity, instrument),
        "cumEntryValue": rounded(closed.entry_value),
        "createdTime": str(order.created),
        "orderPrice": price_text(price, instrument),
        "closedSize": quantity_text(closed.quantity, instrument),
        "avgExitPrice": rounded(closed.exit_value / closed.quantity),
        "execType": closed.kind,
        "fillCount": str(closed.fills),
        "cumExitValue": rounded(closed.exit_value),
    }
