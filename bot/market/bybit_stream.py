"""Bybit's public kline stream: one websocket that heals itself, as an asynchronous iterator of events."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence

import msgspec
import structlog
from websockets.asyncio.client import ClientConnection

from bot.market.backoff import Backoff
from bot.market.healing_socket import HealingSocket
from bot.market.wire import Acknowledgement, KlineFrame, Malformed, Pong, decode_frame
from strategies.bars import Bar

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


class KlineStream(HealingSocket[StreamEvent]):
    """Closed candles of some symbols as they happen: subscribes one symbol per request, as one bad topic refuses a whole one.

    Args:
        url: such as ``wss://stream.bybit.com/v5/public/linear``.
        symbols: what to subscribe to.
        interval: the venue's code.
        ping_interval_s: see ``HealingSocket``, as the next two.
        silence_timeout_s: see there.
        backoff: see there.
        topic_silence_s: seconds within which every symbol must have sent something, a candle that forms included; looked at
            after every ping. More than an interval, since a market without trades sends one message per candle. ``None``
            where time is simulated. A symbol that stays silent on the next connection, too, is not waited for again until
            it is heard.
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
        topic_silence_s: float | None = None,
    ) -> None:
        super().__init__(
            url, "kline stream", ping_interval_s=ping_interval_s, silence_timeout_s=silence_timeout_s, backoff=backoff
        )
        self._symbols = tuple(symbols)
        self._known = frozenset(symbols)
        self._interval = interval
        self._unanswered: deque[str] = deque()
        self._answered = asyncio.Event()
        self._newest: dict[str, Bar] = {}
        self._topic_silence_s = topic_silence_s
        self._heard: dict[str, float] = {}
        """When each symbol that is waited for sent something last, by the monotonic clock."""
        self._silent: frozenset[str] = frozenset()
        """Symbols for whose silence the last connection was cut."""

    async def _open(self, socket: ClientConnection) -> None:
        self._asked = "a subscription"
        self._answered.clear()
        self._heard = dict.fromkeys(self._known - self._silent, time.monotonic())
        self._unanswered = deque(self._symbols)
        for symbol in self._symbols:
            await socket.send(_request("subscribe", symbol, [f"kline.{self._interval}.{symbol}"]))
        async with asyncio.timeout(self._silence_timeout_s):
            await self._answered.wait()

    def _ping(self) -> str:
        return _request("ping", "heartbeat")

    def _unheard(self) -> str:
        if self._topic_silence_s is None:
            return ""
        limit = time.monotonic() - self._topic_silence_s
        silent = sorted(symbol for symbol, at in self._heard.items() if at < limit)
        if not silent:
            return ""
        self._silent = frozenset(silent)
        return f"the venue sent nothing of {', '.join(silent)} for {self._topic_silence_s:g} s, though it answers pings"

    def _lost(self, reason: str) -> StreamEvent:
        return StreamDisconnected(reason)

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
            _log.warning("malformed frame dropped", url=self.url, reason=frame.reason, frame=str(data[:200]))

    def _take_candles(self, frame: KlineFrame) -> None:
        symbol = frame.symbol
        if symbol not in self._known or frame.interval != self._interval:
            return
        self._heard[symbol] = time.monotonic()
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
            self._heard.pop(symbol, None)
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
