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
from backtest.sandbox.market_data import MarketData
from backtest.sandbox.outbox import Outbox
from backtest.sandbox.resampling import floor_open
from backtest.sandbox.tape import Release, Tape
from strategies.bars import Bar


class PublicStream:
    """All sockets of ``/v5/public/linear`` and ``/v5/public/spot``, which have the same candles."""

    def __init__(self, tape: Tape, data: MarketData, outbox: Outbox, injector: FaultInjector) -> None:
        self._tape = tape
        self._data = data
        self._tickers: dict[str, protocol.JsonObject] = {}
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
                counts[topic] = counts.get(topic, 0) + 1
        return counts

    async def subscribed(self, count: int = 1) -> None:
        """Wait until every symbol's topic has at least ``count`` subscribers."""
        while min(self.subscriptions()[topic] for topic in self._own_topics()) < count:
            self._changed.clear()
            await self._changed.wait()

    def _own_topics(self) -> list[str]:
        return [protocol.topic_of(symbol, self._tape.interval) for symbol in self._tape.symbols]

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
        for release in releases:
            await self._push_others(release.closed)

    async def push_forming(self) -> None:
        """Send every candle that forms, as far as it has come."""
        for topic in self._wanted():
            kind, interval, symbol = _parts(topic)
            if kind == "kline":
                forming = self._forming(symbol, interval)
                if forming is not None:
                    await self._outbox.publish(self, topic, forming)

    async def _push_others(self, closed: Bar) -> None:
        """Send what a close means for candles of longer intervals, tickers and best prices that somebody listens to."""
        for topic in self._wanted():
            kind, interval, symbol = _parts(topic)
            if symbol != closed.symbol or topic == protocol.topic_of(symbol, self._tape.interval):
                continue
            text = self._longer(closed, interval) if kind == "kline" else self._figures(topic, kind, symbol)
            if text is not None:
                await self._outbox.publish(self, topic, text)

    def _wanted(self) -> list[str]:
        """Topics that somebody listens to, in one order."""
        return sorted(set().union(*(connection.topics for connection in self._connections.values())))

    def _longer(self, closed: Bar, interval: str) -> str | None:
        """A candle of a longer interval at the close of one of its parts, with its successor where it is closed too."""
        now, symbol = self._tape.now(), closed.symbol
        candles = []
        for bar in self._tape.candles(symbol, interval, None, None, 2):
            is_closed = bar.close_time <= now
            if bar.open_time >= floor_open(closed.open_time, interval):
                candles.append(protocol.candle(bar, interval, confirm=is_closed, timestamp=now))
        return protocol.kline_push(symbol, interval, candles, now) if candles else None

    def _forming(self, symbol: str, interval: str) -> str | None:
        now = self._tape.now()
        bars = self._tape.candles(symbol, interval, None, None, 1)
        if not bars or bars[-1].close_time <= now:
            return None
        candles = [protocol.candle(bars[-1], interval, confirm=False, timestamp=now)]
        return protocol.kline_push(symbol, interval, candles, now)

    def _figures(self, topic: str, kind: str, symbol: str, *, whole: bool = False) -> str | None:
        """A ticker, whole or what has changed of it, or the best prices."""
        now = self._tape.now()
        if kind == "orderbook":
            return protocol.topic_push(topic, "snapshot", self._data.order_book(symbol), now, cts=now)
        ticker = self._data.ticker(symbol)
        before = {} if whole else self._tickers.get(symbol, {})
        self._tickers[symbol] = ticker
        if not before:
            return protocol.topic_push(topic, "snapshot", ticker, now, cs=now)
        changed = {name: value for name, value in ticker.items() if before.get(name) != value}
        if not changed:
            return None
        return protocol.topic_push(topic, "delta", {"symbol": symbol, **changed}, now, cs=now)

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
        known = dict.fromkeys(self._tape.symbols)
        refusal = protocol.first_bad_topic(topics, self._tape.intervals, known, connection.topics)
        if connection.is_spot and any(topic.startswith("tickers.") for topic in topics):
            refusal = "error:the sandbox has no tickers on the stream of its spot market"
        if sum(map(len, topics)) + sum(map(len, connection.topics)) > protocol.MAXIMUM_ARGUMENT_CHARACTERS:
            refusal = "error:args length exceeds 21000 characters"
        if not refusal:
            connection.topics.update(topics)
        answer = protocol.acknowledgement("subscribe", connection.name, label, refusal=refusal)
        await self._outbox.answer(connection, "subscribe", answer)
        if refusal:
            return
        self._changed.set()
        for topic in topics:
            kind, interval, symbol = _parts(topic)
            is_candle = kind == "kline"
            text = self._forming(symbol, interval) if is_candle else self._figures(topic, kind, symbol, whole=True)
            if text is not None:
                await connection.send(text)


def _parts(topic: str) -> tuple[str, str, str]:
    """Kind, interval or depth, and symbol of a topic."""
    prefix, _, symbol = topic.rpartition(".")
    kind, _, code = prefix.partition(".")
    return kind, code, symbol


def _unlike(bar: Bar, fraction: float) -> Bar:
    """A candle that closed elsewhere in its range."""
    room = bar.high - bar.low
    close = bar.close - fraction * room if bar.close - bar.low > room / 2 else bar.close + fraction * room
    close = min(max(close, bar.low), bar.high)
    return Bar(bar.symbol, bar.open_time, bar.close_time, bar.open, bar.high, bar.low, close, bar.volume)
