"""Frames of Bybit's public streams, decoded into typed values. Pure: bytes in, one value out, nothing raised.

Shapes: https://bybit-exchange.github.io/docs/v5/ws/connect and https://bybit-exchange.github.io/docs/v5/websocket/public/kline
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Final

import msgspec

Milliseconds = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]
Number = str | float | int | None


class Candle(msgspec.Struct, frozen=True, gc=False):
    """One element of a kline push. A price or volume that is missing or cannot be read is NaN."""

    open_time: int
    close_time: int
    open: float
    high: float
    low: float
    close: float
    volume: float
    confirmed: bool
    """The candle is closed and final."""


class KlineFrame(msgspec.Struct, frozen=True):
    """A push of a ``kline`` topic."""

    symbol: str
    interval: str
    candles: tuple[Candle, ...]
    venue_time: int
    """When the venue sent it (milliseconds); 0 when it did not say."""


class Acknowledgement(msgspec.Struct, frozen=True):
    """The answer to a subscribe or unsubscribe request, or to one that the venue did not understand."""

    operation: str
    success: bool
    message: str
    request: str


class Pong(msgspec.Struct, frozen=True):
    """The answer to a ping, in any of the venue's five shapes."""


class OtherFrame(msgspec.Struct, frozen=True):
    """A well-formed frame of another topic or operation."""

    topic: str


class Malformed(msgspec.Struct, frozen=True):
    """A frame that cannot be read, and why."""

    reason: str


Frame = KlineFrame | Acknowledgement | Pong | OtherFrame | Malformed


class _Envelope(msgspec.Struct):
    topic: Any = ""
    data: msgspec.Raw = msgspec.Raw()
    ts: Any = 0
    op: Any = ""
    success: Any = None
    ret_msg: Any = ""
    ret_code_message: Any = msgspec.field(default="", name="retMsg")
    req_id: Any = ""


class _Candle(msgspec.Struct):
    start: Milliseconds
    end: Milliseconds
    open: Number = None
    high: Number = None
    low: Number = None
    close: Number = None
    volume: Number = None
    confirm: bool = False


_envelopes: Final = msgspec.json.Decoder(_Envelope)
_candles: Final = msgspec.json.Decoder(tuple[_Candle, ...])


def number(value: Number) -> float:
    """A number that the venue sent as text; NaN for what is missing, empty or no plain decimal."""
    if value is None or (isinstance(value, str) and "_" in value):
        return math.nan
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan


def decode_frame(data: bytes | str) -> Frame:
    """The meaning of one frame. Never raises: what cannot be read comes back as ``Malformed``."""
    try:
        envelope = _envelopes.decode(data)
        topic = envelope.topic if isinstance(envelope.topic, str) else ""
        if topic.startswith("kline."):
            return _kline(topic, envelope)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        return Malformed(str(error))
    return OtherFrame(topic) if topic else _answer(envelope)


def _kline(topic: str, envelope: _Envelope) -> Frame:
    _, interval, symbol = [*topic.split(".", 2), "", ""][:3]
    if not interval or not symbol:
        return Malformed(f"topic {topic!r} is not kline.INTERVAL.SYMBOL")
    sent = envelope.ts
    venue_time = sent if isinstance(sent, int) and not isinstance(sent, bool) and 0 <= sent < 2**53 else 0
    candles = tuple(
        Candle(
            row.start,
            row.end + 1,
            number(row.open),
            number(row.high),
            number(row.low),
            number(row.close),
            number(row.volume),
            row.confirm,
        )
        for row in _candles.decode(envelope.data)
    )
    return KlineFrame(symbol, interval, candles, venue_time)


def _answer(envelope: _Envelope) -> Frame:
    operation = envelope.op if isinstance(envelope.op, str) else ""
    messages = (envelope.ret_msg, envelope.ret_code_message)
    message = next((text for text in messages if isinstance(text, str) and text), "")
    if operation == "pong" or message == "pong":
        return Pong()
    if isinstance(envelope.success, bool):
        request = envelope.req_id if isinstance(envelope.req_id, str) else ""
        return Acknowledgement(operation, envelope.success, message, request)
    if operation:
        return OtherFrame(operation)
    return Malformed("neither a topic nor an answer to a request")
