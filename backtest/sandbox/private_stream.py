"""The sandbox's private websocket: login, topics of the account, and a push for whatever happens to it."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Sequence
from typing import Any, Final

from aiohttp import WSMsgType, web

from backtest.sandbox.connections import Connection
from backtest.sandbox.keys import KeyRing, ServerClock
from backtest.sandbox.outbox import Outbox
from backtest.sandbox.refusals import VenueRefusal
from backtest.sandbox.registry import PrivateMessage

TOPICS: Final = frozenset({"order", "execution", "execution.fast", "position", "wallet", "greeks", "dcp"})
CATEGORISED: Final = frozenset({"order", "execution", "execution.fast", "position"})
"""Topics that can also be had by category."""
CATEGORIES: Final = frozenset({"linear", "spot", "inverse", "option"})
_WITHOUT_ID: Final = frozenset({"execution.fast"})


class PrivateStream:
    """All sockets of ``/v5/private``.

    Args:
        keys: who may log in.
        clock: what time messages tell.
        outbox: the way of pushes to the sockets.
    """

    def __init__(self, keys: KeyRing, clock: ServerClock, outbox: Outbox) -> None:
        self._outbox = outbox
        self._keys = keys
        self._clock = clock
        self._connections: dict[str, Connection] = {}
        self._known: set[str] = set()
        self._numbers = itertools.count(1)
        self._messages = itertools.count(1)
        self._changed = asyncio.Event()

    @property
    def connections(self) -> int:
        """Open sockets."""
        return len(self._connections)

    def cut_all(self) -> int:
        """Cut every socket; returns how many there were."""
        connections = list(self._connections.values())
        for connection in connections:
            connection.cut()
        return len(connections)

    async def subscribed(self, *topics: str) -> None:
        """Wait until one socket at least is subscribed to all of these topics."""
        while not any(connection.topics.issuperset(topics) for connection in self._connections.values()):
            self._changed.clear()
            await self._changed.wait()

    async def push(self, messages: Sequence[PrivateMessage]) -> None:
        """Send messages to whoever has subscribed to their topics, all-in-one or by category."""
        for message in messages:
            topic = f"{message.topic}.{message.category}" if message.category else message.topic
            stamp = {"id": f"sandbox-{next(self._messages)}"} if message.topic not in _WITHOUT_ID else {}
            body = {"topic": topic, **stamp, "creationTime": self._clock.now(), "data": message.rows}
            text = json.dumps(body, separators=(",", ":"))
            await self._outbox.publish(self, topic, text, name=message.topic)

    async def send(self, topic: str, text: str) -> None:
        """Send a text to every socket that is subscribed to a topic, by category or all in one."""
        whole = _all_in_one(topic)
        named_whole = text.replace(f'"topic":"{topic}"', f'"topic":"{whole}"', 1)
        for connection in list(self._connections.values()):
            if topic in connection.topics:
                await connection.send(text)
            elif whole in connection.topics:
                await connection.send(named_whole)

    def cut_topic(self, topic: str) -> None:
        """Cut every socket that is subscribed to a topic, by category or all in one."""
        for connection in list(self._connections.values()):
            if connection.topics & {topic, _all_in_one(topic)}:
                connection.cut()

    async def handle(self, request: web.Request) -> web.WebSocketResponse:
        """Serve one socket until it closes."""
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        name = f"sandbox-private-{next(self._numbers)}"
        connection = self._connections[name] = Connection(name, request, socket)
        try:
            async for message in socket:
                if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                    await self._answer(connection, message.data, request.remote or "")
        finally:
            del self._connections[name]
            self._known.discard(name)
            self._changed.set()
        return socket

    async def _answer(self, connection: Connection, data: str | bytes, address: str) -> None:
        try:
            request: Any = json.loads(data)
        except (ValueError, RecursionError):
            request = None
        if not isinstance(request, dict):
            refused = "Failed to decode incoming data:readObjectStart"
            await self._tell(connection, {}, success=False, ret_msg=refused)
            return
        operation = request.get("op")
        if operation == "ping":
            stamp = str(self._clock.now())
            body = {"req_id": str(request.get("req_id", "")), "op": "pong", "args": [stamp], "conn_id": connection.name}
            await connection.send(json.dumps(body, separators=(",", ":")))
        elif operation == "auth":
            await self._log_in(connection, request, address)
        elif operation in ("subscribe", "unsubscribe"):
            await self._subscribe(connection, request)
        else:
            await self._tell(connection, request, success=False, ret_msg="error:invalid op")

    async def _log_in(self, connection: Connection, request: dict[str, Any], address: str) -> None:
        try:
            self._keys.check_login(request.get("args"), address)
        except VenueRefusal as refusal:
            await self._tell(connection, request, success=False, ret_msg=refusal.message)
            await connection.close()
            return
        self._known.add(connection.name)
        await self._tell(connection, request, success=True, ret_msg="")

    async def _subscribe(self, connection: Connection, request: dict[str, Any]) -> None:
        arguments = request.get("args")
        topics = [str(topic) for topic in arguments] if isinstance(arguments, list) else []
        if connection.name not in self._known:
            await self._tell(connection, request, success=False, ret_msg="Request not authorized")
            return
        if request["op"] == "unsubscribe":
            connection.topics.difference_update(topics)
            await self._tell(connection, request, success=True, ret_msg="")
            return
        refusal = first_bad_topic(topics, connection.topics)
        if not refusal:
            connection.topics.update(topics)
        await self._tell(connection, request, success=not refusal, ret_msg=refusal)
        self._changed.set()

    async def _tell(self, connection: Connection, request: dict[str, Any], *, success: bool, ret_msg: str) -> None:
        body: dict[str, Any] = {"success": success, "ret_msg": ret_msg}
        if "op" in request:
            body["op"] = request["op"]
        body["conn_id"] = connection.name
        if request.get("req_id"):
            body["req_id"] = request["req_id"]
        text = json.dumps(body, separators=(",", ":"))
        if request.get("op") == "subscribe":
            await self._outbox.answer(connection, "subscribe", text)
        else:
            await connection.send(text)


def _all_in_one(topic: str) -> str:
    """A topic without its category."""
    kind, _, category = topic.rpartition(".")
    return kind if category in CATEGORIES else topic


def first_bad_topic(topics: Sequence[str], held: set[str]) -> str:
    """Why a subscription is refused, naming the first bad topic; an empty string when every topic is good.

    All-in-one topics (``order``) and categorised ones (``order.linear``) cannot be mixed in one request.
    """
    forms = set()
    for topic in topics:
        kind, _, category = topic.rpartition(".")
        if topic in CATEGORISED:
            forms.add("all")
        elif kind in CATEGORISED and category in CATEGORIES:
            forms.add("one")
        elif topic in TOPICS or kind == "dcp":
            pass
        else:
            return f"error:handler not found,topic:{topic}"
        if topic in held:
            return f"error:already subscribed,topic:{topic}"
    return "error:all-in-one and categorised topics cannot be mixed in one request" if len(forms) > 1 else ""
