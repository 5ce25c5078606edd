"""Bybit's public kline stream: one websocket that heals itself, as an asynchronous iterator of events."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

import msgspec
import structlog
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from bot.market.backoff import Backoff
from bot.market.wire import Acknowledgement, KlineFrame, Malformed, Pong, decode_frame
from strategies.bars import Bar

FORBIDDEN: Final = 403
MAXIMUM_FRAME_BYTES: Final = 4 * 1024 * 1024
STABLE_S: Final = 30.0
"""A connection that lived this long was a good one: the next retry is a first retry again."""
FORBIDDEN_WAIT_S: Final = 600.0
"""The venue bans an address for about ten minutes; asking sooner prolongs it."""

_log = structlog.get_logger(__name__)


class StreamConnected(msgspec.Struct, frozen=True):
    """A socket is open and every subscription has been answered. What closed before this may have been missed."""

    attempt: int
    """Connections opened so far by this stream, from 1."""


class KlineClosed(msgspec.Struct, frozen=True):
    """A candle was confirmed. Its values are as the venue sent them; judge them before use."""

    bar: Bar
    venue_time: int
    """When the venue sent it (milliseconds); 0 when it did not say."""
    received_ns: int
    """When it arrived, by the monotonic clock."""


class SubscriptionRefused(msgspec.Struct, frozen=True):
    """The venue does not stream this symbol."""

    symbol: str
    reason: str


class StreamDisconnected(msgspec.Struct, frozen=True):
    """The socket is gone; another attempt follows by itself."""

    reason: str


StreamEvent = StreamConnected | KlineClosed | SubscriptionRefused | StreamDisconnected


class KlineStream:
    """Closed candles of some symbols as they happen.

    Connects, subscribes one symbol per request (one bad topic refuses a whole request), pings, reconnects with backoff,
    for as long as it is open. It never raises for what the venue does. Use it as an asynchronous context manager and
    iterate; taking the next event may be cancelled without losing one.

    Args:
        url: such as ``wss://stream.bybit.com/v5/public/linear``.
        symbols: what to subscribe to.
        interval: the venue's code.
        ping_interval_s: seconds between pings; the venue closes a socket that stays silent for ten minutes.
        silence_timeout_s: seconds within which a ping, a handshake or the subscriptions must be answered.
        backoff: waits between connections.
        forbidden_wait_s: wait after the venue refused a connection with HTTP status 403.
    """

    def __init__(
        self,
        url: str,
        symbols: Sequence[str],
        interval: str,
        *,
        ping_interval_s: float = 20.0,
        silence_timeout_s: float = 10.0,
        backoff: Backoff | None = None,
        forbidden_wait_s: float = FORBIDDEN_WAIT_S,
    ) -> None:
        self._url = url
        self._symbols = tuple(symbols)
        self._known = frozenset(symbols)
        self._interval = interval
        self._ping_interval_s = ping_interval_s
        self._silence_timeout_s = silence_timeout_s
        self._backoff = backoff or Backoff()
        self._forbidden_wait_s = forbidden_wait_s
        self._events: asyncio.Queue[StreamEvent | Exception] = asyncio.Queue()
        self._pong = asyncio.Event()
        self._unanswered: deque[str] = deque()
        self._answered = asyncio.Event()
        self._newest: dict[str, Bar] = {}
        self._fault = ""
        self._task: asyncio.Task[None] | None = None
        self.malformed_frames = 0
        self.connections = 0

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="kline stream")
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

    async def __anext__(self) -> StreamEvent:
        if self._task is None:
            raise StopAsyncIteration
        event = await self._events.get()
        if isinstance(event, Exception):
            raise event
        return event

    async def _run(self) -> None:
        """Keep the stream up; an error of our own ends it and reaches whoever takes the next event."""
        try:
            await self._stay_connected()
        except Exception as error:
            self._events.put_nowait(error)

    async def _stay_connected(self) -> None:
        failures = 0
        while True:
            began = time.monotonic()
            wait_s = 0.0
            try:
                reason = await self._serve_one_connection()
            except InvalidStatus as error:
                status = error.response.status_code
                reason = f"the handshake was refused with HTTP status {status}"
                wait_s = self._forbidden_wait_s if status == FORBIDDEN else 0.0
            except (OSError, WebSocketException, TimeoutError) as error:
                reason = f"{type(error).__name__}: {error}".rstrip(": ")
            failures = 0 if time.monotonic() - began >= STABLE_S else failures
            delay = max(self._backoff.delay(failures), wait_s)
            failures += 1
            _log.warning("stream disconnected", url=self._url, reason=reason, retry_s=round(delay, 3))
            self._events.put_nowait(StreamDisconnected(reason))
            await asyncio.sleep(delay)

    async def _serve_one_connection(self) -> str:
        """Connect, subscribe and read until the connection ends; returns why it did."""
        socket = await connect(
            self._url,
            ping_interval=None,
            compression=None,
            open_timeout=self._silence_timeout_s,
            close_timeout=1.0,
            max_size=MAXIMUM_FRAME_BYTES,
        )
        self.connections += 1
        self._fault = ""
        self._answered.clear()
        self._unanswered = deque(self._symbols)
        heart = asyncio.create_task(self._beat(socket), name="kline stream heartbeat")
        try:
            for symbol in self._symbols:
                await socket.send(_request("subscribe", symbol, [f"kline.{self._interval}.{symbol}"]))
            async for frame in socket:
                self._take(frame)
        except ConnectionClosed as closed:
            return self._fault or f"the connection broke ({closed})"
        finally:
            heart.cancel()
            socket.transport.abort()
        return "the venue closed the connection"

    async def _beat(self, socket: ClientConnection) -> None:
        """Watch that the venue answers, first the subscriptions, then every ping; cut the socket when it does not."""
        try:
            async with asyncio.timeout(self._silence_timeout_s):
                await self._answered.wait()
            while True:
                await asyncio.sleep(self._ping_interval_s)
                self._pong.clear()
                await socket.send(_request("ping", "heartbeat"))
                async with asyncio.timeout(self._silence_timeout_s):
                    await self._pong.wait()
        except TimeoutError:
            asked = "a ping" if self._answered.is_set() else "a subscription"
            self._fault = f"the venue did not answer {asked} in {self._silence_timeout_s:g} s"
            socket.transport.abort()
        except ConnectionClosed:
            return

    def _take(self, data: str | bytes) -> None:
        frame = decode_frame(data)
        if isinstance(frame, KlineFrame):
            self._take_candles(frame)
        elif isinstance(frame, Pong):
            self._pong.set()
        elif isinstance(frame, Acknowledgement):
            self._take_acknowledgement(frame)
        elif isinstance(frame, Malformed):
            self.malformed_frames += 1
            _log.warning("malformed frame dropped", url=self._url, reason=frame.reason, frame=str(data[:200]))

    def _take_candles(self, frame: KlineFrame) -> None:
        symbol = frame.symbol
        if symbol not in self._known or frame.interval != self._interval:
            return
        for candle in frame.candles:
            if not candle.confirmed:
                continue
            bar = Bar(
                symbol,
                candle.open_time,
                candle.close_time,
                candle.open,
                candle.high,
                candle.low,
                candle.close,
                candle.volume,
            )
            # A correction of a bar that was refused passes here, because a bar with NaN equals nothing.
            if bar != self._newest.get(symbol):
                self._newest[symbol] = bar
                self._events.put_nowait(KlineClosed(bar, frame.venue_time, time.monotonic_ns()))

    def _take_acknowledgement(self, answer: Acknowledgement) -> None:
        if answer.operation != "subscribe" or not self._unanswered:
            return
        symbol = self._answered_symbol(answer)
        self._unanswered.remove(symbol)
        if not answer.success and "already subscribed" not in answer.message:
            _log.error("subscription refused", symbol=symbol, reason=answer.message)
            self._events.put_nowait(SubscriptionRefused(symbol, answer.message))
        if not self._unanswered:
            self._answered.set()
            self._events.put_nowait(StreamConnected(self.connections))

    def _answered_symbol(self, answer: Acknowledgement) -> str:
        """Whose subscription this answers: by label, by the topic it names, or else the oldest that waits.

        The linear stream may leave the label empty; it answers in the order of the requests.
        """
        if answer.request in self._unanswered:
            return answer.request
        named = (symbol for symbol in self._unanswered if f"kline.{self._interval}.{symbol}]" in f"{answer.message}]")
        return next(named, self._unanswered[0])


def _request(operation: str, label: str, arguments: Sequence[str] | None = None) -> str:
    body: dict[str, object] = {"req_id": label, "op": operation}
    if arguments is not None:
        body["args"] = arguments
    return msgspec.json.encode(body).decode()
