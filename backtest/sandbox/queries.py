"""What a client may ask about the account, with Bybit's pages, windows and retention."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl, quote, unquote

from backtest.sandbox import rows
from backtest.sandbox.exchange import Exchange
from backtest.sandbox.keys import ApiKey
from backtest.sandbox.protocol import JsonObject
from backtest.sandbox.records import SHORT_LIVED, Category, VenueOrder
from backtest.sandbox.refusals import bad_parameter
from backtest.sandbox.rows import plain
from backtest.sandbox.tickets import Parameters, read_category, text, whole
from strategies.bars import DAY_MS

WINDOW_MS: Final = 7 * DAY_MS
ORDER_LIFE_MS: Final = 7 * DAY_MS
CANCELLED_LIFE_MS: Final = DAY_MS

Item = TypeVar("Item")


class Queries:
    """Requests that change nothing."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def open_orders(self, parameters: Parameters) -> JsonObject:
        """``/v5/order/realtime``: what is open, and on request the 500 orders closed last, until the venue restarts."""
        category = read_category(parameters)
        self._need_symbol(parameters, category, "orderId", "orderLinkId")
        exchange = self._exchange
        is_named = bool(text(parameters, "orderId") or text(parameters, "orderLinkId"))
        closed_only = whole(parameters, "openOnly", 0) != 0
        remembered = set(exchange.records.recently_closed)

        def is_listed(order: VenueOrder) -> bool:
            if order.is_open:
                return is_named or not closed_only
            return (is_named or closed_only) and order.order_id in remembered

        found = [
            order
            for order in reversed(exchange.records.orders.values())
            if _matches(order, parameters, category) and is_listed(order)
        ]
        return _page(parameters, found, rows.order_row, category, default=20, most=50)

    def order_history(self, parameters: Parameters) -> JsonObject:
        """``/v5/order/history``: closed orders of seven days, cancelled ones without fills of one."""
        category = read_category(parameters)
        first, last = self._window(parameters)
        now = self._exchange.now()
        status = text(parameters, "orderStatus")
        found = [
            order
            for order in reversed(self._exchange.records.orders.values())
            if _matches(order, parameters, category)
            and not order.is_open
            and first <= order.created <= last
            and now - order.updated <= _life(order)
            and (not status or order.status == status)
        ]
        return _page(parameters, found, rows.order_row, category, default=20, most=50)

    def executions(self, parameters: Parameters) -> JsonObject:
        """``/v5/execution/list``."""
        category = read_category(parameters)
        first, last = self._window(parameters)
        wanted = {name: text(parameters, name) for name in ("symbol", "orderId", "orderLinkId", "execType")}
        found = [
            each
            for each in reversed(self._exchange.records.executions)
            if each.book.category is category
            and first <= each.time <= last
            and wanted["symbol"] in ("", each.book.symbol)
            and wanted["orderId"] in ("", each.order_id)
            and wanted["orderLinkId"] in ("", each.link_id)
            and wanted["execType"] in ("", each.kind)
        ]
        return _page(parameters, found, rows.execution_row, category, default=50, most=100)

    def positions(self, parameters: Parameters) -> JsonObject:
        """``/v5/position/list``: of one symbol, flat or not; of a settlement coin, those that are held."""
        category = read_category(parameters)
        self._need_symbol(parameters, category)
        symbol = text(parameters, "symbol")
        settles_here = symbol or text(parameters, "settleCoin") in ("", "USDT")
        views = self._exchange.positions(symbol or None) if category is Category.LINEAR and settles_here else []
        return _page(parameters, views, rows.position_row, category, default=200, most=200)

    def closed_profits(self, parameters: Parameters) -> JsonObject:
        """``/v5/position/closed-pnl``."""
        category = read_category(parameters)
        first, last = self._window(parameters)
        symbol = text(parameters, "symbol")
        found = [
            closed
            for closed in reversed(self._exchange.records.closed_profits.values())
            if first <= closed.time <= last and symbol in ("", closed.order.book.symbol)
        ]
        return _page(parameters, found, rows.closed_profit_row, category, default=50, most=100)

    def wallet_balance(self, parameters: Parameters) -> JsonObject:
        """``/v5/account/wallet-balance``."""
        if text(parameters, "accountType") != "UNIFIED":
            raise bad_parameter("accountType only support UNIFIED.")
        wanted = {name for name in text(parameters, "coin").split(",") if name}
        coins = self._exchange.coins()
        row = rows.wallet_row(coins)
        if wanted:
            row["coin"] = [coin for coin in row["coin"] if coin["coin"] in wanted]
        return {"list": [row]}

    def fee_rate(self, parameters: Parameters) -> JsonObject:
        """``/v5/account/fee-rate``."""
        category, symbol = read_category(parameters), text(parameters, "symbol")
        setting = self._exchange.setting
        taker, maker = setting.costs.taker_fee, setting.costs.maker_fee
        if category is Category.SPOT:
            taker = maker = setting.spot_fee
        if symbol and symbol not in self._exchange.instruments:
            raise bad_parameter("params error: symbol invalid")
        return {
            "list": [
                {"symbol": name, "takerFeeRate": plain(taker), "makerFeeRate": plain(maker)}
                for name in ([symbol] if symbol else sorted(self._exchange.instruments))
            ]
        }

    def account_info(self, parameters: Parameters) -> JsonObject:
        """``/v5/account/info``."""
        return {
            "marginMode": str(self._exchange.standing.margin),
            "updatedTime": str(self._exchange.updated),
            "unifiedMarginStatus": 5,
            "dcpStatus": "OFF",
            "timeWindow": 10,
            "smpGroup": 0,
            "isMasterTrader": False,
            "spotHedgingStatus": "OFF",
        }

    def settings(self, parameters: Parameters) -> JsonObject:
        """``/v5/account/user-setting-config``."""
        return {"lpaSpot": False, "lpaPerp": False, "smsef": False, "fmsef": False}

    def coins(self, parameters: Parameters) -> JsonObject:
        """``/v5/asset/coin/query-info``: the coins there are, on no chain."""
        wanted = text(parameters, "coin")
        names = [coin.coin for coin in self._exchange.coins() if wanted in ("", coin.coin)]
        return {"rows": [{"name": name, "coin": name, "remainAmount": "0", "chains": []} for name in names]}

    def _need_symbol(self, parameters: Parameters, category: Category, *others: str) -> None:
        symbol = text(parameters, "symbol")
        if symbol and symbol not in self._exchange.instruments:
            raise bad_parameter("params error: symbol invalid")
        names = ("symbol", "settleCoin", "baseCoin", *others)
        if category is Category.LINEAR and not any(text(parameters, name) for name in names):
            raise bad_parameter("Missing some parameters that must be filled in, symbol or settleCoin or baseCoin")

    def _window(self, parameters: Parameters) -> tuple[int, int]:
        """First and last time asked for: seven days at most, and by default the last seven."""
        now = self._exchange.now()
        first, last = whole(parameters, "startTime", -1), whole(parameters, "endTime", -1)
        if first < 0 and last < 0:
            return now - WINDOW_MS, now
        if first < 0:
            return last - WINDOW_MS, last
        if last < 0:
            return first, first + WINDOW_MS
        if last < first or last - first > WINDOW_MS:
            raise bad_parameter("The time range between startTime and endTime cannot exceed 7 days")
        return first, last


