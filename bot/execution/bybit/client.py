"""Bybit's private REST interface: orders that are sent once, and what the account holds.

pybit signs and sends, in two threads of its own: one for what changes something, one for questions, so that no question
delays an order. Everything else is here: retries, the clock, limits, and what to do when nobody knows whether an order
arrived. Then it is looked up by its client order id, and sent again under the same id only where the venue does not know
it; the venue takes no id twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import requests
import structlog
from pybit.exceptions import FailedRequestError, InvalidRequestError
from pybit.unified_trading import HTTP

from bot.errors import VenueError
from bot.execution.bybit.clock import ClockSample, VenueClock
from bot.execution.bybit.codes import REPEATED_READS, SERVER_TROUBLE, Action, action_of, action_of_status
from bot.execution.bybit.decode import (
    VenueExecution,
    VenueOrder,
    VenuePosition,
    VenueWallet,
    decimal_of,
    decode_executions,
    decode_orders,
    decode_positions,
    decode_wallets,
)
from bot.execution.bybit.rate_limits import EndpointGroup, RateLimits
from bot.market.backoff import Backoff
from bot.market.bybit_rest import CATEGORY, NOT_JSON, Environment, rate_wait_s
from bot.orders import Order, OrderType, Side, TriggerDirection

SETTLE_COIN: Final = "USDT"
NO_REPLY: Final = 0
"""In place of an HTTP status: the line broke, or the reply did not come in time."""
_SIDES: Final = {Side.BUY: "Buy", Side.SELL: "Sell"}

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Credentials:
    """A key and what requests are signed with; never shown."""

    key: str
    secret: str

    def __repr__(self) -> str:
        return "Credentials(***)"


class Refused(Exception):
    """The venue did not do what it was asked to, or it is unknown whether it did."""

    def __init__(self, action: Action, code: int, message: str, *, wait_s: float = 0.0, arrived: bool = True) -> None:
        """
        Args:
            action: what to do about it.
            code: the venue's return code, or the HTTP status where there was none.
            message: the venue's words.
            wait_s: how long the venue asked to wait, seconds.
            arrived: whether the venue answered in its own protocol.
        """
        super().__init__(f"{message} (code {code})")
        self.action = action
        self.code = code
        self.wait_s = wait_s
        self.arrived = arrived

    @property
    def is_ambiguous(self) -> bool:
        """Whether the request may yet have been carried out."""
        return not self.arrived or self.code in SERVER_TROUBLE


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of sending an order."""

    action: Action
    """``ACCEPT``: the venue has it. ``LOOK_UP``: still unknown, the next reconciliation decides."""
    order_id: str = ""
    reason: str = ""
    attempts: int = 1

    @property
    def is_accepted(self) -> bool:
        """Whether the venue has the order; it may yet be rejected by the matching."""
        return self.action is Action.ACCEPT


class _Session(HTTP):  # type: ignore[misc]
    """pybit's client with a clock of our choice; pybit itself stamps with this machine's."""

    stamp: Callable[[], int]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.endpoint})"  # pybit's own shows the secret

    def _prepare_headers(
        self, payload: str, recv_window: int, content_type: str = "application/json"
    ) -> dict[str, str]:
        timestamp = self.stamp()
        return {
            "Content-Type": content_type,
            "X-BAPI-API-KEY": self.api_key,
            "X-BAPI-SIGN": self._auth(payload, recv_window, timestamp),
            "X-BAPI-SIGN-TYPE": "2",
            "X-BAPI-TIMESTAMP": str(timestamp),
            "X-BAPI-RECV-WINDOW": str(recv_window),
        }


