"""The sandbox's public websocket: subscriptions, acknowledgements, pongs and kline pushes."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import Any

from aiohttp import WSMsgType, web

from backtest.sandbox import protocol
from backtest.sandbox.connections import Connection
from backtest.sandbox.faults import OF_CANDLES, Fault, FaultInjector
from backtest.sandbox.outbox import Outbox
from backtest.sandbox.tape import Release, Tape
from strategies.bars import Bar


class PublicStream:
    """All sockets of ``/v5/public/linear``."""

    def __init__(self, tape: Tape, outbox: Outbox, injector: FaultInjector) -> None:
        self._tape = tape
        self._injector = injector
        self._outbox = outbox
        self._connections: dict[str, Connection] = {}
        self._numbers = itertools.count(1)
        self._muted = dict.fromkeys(tape.symbols, 0)
        self._changed = asyncio.Event()

    @property
    def connections(self) -> int:
        """Open sockets."""
        return len(self._connections)

    def subscriptions(self) -> dict[str, int]:
        """Number of sockets subscribed to each topic."""
        counts = {protocol.topic_of(symbol, self._tape.interval): 0 for symbol in self._tape.symbols}
        for connection in self._connections.values():
            for topic in connection.topics:
                counts[topic] += 1
        return counts

    async def subscribed(self, count: int = 1) -> None:
        """Wait until every symbol's topic has at least ``count`` subscribers."""
        while min(self.subscriptions().values()) < count:
            self._changed.clear()
            await self._changed.wait()

    def mute(self, symbol: str, bars: int) -> None:
        """Do not push the next ``bars`` closes of a symbol; REST still knows them.

        Raises:
            KeyError: the symbol is not played.
        """
        self._muted[symbol] += bars

    def cut_all(self) -> int:
        """Cut every socket; returns how many there were."""
        connections = list(self._connections.values())
        for connection in connections:
            connection.cut()
        return len(connections)

    async def send_raw(self, text: str) -> None:
        """Send a text as it is to every socket."""
        for connection in list(self._connections.values()):
            await connection.send(text)

    async def push(self, releases: list[Release]) -> None:
        """Send what has just closed: one message per symbol, with the closed candle and the new one."""
        interval = self._tape.interval
        messages = []
        for release in releases:
            symbol = release.closed.symbol
            if self._muted[symbol] > 0:
                self._muted[symbol] -= 1
                continue
            topic = protocol.topic_of(symbol, interval)
            text = self._closing(release, release.closed)
            rule = self._injector.strike(topic, OF_CANDLES)
            if rule is None:
                messages.append((topic, text))
            elif rule.do is Fault.SKIP:
                self._tape.hide(release.closed, rule.bars_late)
                if rule.bars_late:
                    self._outbox.later(self, topic, text, rule.bars_late)
            else:
                messages.append((topic, self._closing(release, _unlike(release.closed, rule.fraction))))
                if rule.bars_late:
                    self._outbox.later(self, topic, text, rule.bars_late)
                else:
                    messages.append((topic, text))
        for topic, text in messages:
            await self._outbox.publish(self, topic, text)

    def _closing(self, release: Release, closed: Bar) -> str:
        """The message of a close: the closed candle, and the one that opened in its place."""
        now, interval = self._tape.now(), self._tape.interval
        candles = [protocol.candle(closed, interval, confirm=True, timestamp=now)]
        if release.opened is not None:
            candles.append(protocol.candle(release.opened, interval, confirm=False, timestamp=now))
        return protocol.kline_push(closed.symbol, interval, candles, now)

    async def send(self, topic: str, text: str) -> None:
        """Send a text to every socket that is subscribed to a topic."""
        for connection in list(self._connections.values()):
            if topic in connection.topics:
                await connection.send(text)

    def cut_topic(self, topic: str) -> None:
        """Cut every socket that is subscribed to a topic."""
        for connection in list(self._connections.values()):
            if topic in connection.topics:
                connection.cut()

    async def handle(self, request: web.Request) -> web.WebSocketResponse:
        """Serve one socket until it closes."""
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        name = f"sandbox-{next(self._numbers)}"
        connection = self._connections[name] = Connection(name, request, socket)
        try:
            async for message in socket:
                if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                    await self._answer(connection, message.data)
        finally:
            del self._connections[name]
            self._changed.set()
        return socket

    async def _answer(self, connection: Connection, data: str | bytes) -> None:
        try:
            request: Any = json.loads(data)
        except (ValueError, RecursionError):
            request = None
        if not isinstance(request, dict):
            await connection.send(protocol.complaint("Failed to decode incoming data:readObjectStart", connection.name))
            return
        operation, label = request.get("op"), str(request.get("req_id", ""))
        arguments = request.get("args")
        topics = [topic for topic in arguments if isinstance(topic, str)] if isinstance(arguments, list) else []
        if operation == "ping":
            await connection.send(protocol.pong(connection.name, label))
        elif operation == "subscribe":
            await self._subscribe(connection, topics, label)
        elif operation == "unsubscribe":
            connection.topics.difference_update(topics)
            self._changed.set()
            await connection.send(protocol.acknowledgement("unsubscribe", connection.name, label))
        else:
            await connection.send(protocol.complaint("error:invalid op", connection.name))

    async def _subscribe(self, connection: Connection, topics: list[str], label: str) -> None:
        interval = self._tape.interval
        known = dict.fromkeys(self._tape.symbols)
        refusal = protocol.first_bad_topic(topics, interval, known, connection.topics)
        if sum(map(len, topics)) + sum(map(len, connection.topics)) > protocol.MAXIMUM_ARGUMENT_CHARACTERS:
            refusal = "error:args length exceeds 21000 characters"
        if not refusal:
            connection.topics.update(topics)
        await connection.send(protocol.acknowledgement("subscribe", connection.name, label, refusal=refusal))
        if refusal:
            return
        self._changed.set()
        for topic in topics:
            symbol = topic.rpartition(".")[2]
            current = self._tape.current(symbol)
            if current is not None:
                now = self._tape.now()
                candles = [protocol.candle(current, interval, confirm=False, timestamp=now)]
                await connection.send(protocol.kline_push(symbol, interval, candles, now))


def _unlike(bar: Bar, fraction: float) -> Bar:
    """A candle that closed elsewhere in its range."""
    room = bar.high - bar.low
    close = bar.close - fraction * room if bar.close - bar.low > room / 2 else bar.close + fraction * room
    close = min(max(close, bar.low), bar.high)
    return Bar(bar.symbol, bar.open_time, bar.close_time, bar.open, bar.high, bar.low, close, bar.volume)
