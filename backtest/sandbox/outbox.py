"""The way of a push from the venue to its sockets, with whatever the fault plan does to it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol

from backtest.sandbox.connections import Connection
from backtest.sandbox.faults import OF_ANSWERS, OF_PUSHES, Fault, FaultInjector, FaultRule


class Stream(Protocol):
    """Sockets that are subscribed to topics."""

    async def send(self, topic: str, text: str) -> None:
        """Send a text to every socket that is subscribed to a topic."""

    def cut_topic(self, topic: str) -> None:
        """Cut every socket that is subscribed to a topic."""


@dataclass(frozen=True, slots=True)
class _OneSocket:
    """A stream of one socket, whatever it is subscribed to."""

    connection: Connection

    async def send(self, topic: str, text: str) -> None:
        await self.connection.send(text)

    def cut_topic(self, topic: str) -> None:
        self.connection.cut()


@dataclass(frozen=True, slots=True)
class _Held:
    """A push that comes later."""

    stream: Stream
    topic: str
    text: str
    due: int = 0
    """Closes of the venue at which it is sent."""


class Outbox:
    """Sends pushes, some of them late, twice, broken, in the wrong order, or never."""

    def __init__(self, injector: FaultInjector) -> None:
        self._injector = injector
        self._late: list[_Held] = []
        self._behind: dict[int, list[_Held]] = {}
        self._timers: set[asyncio.Task[None]] = set()

    async def answer(self, connection: Connection, operation: str, text: str) -> None:
        """Send one socket the answer to an operation, unless a fault is planned for that."""
        await self._send(_OneSocket(connection), operation, text, self._injector.strike(operation, OF_ANSWERS))

    async def publish(self, stream: Stream, topic: str, text: str, *, name: str = "") -> None:
        """Send a text to whoever is subscribed to a topic of a stream, unless a fault is planned for it.

        Args:
            stream: of the sockets.
            topic: that they are subscribed to.
            text: of the message.
            name: what the fault plan calls the topic, where that is not the topic itself.
        """
        await self._send(stream, topic, text, self._injector.strike(name or topic, OF_PUSHES))

    async def _send(self, stream: Stream, topic: str, text: str, rule: FaultRule | None) -> None:
        held = _Held(stream, topic, text)
        if rule is None:
            await stream.send(topic, text)
        elif rule.do is Fault.DUPLICATE:
            await stream.send(topic, text)
            await stream.send(topic, text)
        elif rule.do is Fault.CORRUPT:
            await stream.send(topic, self._injector.broken(text))
        elif rule.do is Fault.CUT:
            stream.cut_topic(topic)
        elif rule.do is Fault.REORDER:
            self._behind.setdefault(id(stream), []).append(held)
            return
        elif rule.do is Fault.DELAY:
            self.later(stream, topic, text, rule.bars_late, rule.seconds)
            return
        for waiting in self._behind.pop(id(stream), []):
            await waiting.stream.send(waiting.topic, waiting.text)

    def later(self, stream: Stream, topic: str, text: str, bars: int, seconds: float = 0.0) -> None:
        """Send a text so many closes later, or after so many seconds."""
        held = _Held(stream, topic, text, self._injector.closes + bars)
        if not seconds:
            self._late.append(held)
            return
        timer = asyncio.create_task(_send_after(held, seconds))
        self._timers.add(timer)
        timer.add_done_callback(self._timers.discard)

    async def on_close(self) -> None:
        """Send what is due at this close."""
        due = [held for held in self._late if held.due <= self._injector.closes]
        self._late = [held for held in self._late if held.due > self._injector.closes]
        for held in due:
            await held.stream.send(held.topic, held.text)

    def forget(self) -> None:
        """Drop everything that is still to come."""
        for timer in self._timers:
            timer.cancel()
        self._late.clear()
        self._behind.clear()


async def _send_after(held: _Held, seconds: float) -> None:
    await asyncio.sleep(seconds)
    await held.stream.send(held.topic, held.text)