class BybitAccount:
    """One account's orders, positions and wallet, by signed REST.

    Questions raise ``VenueError`` with one sentence when the venue refuses or cannot be reached; deeds raise ``Refused``,
    but for ``send``, which always answers.

    Args:
        credentials: of the account.
        endpoint: takes the place of the environment's host, such as ``http://127.0.0.1:8080``.
        environment: which of Bybit's hosts to ask.
        timeout_s: bound on connecting, and on each wait for bytes, of one attempt.
        attempts: how often a request is sent at most.
        backoff: waits between attempts.
        wall_ms: this machine's clock, milliseconds.
        limits: of requests a second; Bybit's by default, which a stepped sandbox does not enforce.
    """

    def __init__(
        self,
        credentials: Credentials,
        endpoint: str | None = None,
        environment: Environment = "mainnet",
        timeout_s: float = 5.0,
        *,
        attempts: int = 4,
        backoff: Backoff | None = None,
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        limits: RateLimits | None = None,
    ) -> None:
        self.clock = VenueClock()
        self._wall_ms = wall_ms
        self._deeds = _session(credentials, endpoint, environment, timeout_s, self._stamp)
        self._questions = _session(credentials, endpoint, environment, timeout_s, self._stamp)
        self.endpoint = str(self._deeds.endpoint)
        self._attempts = max(1, attempts)
        self._backoff = backoff or Backoff(first_s=0.2, base_s=0.5, limit_s=5.0)
        self._limits = limits or RateLimits(time.monotonic())
        self._budget_s = 2.0 * timeout_s + 5.0
        self._deed_thread = ThreadPoolExecutor(1, thread_name_prefix="bybit-deeds")
        self._question_thread = ThreadPoolExecutor(1, thread_name_prefix="bybit-questions")

    def close(self) -> None:
        """Let the threads end; safe to call twice."""
        for thread, session in ((self._deed_thread, self._deeds), (self._question_thread, self._questions)):
            thread.shutdown(wait=False, cancel_futures=True)
            session.client.close()

    async def synchronise(self, samples: int = 3) -> int:
        """Measure the venue's clock anew; returns how far it is ahead of ours, milliseconds."""
        self.clock = VenueClock()
        for _ in range(samples):
            sent = self._wall_ms()
            reply = await self._ask(EndpointGroup.READ, self._questions.get_server_time, {}, "its clock")
            venue = reply.get("time")
            if isinstance(venue, int):
                self.clock = self.clock.learned(ClockSample(sent, self._wall_ms(), venue))
        return self.clock.offset

    async def send(self, order: Order) -> Sent:
        """Send an order that the journal has, once, however often the line breaks."""
        parameters = order_parameters(order)
        doubtful = False
        for attempt in range(1, self._attempts + 1):
            try:
                reply = await self._do(EndpointGroup.CREATE, self._deeds.place_order, parameters)
                return Sent(Action.ACCEPT, _order_id(reply), attempts=attempt)
            except Refused as problem:
                refusal = problem
            _log.warning("order not acknowledged", order=order.client_order_id, reason=str(refusal), attempt=attempt)
            # Once an attempt may have arrived, a later refusal may be its very consequence, as where it took the funds.
            doubtful |= refusal.is_ambiguous or refusal.code in _TAKEN
            if doubtful or refusal.action is Action.LOOK_UP:
                found = await self._looked_up(order)
                if found is not None:
                    return Sent(Action.ACCEPT, found.order_id, str(refusal), attempt)
            if refusal.action in _PASSING or refusal.is_ambiguous or refusal.code in _TAKEN:
                if attempt < self._attempts:
                    await self._pause(refusal, attempt)
                continue
            break
        final = Action.REFUSE if refusal.action is Action.LOOK_UP else refusal.action
        # A key that cannot trade stops the bot in any case.
        unknown = doubtful and final is not Action.STOP
        return Sent(Action.LOOK_UP if unknown else final, reason=str(refusal), attempts=attempt)

    async def _looked_up(self, order: Order) -> VenueOrder | None:
        """The order where the venue says that it has it; ``None`` also where the venue says nothing."""
        try:
            return await self.find_order(order.symbol, order.client_order_id)
        except VenueError:
            return None

    async def cancel(self, symbol: str, client_order_id: str) -> VenueOrder | None:
        """Cancel an order; returns it as it then is, ``None`` where the venue does not know it.

        A cancellation is only asked for: the order may have been filled meanwhile, as what is returned says.
        """
        parameters = {"category": CATEGORY, "symbol": symbol, "orderLinkId": client_order_id}
        try:
            await self._repeated(EndpointGroup.CANCEL, self._deeds.cancel_order, parameters)
        except Refused as problem:
            if problem.action is not Action.LOOK_UP:
                raise
        return await self.find_order(symbol, client_order_id)

    async def find_order(self, symbol: str, client_order_id: str) -> VenueOrder | None:
        """An order by our id, among the open and recent ones, then in the history; ``None`` where the venue has none."""
        parameters = {"category": CATEGORY, "symbol": symbol, "orderLinkId": client_order_id}
        for call in (self._questions.get_open_orders, self._questions.get_order_history):
            reply = await self._ask(EndpointGroup.READ, call, parameters, f"order {client_order_id}")
            for order in decode_orders(_rows(reply)):
                if order.client_order_id == client_order_id:
                    return order
        return None

    async def open_orders(self) -> list[VenueOrder]:
        """All open orders of the category, whoever sent them."""
        parameters = {"category": CATEGORY, "settleCoin": SETTLE_COIN, "openOnly": "0", "limit": "50"}
        rows = await self._pages(self._questions.get_open_orders, parameters, "open orders")
        return [order for order in decode_orders(rows) if order.is_open]

    async def executions(self, since: int) -> list[VenueExecution]:
        """Fills and settlements from ``since`` on (milliseconds, at most 7 days ago), oldest first."""
        parameters = {"category": CATEGORY, "startTime": str(since), "limit": "100"}
        rows = await self._pages(self._questions.get_executions, parameters, "executions")
        return sorted(decode_executions(rows), key=lambda fill: (fill.time, fill.sequence, fill.execution_id))

    async def positions(self) -> list[VenuePosition]:
        """Positions that are not flat."""
        parameters = {"category": CATEGORY, "settleCoin": SETTLE_COIN, "limit": "200"}
        rows = await self._pages(self._questions.get_positions, parameters, "positions")
        return [position for position in decode_positions(rows) if position.quantity]

    async def position_rows(self, symbol: str) -> list[VenuePosition]:
        """The rows of one symbol, flat ones too: one in one-way mode, two in hedge mode."""
        reply = await self._ask(
            EndpointGroup.READ,
            self._questions.get_positions,
            {"category": CATEGORY, "symbol": symbol},
            f"the position of {symbol}",
        )
        return decode_positions(_rows(reply))

    async def wallet(self) -> VenueWallet:
        """What the unified account holds.

        Raises:
            VenueError: the venue has no such account, or cannot be reached.
        """
        reply = await self._ask(
            EndpointGroup.READ, self._questions.get_wallet_balance, {"accountType": "UNIFIED"}, "the wallet"
        )
        found = decode_wallets(_rows(reply))
        if not found:
            raise VenueError(f"{self.endpoint} has no unified account for this key; upgrade the account at Bybit")
        return found[0]

    async def key_information(self) -> Mapping[str, Any]:
        """What the key may do and until when, as ``/v5/user/query-api`` tells it."""
        reply = await self._ask(EndpointGroup.READ, self._questions.get_api_key_information, {}, "the key's rights")
        result = reply.get("result")
        return result if isinstance(result, Mapping) else {}

    async def fee_rates(self, symbol: str) -> tuple[Decimal, Decimal] | None:
        """Taker and maker fee as fractions; ``None`` where the environment does not tell, as the demo one does not."""
        parameters = {"category": CATEGORY, "symbol": symbol}
        try:
            reply = await self._ask(EndpointGroup.FEE_RATE, self._questions.get_fee_rates, parameters, "fees")
        except VenueError:
            return None
        for row in _rows(reply):
            taker, maker = decimal_of(row.get("takerFeeRate")), decimal_of(row.get("makerFeeRate"))
            if taker is not None and maker is not None:
                return taker, maker
        return None

    async def set_leverage(self, symbol: str, leverage: Decimal) -> None:
        """Set the leverage of a symbol; that it is so already is no error.

        Raises:
            Refused: the venue does not take it.
        """
        text = f"{leverage:f}"
        parameters = {"category": CATEGORY, "symbol": symbol, "buyLeverage": text, "sellLeverage": text}
        await self._repeated(EndpointGroup.POSITION, self._deeds.set_leverage, parameters)

    async def set_stops(self, symbol: str, stop_loss: Decimal | None, take_profit: Decimal | None) -> None:
        """Set the levels at which the venue itself closes the position; ``None`` takes one away.

        Raises:
            Refused: the venue does not take them.
        """
        parameters = {
            "category": CATEGORY,
            "symbol": symbol,
            "positionIdx": 0,
            "tpslMode": "Full",
            "stopLoss": "0" if stop_loss is None else f"{stop_loss:f}",
            "takeProfit": "0" if take_profit is None else f"{take_profit:f}",
        }
        await self._repeated(EndpointGroup.POSITION, self._deeds.set_trading_stop, parameters)

    def _stamp(self) -> int:
        return self.clock.timestamp(self._wall_ms())

    async def _repeated(self, group: EndpointGroup, call: Callable[..., Any], parameters: dict[str, Any]) -> None:
        """A deed that may be done twice without harm."""
        for attempt in range(1, self._attempts + 1):
            try:
                await self._do(group, call, parameters)
                return
            except Refused as problem:
                if problem.action is Action.ACCEPT:
                    return
                passes = problem.action in (Action.RETRY, Action.RESYNCHRONISE) or problem.is_ambiguous
                if not passes or attempt == self._attempts:
                    raise
                await self._pause(problem, attempt)

    async def _pages(self, call: Callable[..., Any], parameters: dict[str, Any], subject: str) -> list[Any]:
        rows: list[Any] = []
        cursor = ""
        while True:
            asked = {**parameters, "cursor": cursor} if cursor else parameters
            reply = await self._ask(EndpointGroup.READ, call, asked, subject)
            rows += _rows(reply)
            result = reply.get("result")
            following = result.get("nextPageCursor") if isinstance(result, Mapping) else None
            if not isinstance(following, str) or following in ("", cursor):
                return rows
            cursor = following

    async def _ask(
        self, group: EndpointGroup, call: Callable[..., Any], parameters: dict[str, Any], subject: str
    ) -> Mapping[str, Any]:
        """A question, repeated until it is answered."""
        attempt = 0
        while True:
            attempt += 1
            try:
                return await self._call(self._question_thread, group, call, parameters)
            except Refused as problem:
                passes = not problem.arrived or problem.code in REPEATED_READS
                again = passes or problem.action is Action.RESYNCHRONISE
                if not again or attempt >= self._attempts:
                    raise VenueError(
                        f"{self.endpoint} did not answer a request for {subject}: {problem}; "
                        f"{_FIXES.get(problem.action, 'check the network, or try again later')}"
                    ) from None
                await self._pause(problem, attempt, resynchronise=call != self._questions.get_server_time)

    async def _do(
        self, group: EndpointGroup, call: Callable[..., Any], parameters: dict[str, Any]
    ) -> Mapping[str, Any]:
        return await self._call(self._deed_thread, group, call, parameters)

    async def _call(
        self, thread: ThreadPoolExecutor, group: EndpointGroup, call: Callable[..., Any], parameters: dict[str, Any]
    ) -> Mapping[str, Any]:
        while wait := self._limits.reserve(group, time.monotonic()):
            await asyncio.sleep(wait)
        future = asyncio.get_running_loop().run_in_executor(thread, _attempt, call, dict(parameters))
        try:
            async with asyncio.timeout(self._budget_s):
                return await future
        except TimeoutError:
            raise Refused(Action.LOOK_UP, NO_REPLY, "no reply in time", arrived=False) from None

    async def _pause(self, problem: Refused, attempt: int, *, resynchronise: bool = True) -> None:
        if problem.action is Action.RESYNCHRONISE and resynchronise:
            with contextlib.suppress(VenueError):
                await self.synchronise()
            return
        await asyncio.sleep(max(self._backoff.delay(attempt - 1), problem.wait_s))


