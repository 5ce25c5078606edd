"""One account at Bybit: orders that are sent once, and what the account holds.

An order goes over the websocket trade API where that is connected, and over REST otherwise. When nobody knows whether it
arrived, it is looked up by its client order id, and sent again under the same id only where the venue does not know it; the
venue takes no id twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import structlog

from bot.errors import VenueError
from bot.execution.bybit.clock import VenueClock
from bot.execution.bybit.codes import Action
from bot.execution.bybit.decode import VenueOrder
from bot.execution.bybit.order_entry import NotWritten, Operation, OrderEntry, order_parameters
from bot.execution.bybit.questions import SETTLE_COIN, AccountQuestions
from bot.execution.bybit.rate_limits import EndpointGroup, RateLimits
from bot.execution.bybit.rest_session import Credentials, Refused, RestSession
from bot.execution.instruments import Category
from bot.market.backoff import Backoff
from bot.market.bybit_rest import Environment
from bot.orders import Order

__all__ = ["SETTLE_COIN", "BybitAccount", "Credentials", "Refused", "Sent", "order_parameters"]

_TAKEN: Final = frozenset({110072, 170141, 10014})
"""The id is taken, so the order is there, even where it cannot be found yet."""
_PASSING: Final = frozenset({Action.RETRY, Action.RESYNCHRONISE})

_log = structlog.get_logger(__name__)


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


@dataclass(frozen=True, slots=True)
class _Deed:
    """A request that changes something."""

    group: EndpointGroup
    call: Callable[..., Any]
    parameters: dict[str, Any]
    operation: Operation | None = None
    """The same over the websocket trade API, which has few of them."""


class BybitAccount(AccountQuestions):
    """One account's orders, positions and wallet.

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
        category: which market; the wallet is one for all.
        limits: of requests a second; Bybit's by default, which a stepped sandbox does not enforce.
        entry: where orders enter besides REST; may be set later, since one that stamps with ``stamp`` needs the account.
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
        category: Category = "linear",
        limits: RateLimits | None = None,
        entry: OrderEntry | None = None,
    ) -> None:
        session = RestSession(credentials, endpoint, environment, timeout_s, attempts, backoff, wall_ms, limits)
        super().__init__(session, category)
        self.entry = entry

    def close(self) -> None:
        """Let the threads end; safe to call twice. The order entry is whoever's who made it."""
        self._session.close()

    @property
    def clock(self) -> VenueClock:
        """What is known of the venue's clock."""
        return self._session.clock

    def stamp(self) -> int:
        """What to stamp a request with that leaves now, milliseconds of the venue's clock."""
        return self._session.stamp()

    async def synchronise(self, samples: int = 3) -> int:
        """Measure the venue's clock anew; returns how far it is ahead of ours, milliseconds."""
        return await self._session.synchronise(samples)

    async def send(self, order: Order) -> Sent:
        """Send an order that the journal has, once, however often the line breaks."""
        session = self._session
        parameters = order_parameters(order, self.category)
        deed = _Deed(EndpointGroup.CREATE, session.deeds.place_order, parameters, Operation.CREATE)
        doubtful = False
        for attempt in range(1, session.attempts + 1):
            try:
                reply = await self._do(deed)
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
                if attempt < session.attempts:
                    await session.pause(refusal, attempt)
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

    async def cancel(self, symbol: str, client_order_id: str, *, order_filter: str = "") -> VenueOrder | None:
        """Cancel an order; returns it as it then is, ``None`` where the venue does not know it.

        A cancellation is only asked for: the order may have been filled meanwhile, as what is returned says.

        Args:
            symbol: of the order.
            client_order_id: of the order.
            order_filter: what sort of order it is, where that is none of the ordinary; of the spot market alone.

        Raises:
            Refused: the venue does not take the request.
            VenueError: the venue does not answer.
        """
        parameters = {"category": self.category, "symbol": symbol, "orderLinkId": client_order_id}
        if order_filter:
            parameters["orderFilter"] = order_filter
        call = self._session.deeds.cancel_order
        try:
            await self._repeated(_Deed(EndpointGroup.CANCEL, call, parameters, Operation.CANCEL))
        except Refused as problem:
            if problem.action is not Action.LOOK_UP:
                raise
        return await self.find_order(symbol, client_order_id)

    async def set_leverage(self, symbol: str, leverage: Decimal) -> None:
        """Set the leverage of a symbol; that it is so already is no error.

        Raises:
            Refused: the venue does not take it.
        """
        text = f"{leverage:f}"
        parameters = {"category": self.category, "symbol": symbol, "buyLeverage": text, "sellLeverage": text}
        await self._repeated(_Deed(EndpointGroup.POSITION, self._session.deeds.set_leverage, parameters))

    async def set_stops(self, symbol: str, stop_loss: Decimal | None, take_profit: Decimal | None) -> None:
        """Set the levels at which the venue itself closes the position; ``None`` takes one away.

        Raises:
            Refused: the venue does not take them.
        """
        parameters = {
            "category": self.category,
            "symbol": symbol,
            "positionIdx": 0,
            "tpslMode": "Full",
            "stopLoss": "0" if stop_loss is None else f"{stop_loss:f}",
            "takeProfit": "0" if take_profit is None else f"{take_profit:f}",
        }
        await self._repeated(_Deed(EndpointGroup.POSITION, self._session.deeds.set_trading_stop, parameters))

    async def _repeated(self, deed: _Deed) -> None:
        """A deed that may be done twice without harm."""
        for attempt in range(1, self._session.attempts + 1):
            try:
                await self._do(deed)
                return
            except Refused as problem:
                if problem.action is Action.ACCEPT:
                    return
                passes = problem.action in _PASSING or problem.is_ambiguous
                if not passes or attempt == self._session.attempts:
                    raise
                await self._session.pause(problem, attempt)

    async def _do(self, deed: _Deed) -> Mapping[str, Any]:
        """Send a request once: by the order entry if it can take it, else by REST."""
        await self._session.permit(deed.group)
        if self.entry is not None and deed.operation is not None:
            try:
                return await self.entry.operate(deed.operation, deed.parameters)
            except NotWritten as reason:
                _log.info("order entry not used", operation=str(deed.operation), reason=str(reason))
        return await self._session.do(deed.call, deed.parameters)


def _order_id(reply: Mapping[str, Any]) -> str:
    result = reply.get("result")
    return str(result.get("orderId", "")) if isinstance(result, Mapping) else ""
