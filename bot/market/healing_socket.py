"""A websocket of the venue that heals itself: connects, watches that it is answered, and connects again, for ever."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Final, Generic, Self, TypeVar

import structlog
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from bot.market.backoff import Backoff

FORBIDDEN: Final = 403
MAXIMUM_FRAME_BYTES: Final = 4 * 1024 * 1024
STABLE_S: Final = 30.0
"""A connection that lived this long was a good one: the next retry is a first retry again."""
FORBIDDEN_WAIT_S: Final = 600.0
"""The venue bans an address for about ten minutes; asking sooner prolongs it."""

_log = structlog.get_logger(__name__)

Event = TypeVar("Event")


class HealingSocket(ABC, Generic[Event]):
    """Events of one stream: an asynchronous context manager and iterator that never raises for what the venue does.

    An error of our own ends the stream and reaches whoever takes the next event. Taking the next event may be cancelled
    without losing one. What a stream asks for and what its frames mean is up to its class.

    Args:
        url: of the stream.
        name: of it, for logs.
        ping_interval_s: seconds between pings; the venue closes a socket that stays silent for ten minutes.
        silence_timeout_s: seconds within which a ping, a handshake or a request must be answered.
        backoff: waits between connections.
    """

    def __init__(
        self, url: str, name: str, *, ping_interval_s: float, silence_timeout_s: float, backoff: Backoff | None
    ) -> None:
        self.url = url
        self._name = name
        self._ping_interval_s = ping_interval_s
        self._silence_timeout_s = silence_timeout_s
        self._backoff = backoff or Backoff()
        self._events: asyncio.Queue[Event | Exception] = asyncio.Queue()
        self._pong = asyncio.Event()
        self._asked = ""
        """What the venue is to answer next, for messages."""
        self._fault = ""
        """Why this connection was cut from here, if it was."""
        self._task: asyncio.Task[None] | None = None
        self.malformed_frames = 0
        self.connections = 0

    @abstractmethod
    async def _open(self, socket: ClientConnection) -> None:
        """Ask a new connection for what the stream is about, and wait for the answers.

        Raises:
            TimeoutError: there was none; ``_asked`` says to what.
        """

    @abstractmethod
    def _take(self, data: str | bytes) -> None:
        """Read one frame."""

    @abstractmethod
    def _lost(self, reason: str) -> Event | None:
        """The event that says that the connection is gone; ``None`` where nobody takes events."""

    @abstractmethod
    def _ping(self) -> str:
        """The request whose answer sets ``_pong``."""

    def _unheard(self) -> str:
        """Why a connection that answers pings is of no use all the same; empty where it is."""
        return ""

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name=self._name)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        if self._task is None:
            raise StopAsyncIteration
        event = await self._events.get()
        if isinstance(event, Exception):
            raise event
        return event

    async def _run(self) -> None:
        try:
            await self._stay_connected()
        except Exception as error:
            _log.exception("stream failed", stream=self._name, url=self.url)
            self._events.put_nowait(error)

    async def _stay_connected(self) -> None:
        failures = 0
        while True:
            began = time.monotonic()
            wait_s = 0.0
            self._fault = ""
            try:
                reason = await self._serve_one_connection()
            except InvalidStatus as error:
                status = error.response.status_code
                reason = f"the handshake was refused with HTTP status {status}"
                wait_s = FORBIDDEN_WAIT_S if status == FORBIDDEN else 0.0
            except (OSError, WebSocketException, TimeoutError) as error:
                reason = self._fault or f"{type(error).__name__}: {error}".rstrip(": ")
            failures = 0 if time.monotonic() - began >= STABLE_S else failures
            delay = max(self._backoff.delay(failures), wait_s)
            failures += 1
            _log.warning("stream disconnected", stream=self._name, url=self.url, reason=reason, retry_s=round(delay, 3))
            event = self._lost(reason)
            if event is not None:
                self._events.put_nowait(event)
            await asyncio.sleep(delay)

    async def _serve_one_connection(self) -> str:
        """Connect and read until the connection ends; returns why it did."""
        socket = await connect(
            self.url,
            ping_interval=None,
            compression=None,
            open_timeout=self._silence_timeout_s,
            close_timeout=1.0,
            max_size=MAXIMUM_FRAME_BYTES,
        )
        self.connections += 1
        keeper = asyncio.create_task(self._keep(socket), name=f"{self._name} heartbeat")
        # Without its keeper a connection is no longer watched.
        keeper.add_done_callback(lambda _: socket.transport.abort())
        try:
            async for frame in socket:
                self._take(frame)
        except ConnectionClosed as closed:
            return self._fault or f"the connection broke ({closed})"
        finally:
            keeper.cancel()
            (outcome,) = await asyncio.gather(keeper, return_exceptions=True)
            if isinstance(outcome, Exception):
                raise outcome
        return self._fault or "the venue closed the connection"

    async def _keep(self, socket: ClientConnection) -> None:
        """Watch that the venue answers, first what was asked for, then every ping; cut the socket when it does not."""
        try:
            await self._open(socket)
            self._asked = "a ping"
            while True:
                await asyncio.sleep(self._ping_interval_s)
                self._pong.clear()
                await socket.send(self._ping())
                async with asyncio.timeout(self._silence_timeout_s):
                    await self._pong.wait()
                if fault := self._unheard():
                    self._cut(socket, fault)
                    return
        except TimeoutError:
            self._cut(socket, f"the venue did not answer {self._asked} in {self._silence_timeout_s:g} s")
        except ConnectionClosed:
            return

    def _cut(self, socket: ClientConnection, fault: str) -> None:
        """End this connection for a reason of ours."""
        self._fault = fault
        socket.transport.abort()