_TAKEN: Final = frozenset({110072, 170141, 10014})
"""The id is taken, so the order is there, even where it cannot be found yet."""
_PASSING: Final = frozenset({Action.RETRY, Action.RESYNCHRONISE})
_FIXES: Final = {
    Action.STOP: "check RECALL_LIVE__API_KEY and RECALL_LIVE__API_SECRET, the key's rights, and that it belongs to this host",
    Action.RESYNCHRONISE: "set this machine's clock",
    Action.STAND_DOWN: "wait at least 10 minutes, or use a host that serves this region",
    Action.REFUSE: "check the symbols and that this is a Bybit v5 host",
}


def order_parameters(order: Order) -> dict[str, Any]:
    """The body of an order request; numbers as plain decimal texts.

    https://bybit-exchange.github.io/docs/v5/order/create-order
    """
    parameters: dict[str, Any] = {
        "category": CATEGORY,
        "symbol": order.symbol,
        "side": _SIDES[order.side],
        "orderType": "Market" if order.order_type is OrderType.MARKET else "Limit",
        "qty": f"{order.quantity:f}",
        "orderLinkId": order.client_order_id,
        "positionIdx": 0,
    }
    if order.order_type is OrderType.LIMIT:
        parameters["timeInForce"] = str(order.time_in_force)
    if order.limit_price is not None:
        parameters["price"] = f"{order.limit_price:f}"
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


