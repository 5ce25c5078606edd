"""Bybit's private stream: orders, executions, positions and the wallet of one account, over a socket that heals itself.

Nothing that happened while the socket was gone is told again: after every ``PrivateConnected`` the account is to be asked
for by REST. https://bybit-exchange.github.io/docs/v5/ws/connect
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self

import msgspec
import structlog
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from bot.execution.bybit.decode import (
    VenueExecution,
    VenueOrder,
    VenuePosition,
    VenueWallet,
    decode_executions,
    decode_orders,
    decode_positions,
    decode_wallets,
)
from bot.market.backoff import Backoff
from bot.market.bybit_stream import FORBIDDEN, FORBIDDEN_WAIT_S, MAXIMUM_FRAME_BYTES, STABLE_S
from bot.market.wire import Acknowledgement, Malformed, Pong, decode_frame

LOGIN_LIFE_MS: Final = 10_000
"""How long a login is good for; pybit's 1 s fails where a handshake is slow or a clock is off."""
TOPICS: Final[dict[str, Callable[[object], list[Any]]]] = {
    "order": decode_orders,
    "execution": decode_executions,
    "position": decode_positions,
    "wallet": decode_wallets,
}

_log = structlog.get_logger(__name__)


class PrivateConnected(msgspec.Struct, frozen=True):
    """The socket is open, the login and the subscriptions were taken. What happened before may have been missed."""

    attempt: int
    """Connections opened so far, from 1."""


class PrivateDisconnected(msgspec.Struct, frozen=True):
    """The socket is gone; another attempt follows by itself."""

    reason: str
    refused: bool = False
    """The venue does not take the key: trying again will not help."""


PrivateEvent = PrivateConnected | PrivateDisconnected | VenueOrder | VenueExecution | VenuePosition | VenueWallet


class _Push(msgspec.Struct):
    topic: Any = ""
    data: Any = None


_pushes: Final = msgspec.json.Decoder(_Push)


class PrivateStream:
    """Events of one account as they happen; an asynchronous context manager and iterator that never raises for the venue.

    Args:
        url: such as ``wss://stream.bybit.com/v5/private``.
        key: of the account.
        secret: what the login is signed with.
        venue_ms: the venue's clock, milliseconds.
        ping_interval_s: seconds between pings.
        silence_timeout_s: seconds within which a ping, a login or the subscriptions must be answered.
        backoff: waits between connections.
    """

    def __init__(
        self,
        url: str,
        key: str,
        secret: str,
        *,
        venue_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        ping_interval_s: float = 20.0,
        silence_timeout_s: float = 10.0,
        backoff: Backoff | None = None,
    ) -> None:
        self._url = url
        self._key = key
        self._secret = secret
        self._venue_ms = venue_ms
        self._ping_interval_s = ping_interval_s
        self._silence_timeout_s = silence_timeout_s
        self._backoff = backoff or Backoff()
        self._events: asyncio.Queue[PrivateEvent | Exception] = asyncio.Queue()
        self._answers: asyncio.Queue[Acknowledgement] = asyncio.Queue()
        self._pong = asyncio.Event()
        self._fault = ""
        self._refused = False
        self._task: asyncio.Task[None] | None = None
        self.malformed_frames = 0
        self.connections = 0

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="private stream")
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

    async def __anext__(self) -> PrivateEvent:
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
            self._events.put_nowait(error)

    async def _stay_connected(self) -> None:
        failures = 0
        while True:
            began = time.monotonic()
            wait_s = 0.0
            self._fault, self._refused = "", False
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
            _log.warning("private stream disconnected", url=self._url, reason=reason, retry_s=round(delay, 3))
            self._events.put_nowait(PrivateDisconnected(reason, self._refused))
            await asyncio.sleep(delay)

    async def _serve_one_connection(self) -> str:
        """Connect, log in, subscribe and read until the connection ends; returns why it did."""
        socket = await connect(
            self._url,
            ping_interval=None,
            compression=None,
            open_timeout=self._silence_timeout_s,
            close_timeout=1.0,
            max_size=MAXIMUM_FRAME_BYTES,
        )
        self.connections += 1
        self._answers = asyncio.Queue()
        keeper = asyncio.create_task(self._keep(socket), name="private stream login and heartbeat")
        try:
            async for frame in socket:
                self._take(frame)
        except ConnectionClosed as closed:
            return self._fault or f"the connection broke ({closed})"
        finally:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
            socket.transport.abort()
        return self._fault or "the venue closed the connection"

    async def _keep(self, socket: ClientConnection) -> None:
        """Log in, subscribe, then watch that pings are answered; cut the socket when the venue does not answer."""
        asked = "a login"
        try:
            if not await self._agreed(socket, self._login(), "auth"):
                self._refused = True
                return
            asked = "a subscription"
            # All topics at once: they are the same for every account, so that one cannot refuse the others.
            if not await self._agreed(socket, {"op": "subscribe", "args": list(TOPICS)}, "subscribe"):
                return
            self._events.put_nowait(PrivateConnected(self.connections))
            asked = "a ping"
            while True:
                await asyncio.sleep(self._ping_interval_s)
                self._pong.clear()
                await socket.send(msgspec.json.encode({"op": "ping"}).decode())
                async with asyncio.timeout(self._silence_timeout_s):
                    await self._pong.wait()
        except TimeoutError:
            self._fault = f"the venue did not answer {asked} in {self._silence_timeout_s:g} s"
            socket.transport.abort()
        except ConnectionClosed:
            return

    async def _agreed(self, socket: ClientConnection, request: dict[str, object], operation: str) -> bool:
        """Ask for something and wait for the answer; where it is no, the socket is cut."""
        await socket.send(msgspec.json.encode(request).decode())
        async with asyncio.timeout(self._silence_timeout_s):
            while (answer := await self._answers.get()).operation not in (operation, ""):
                continue
        if answer.success:
            return True
        self._fault = f"the venue refused {operation}: {answer.message}"
        socket.transport.abort()
        return False

    def _login(self) -> dict[str, object]:
        expires = self._venue_ms() + LOGIN_LIFE_MS
        text = f"GET/realtime{expires}"
        signature = hmac.new(self._secret.encode(), text.encode(), hashlib.sha256).hexdigest()
        return {"op": "auth", "args": [self._key, expires, signature]}

    def _take(self, data: str | bytes) -> None:
        frame = decode_frame(data)
        if isinstance(frame, Pong):
            self._pong.set()
        elif isinstance(frame, Acknowledgement):
            self._answers.put_nowait(frame)
        elif isinstance(frame, Malformed):
            self.malformed_frames += 1
            _log.warning("malformed private frame dropped", url=self._url, reason=frame.reason)
        else:
            self._take_push(data)

    def _take_push(self, data: str | bytes) -> None:
        try:
            push = _pushes.decode(data)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            self.malformed_frames += 1
            return
        topic = push.topic.partition(".")[0] if isinstance(push.topic, str) else ""
        decode = TOPICS.get(topic)
        if decode is not None:
            for row in decode(push.data):
                self._events.put_nowait(row)
