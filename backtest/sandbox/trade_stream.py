"""The sandbox's websocket trade API: orders over a socket (https://bybit-exchange.github.io/docs/v5/websocket/trade/guideline)."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import WSMsgType, web

from backtest.sandbox.connections import Connection
from backtest.sandbox.faults import OF_REQUESTS, Fault, FaultInjector, FaultRule
from backtest.sandbox.keys import DEFAULT_WINDOW_MS, ApiKey, KeyRing, ServerClock
from backtest.sandbox.limits import Quota, RateLimits
from backtest.sandbox.protocol import JsonObject
from backtest.sandbox.refusals import (
    NO_PERMISSION,
    REPEATED_AUTHENTICATION,
    REPEATED_REQUEST_ID,
    SERVER_ERROR,
    TEXTS,
    TOO_MANY_VISITS,
    UNKNOWN_KEY,
    UNKNOWN_OPERATION,
    VenueRefusal,
    bad_parameter,
)
from backtest.sandbox.trading import Announce, Deed, check_right

OPERATIONS: Final = {
    "order.create": "/v5/order/create",
    "order.amend": "/v5/order/amend",
    "order.cancel": "/v5/order/cancel",
    "order.create-batch": "/v5/order/create-batch",
    "order.amend-batch": "/v5/order/amend-batch",
    "order.cancel-batch": "/v5/order/cancel-batch",
}
"""Operations, by the route that does the same."""
_LONGEST_REQUEST_ID: Final = 36


@dataclass(slots=True)
class _Session:
    """One socket: who has logged in on it, and which requests it has sent."""

    connection: Connection
    address: str
    key: ApiKey | None = None
    requests: set[str] = field(default_factory=set)


class TradeStream:
    """All sockets of ``/v5/trade``.

    Args:
        deeds: what changes something, by route.
        keys: who may log in.
        clock: what time replies tell.
        limits: shared with REST, as at Bybit.
        announce: sends what has happened over the private stream.
        injector: what goes wrong; requests are named by their operation.
    """

    def __init__(
        self,
        deeds: dict[str, Deed],
        keys: KeyRing,
        clock: ServerClock,
        limits: RateLimits,
        announce: Announce,
        injector: FaultInjector,
    ) -> None:
        self._deeds = deeds
        self._keys = keys
        self._clock = clock
        self._limits = limits
        self._announce = announce
        self._injector = injector
        self._sessions: dict[str, _Session] = {}
        self._numbers = itertools.count(1)
        self._traces = itertools.count(1)

    @property
    def connections(self) -> int:
        """Open sockets."""
        return len(self._sessions)

    def cut_all(self) -> int:
        """Cut every socket; returns how many there were."""
        sessions = list(self._sessions.values())
        for session in sessions:
            session.connection.cut()
        return len(sessions)

    async def handle(self, request: web.Request) -> web.WebSocketResponse:
        """Serve one socket until it closes."""
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        name = f"sandbox-trade-{next(self._numbers)}"
        session = self._sessions[name] = _Session(Connection(name, request, socket), request.remote or "")
        try:
            async for message in socket:
                if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                    await self._answer(session, message.data)
        finally:
            del self._sessions[name]
        return socket

    async def _answer(self, session: _Session, data: str | bytes) -> None:
        try:
            request: Any = json.loads(data)
        except (ValueError, RecursionError):
            request = None
        if not isinstance(request, dict):
            await self._send(session, _reply({}, bad_parameter("Param error"), session))
            return
        operation = request.get("op")
        if operation == "ping":
            stamp = str(self._clock.now())
            name = session.connection.name
            body = {"retCode": 0, "retMsg": "OK", "op": "pong", "data": [stamp], "connId": name}
            await self._send(session, body)
        elif operation == "auth":
            await self._log_in(session, request)
        else:
            await self._operate(session, request)

    async def _log_in(self, session: _Session, request: dict[str, Any]) -> None:
        body: JsonObject = {"retCode": 0, "retMsg": "OK", "op": "auth", "connId": session.connection.name}
        try:
            if session.key is not None:
                raise VenueRefusal(REPEATED_AUTHENTICATION, "Repeat auth")
            session.key = self._keys.check_login(request.get("args"), session.address)
        except VenueRefusal as refusal:
            body["retCode"], body["retMsg"] = refusal.code, refusal.message
        await self._send(session, body)

    async def _operate(self, session: _Session, request: dict[str, Any]) -> None:
        operation = str(request.get("op", ""))
        rule = self._injector.strike(operation, OF_REQUESTS)
        if rule is not None and rule.do in (Fault.DROP, Fault.ANSWER, Fault.CUT):
            await self._spoil(session, request, rule)
            return
        reply = await self._carry_out(session, request)
        if rule is None:
            await self._send(session, reply)
            return
        if rule.do is Fault.DUPLICATE:
            await self._carry_out(session, {**request, "reqId": ""})
        elif rule.do is Fault.DELAY:
            await asyncio.sleep(rule.seconds)
        elif rule.do is Fault.LOSE:
            await self._spoil(session, request, rule)
            return
        text = json.dumps(reply)
        await session.connection.send(self._injector.broken(text) if rule.do is Fault.CORRUPT else text)

    async def _spoil(self, session: _Session, request: dict[str, Any], rule: FaultRule) -> None:
        """Answer with a planned code, cut the socket, or say nothing."""
        if rule.do is Fault.CUT:
            session.connection.cut()
        elif rule.code:
            refusal = VenueRefusal(rule.code, TEXTS.get(rule.code, TEXTS[SERVER_ERROR]))
            await self._send(session, _reply(request, refusal, session))

    async def _carry_out(self, session: _Session, request: dict[str, Any]) -> JsonObject:
        """Do what is asked for, and tell the account; the reply is still to be sent."""
        quota: Quota | None = None
        try:
            deed, parameters = self._admitted(session, request)
            quota = self._limits.take(OPERATIONS[request["op"]])
            if quota.is_spent:
                raise VenueRefusal(TOO_MANY_VISITS)
            outcome = deed.handler(parameters)
        except VenueRefusal as refusal:
            reply = _reply(request, refusal, session)
        else:
            reply = _reply(request, None, session) | {"data": outcome.result, "retExtInfo": outcome.extra}
        await self._announce()
        if quota is not None:
            reply |= {"data": reply.get("data", {}), "header": self._header(quota)}
        return reply

    def _admitted(self, session: _Session, request: dict[str, Any]) -> tuple[Deed, dict[str, Any]]:
        """The deed and the parameters of a request that may be carried out."""
        if session.key is None:
            raise VenueRefusal(UNKNOWN_KEY)
        route = OPERATIONS.get(str(request.get("op", "")))
        if route is None:
            raise VenueRefusal(UNKNOWN_OPERATION, "op type is not found")
        name = str(request.get("reqId", ""))
        if len(name) > _LONGEST_REQUEST_ID:
            raise bad_parameter("reqId is longer than 36")
        if name and name in session.requests:
            raise VenueRefusal(REPEATED_REQUEST_ID, "reqId is repeated")
        session.requests.add(name)
        header, arguments = request.get("header"), request.get("args")
        if not isinstance(header, dict) or not isinstance(arguments, list) or len(arguments) != 1:
            raise bad_parameter("Param error")
        stamp, window = str(header.get("X-BAPI-TIMESTAMP", "")), str(header.get("X-BAPI-RECV-WINDOW", ""))
        if not stamp.isdecimal() or (window and not window.isdecimal()) or not isinstance(arguments[0], dict):
            raise bad_parameter("Param error")
        self._keys.check_time(int(stamp), int(window or DEFAULT_WINDOW_MS))
        deed = self._deeds[route]
        try:
            check_right(session.key, deed, arguments[0])
        except VenueRefusal:
            raise VenueRefusal(NO_PERMISSION, "Permission denied for current apikey") from None
        return deed, arguments[0]

    def _header(self, quota: Quota) -> dict[str, str]:
        trace = hashlib.sha256(str(next(self._traces)).encode()).hexdigest()[:32]
        return {**quota.headers(self._clock.now()), "Traceid": trace}

    async def _send(self, session: _Session, body: JsonObject) -> None:
        await session.connection.send(json.dumps(body))


def _reply(request: dict[str, Any], refusal: VenueRefusal | None, session: _Session) -> JsonObject:
    return {
        "reqId": str(request.get("reqId", "")),
        "retCode": 0 if refusal is None else refusal.code,
        "retMsg": "OK" if refusal is None else refusal.message,
        "op": str(request.get("op", "")),
        "connId": session.connection.name,
    }