def _session(
    credentials: Credentials, endpoint: str | None, environment: Environment, timeout_s: float, stamp: Callable[[], int]
) -> _Session:
    # As in bot.market.bybit_rest: one attempt, and no code that pybit itself would retry.
    session = _Session(
        testnet=environment == "testnet",
        demo=environment == "demo",
        api_key=credentials.key,
        api_secret=credentials.secret,
        timeout=timeout_s,
        max_retries=1,
        force_retry=False,
        retry_codes={-999},
    )
    session.stamp = stamp
    if endpoint is not None:
        session.endpoint = endpoint.rstrip("/")
    return session


def _attempt(call: Callable[..., Any], parameters: dict[str, Any]) -> Mapping[str, Any]:
    """Send a request once; runs in a thread."""
    try:
        reply = call(**parameters)
    except InvalidRequestError as error:
        code = int(error.status_code)
        raise Refused(action_of(code), code, str(error.message), wait_s=rate_wait_s(error.resp_headers)) from None
    except FailedRequestError as error:
        status = error.status_code if isinstance(error.status_code, int) else NO_REPLY
        if status == NOT_JSON:
            raise Refused(Action.LOOK_UP, status, "the reply is no JSON", arrived=False) from None
        action = action_of_status(status)
        # A ban or a wrong path is an answer: nothing was carried out.
        arrived = action is not Action.LOOK_UP
        raise Refused(action, status, f"HTTP status {status}", arrived=arrived) from None
    except requests.exceptions.RequestException as error:
        raise Refused(Action.LOOK_UP, NO_REPLY, type(error).__name__, arrived=False) from None
    except (AttributeError, LookupError, TypeError, ValueError):
        raise Refused(Action.LOOK_UP, NOT_JSON, "the reply is of another protocol", arrived=False) from None
    if not isinstance(reply, Mapping):
        raise Refused(Action.LOOK_UP, NOT_JSON, "the reply is of another protocol", arrived=False)
    return reply


def _rows(reply: Mapping[str, Any]) -> list[Any]:
    result = reply.get("result")
    rows = result.get("list") if isinstance(result, Mapping) else None
    return [row for row in rows if isinstance(row, Mapping)] if isinstance(rows, list) else []


def _order_id(reply: Mapping[str, Any]) -> str:
    result = reply.get("result")
    return str(result.get("orderId", "")) if isinstance(result, Mapping) else ""