def key_information(key: ApiKey, now: int) -> JsonObject:
    """Result of ``/v5/user/query-api``."""
    left = -2 if key.expires_at is None else max(0, (key.expires_at - now) // DAY_MS)
    return {
        "id": "1",
        "note": "sandbox",
        "apiKey": key.key,
        "readOnly": int(key.read_only),
        "secret": "",
        "permissions": {
            **{name: [] for name in _RIGHTS},
            **{name: list(rights) for name, rights in key.permissions.items()},
        },
        "ips": list(key.addresses) or ["*"],
        "type": 1,
        "deadlineDay": left,
        "expiredAt": "1970-01-01T00:00:00Z" if key.expires_at is None else rows.moment_text(key.expires_at),
        "createdAt": "2024-01-01T00:00:00Z",
        "unified": 0,
        "uta": 1,
        "userID": 1,
        "inviterID": 0,
        "vipLevel": "No VIP",
        "mktMakerLevel": "0",
        "affiliateID": 0,
        "rsaPublicKey": "",
        "isMaster": True,
        "parentUid": "0",
        "kycLevel": "LEVEL_DEFAULT",
        "kycRegion": "",
        "userIDInt64": "1",
        "inviterIDInt64": "0",
        "affiliateIDInt64": "0",
    }


_RIGHTS: Final = (
    "ContractTrade",
    "Spot",
    "Wallet",
    "Options",
    "Derivatives",
    "CopyTrading",
    "BlockTrade",
    "Exchange",
    "NFT",
    "Affiliate",
    "Earn",
    "FiatP2P",
    "FiatConvertBroker",
    "FiatGlobalPay",
    "FiatBitPay",
    "BitCard",
    "ByXPost",
)


def _life(order: VenueOrder) -> int:
    """How long the history keeps an order."""
    return CANCELLED_LIFE_MS if order.status in SHORT_LIVED and not order.filled else ORDER_LIFE_MS


def _matches(order: VenueOrder, parameters: Parameters, category: Category) -> bool:
    """Whether an order is one that is asked for by name, symbol or coin."""
    symbol = order.book.symbol
    kind = text(parameters, "orderFilter")
    return (
        order.book.category is category
        and text(parameters, "symbol") in ("", symbol)
        and text(parameters, "settleCoin") in ("", "USDT")
        and symbol.startswith(text(parameters, "baseCoin"))
        and (text(parameters, "orderId") or order.order_id) == order.order_id
        and (text(parameters, "orderId") != "" or (text(parameters, "orderLinkId") or order.link_id) == order.link_id)
        and order.is_of(kind)
    )


def _page(
    parameters: Parameters,
    items: Sequence[Item],
    row: Callable[[Any], JsonObject],
    category: Category,
    *,
    default: int,
    most: int,
) -> JsonObject:
    """One page of a list, and the cursor to the next; empty where there is none."""
    limit = whole(parameters, "limit", default)
    if limit < 1:
        raise bad_parameter("params error: limit invalid")
    limit = min(limit, most)
    cursor = dict(parse_qsl(unquote(text(parameters, "cursor")))).get("page_token", "0")
    first = int(cursor) if cursor.isascii() and cursor.isdecimal() else 0
    page = items[first : first + limit]
    more = first + limit < len(items)
    return {
        "nextPageCursor": quote(f"page_token={first + limit}&", safe="") if more else "",
        "category": str(category),
        "list": [row(item) for item in page],
    }
