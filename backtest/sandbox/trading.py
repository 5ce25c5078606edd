"""The sandbox's private REST routes: signed requests about the account, with Bybit's envelope and limit headers."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from aiohttp import web

from backtest.sandbox import protocol
from backtest.sandbox.exchange import Exchange
from backtest.sandbox.keys import ApiKey, KeyRing, ServerClock
from backtest.sandbox.limits import RateLimits
from backtest.sandbox.operations import Operations, Outcome
from backtest.sandbox.protocol import JsonObject
from backtest.sandbox.queries import Queries, key_information
from backtest.sandbox.refusals import NO_PERMISSION, TOO_MANY_VISITS, VenueRefusal, bad_parameter
from backtest.sandbox.tickets import Parameters

Handler = Callable[[Parameters], Outcome]
Announce = Callable[[], Awaitable[None]]

_ORDER: Final = ("ContractTrade", "Order")
_POSITION: Final = ("ContractTrade", "Position")
_SPOT: Final = ("Spot", "SpotTrade")


@dataclass(frozen=True, slots=True)
class Deed:
    """A request that changes something: what does it, and the right that it needs."""

    handler: Handler
    right: tuple[str, str]


def deeds(operations: Operations) -> dict[str, Deed]:
    """Routes that change something, by path."""
    return {
        "/v5/order/create": Deed(operations.create, _ORDER),
        "/v5/order/amend": Deed(operations.amend, _ORDER),
        "/v5/order/cancel": Deed(operations.cancel, _ORDER),
        "/v5/order/cancel-all": Deed(operations.cancel_all, _ORDER),
        "/v5/order/create-batch": Deed(operations.create_batch, _ORDER),
        "/v5/order/amend-batch": Deed(operations.amend_batch, _ORDER),
        "/v5/order/cancel-batch": Deed(operations.cancel_batch, _ORDER),
        "/v5/position/set-leverage": Deed(operations.set_leverage, _POSITION),
        "/v5/position/switch-mode": Deed(operations.switch_mode, _POSITION),
        "/v5/position/trading-stop": Deed(operations.trading_stop, _POSITION),
        "/v5/account/set-margin-mode": Deed(operations.set_margin_mode, _POSITION),
    }


def check_right(key: ApiKey, deed: Deed, parameters: Parameters) -> None:
    """Let only keys pass that may do what they ask for.

    Raises:
        VenueRefusal: 10005.
    """
    group, right = deed.right
    if deed.right == _ORDER and parameters.get("category") == "spot":
        group, right = _SPOT
    if not key.allows(group, right):
        raise VenueRefusal(NO_PERMISSION)


class PrivateRest:
    """Handlers of the private routes.

    Args:
        exchange: the account.
        doable: what changes something, by route.
        keys: whose signatures count.
        clock: what time replies tell.
        limits: how often each route may be asked.
        announce: sends what has happened over the private stream.
    """

    def __init__(
        self,
        exchange: Exchange,
        doable: dict[str, Deed],
        keys: KeyRing,
        clock: ServerClock,
        limits: RateLimits,
        announce: Announce,
    ) -> None:
        self._keys = keys
        self._clock = clock
        self._limits = limits
        self._announce = announce
        self._deeds = doable
        queries = Queries(exchange)
        self._asked: dict[str, Callable[[Parameters], JsonObject]] = {
            "/v5/order/realtime": queries.open_orders,
            "/v5/order/history": queries.order_history,
            "/v5/execution/list": queries.executions,
            "/v5/position/list": queries.positions,
            "/v5/position/closed-pnl": queries.closed_profits,
            "/v5/account/wallet-balance": queries.wallet_balance,
            "/v5/account/fee-rate": queries.fee_rate,
            "/v5/account/info": queries.account_info,
            "/v5/account/user-setting-config": queries.settings,
            "/v5/asset/coin/query-info": queries.coins,
        }

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Register the routes."""
        for path in self._asked:
            router.add_get(path, self._ask)
        router.add_get("/v5/user/query-api", self._query_key)
        for path in self._deeds:
            router.add_post(path, self._do)

    async def _ask(self, request: web.Request) -> web.Response:
        def answer(key: ApiKey) -> Outcome:
            return Outcome(self._asked[request.path](dict(request.query)))

        return self._answer(request, request.raw_path.partition("?")[2], answer)

    async def _query_key(self, request: web.Request) -> web.Response:
        def answer(key: ApiKey) -> Outcome:
            return Outcome(key_information(key, self._clock.now()))

        return self._answer(request, request.raw_path.partition("?")[2], answer)

    async def _do(self, request: web.Request) -> web.Response:
        body = await request.text()

        def answer(key: ApiKey) -> Outcome:
            parameters, deed = read_body(body), self._deeds[request.path]
            check_right(key, deed, parameters)
            return deed.handler(parameters)

        try:
            return self._answer(request, body, answer)
        finally:
            await self._announce()

    def _answer(self, request: web.Request, payload: str, answer: Callable[[ApiKey], Outcome]) -> web.Response:
        """Let a request pass that is signed and within its limit, and put its outcome into the envelope."""
        key = self._keys.check_request(request.headers, payload, request.remote or "")
        quota = self._limits.take(request.path)
        headers = quota.headers(self._clock.now())
        try:
            if quota.is_spent:
                raise VenueRefusal(TOO_MANY_VISITS)
            outcome = answer(key)
        except VenueRefusal as refusal:
            refusal.headers = headers
            raise
        body = {**protocol.reply(outcome.result, self._clock.now()), "retExtInfo": outcome.extra}
        return web.json_response(body, headers=headers)


def read_body(body: str) -> dict[str, Any]:
    """Parameters of a POST; numbers that came as numbers keep their digits.

    Raises:
        VenueRefusal: 10001 when the body is no JSON object.
    """
    try:
        parameters = json.loads(body or "{}", parse_float=_digits)
    except (ValueError, RecursionError):
        raise bad_parameter("Request parameter error.") from None
    if not isinstance(parameters, dict):
        raise bad_parameter("Request parameter error.")
    return parameters


def _digits(number: str) -> str:
    return format(Decimal(number), "f")
