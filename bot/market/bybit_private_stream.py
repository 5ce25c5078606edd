"""Bybit's private stream: orders, executions, positions and the wallet of one account, over a socket that heals itself.

Nothing that happened while the socket was gone is told again: after every ``PrivateConnected`` the account is to be asked
for by REST. https://bybit-exchange.github.io/docs/v5/ws/connect
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final

import msgspec
import structlog
from websockets.asyncio.client import ClientConnection

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
from bot.execution.instruments import Category
from bot.market.backoff import Backoff
from bot.market.bybit_login import login_request, without_key
from bot.market.healing_socket import HealingSocket
from bot.market.wire import Acknowledgement, Malformed, Pong, decode_frame

TOPICS: Final[dict[str, Callable[[object], list[Any]]]] = {
    "order": decode_orders,
    "execution": decode_executions,
    "position": decode_positions,
    "wallet": decode_wallets,
}

SPOT_TOPICS: Final = ("order.spot", "execution.spot", "wallet")
"""The spot market has no positions."""

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


class PrivateStream(HealingSocket[PrivateEvent]):
    """Events of one account as they happen.

    Args:
        url: such as ``wss://stream.bybit.com/v5/private``.
        key: of the account.
        secret: what the login is signed with.
        venue_ms: the venue's clock, milliseconds.
        ping_interval_s: see ``HealingSocket``, as the next two.
        silence_timeout_s: see there.
        backoff: see there.
        category: of which market orders and fills are told; those of the others have symbols of the same names.
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
        category: Category = "linear",
    ) -> None:
        super().__init__(
            url, "private stream", ping_interval_s=ping_interval_s, silence_timeout_s=silence_timeout_s, backoff=backoff
        )
        self._topics = SPOT_TOPICS if category == "spot" else tuple(TOPICS)
        self._key = key
        self._secret = secret
        self._venue_ms = venue_ms
        self._answers: asyncio.Queue[Acknowledgement] = asyncio.Queue()
        self._refused = False

    async def _open(self, socket: ClientConnection) -> None:
        self._answers = asyncio.Queue()
        self._asked = "a login"
        if not await self._agreed(socket, login_request(self._key, self._secret, self._venue_ms()), "auth"):
            self._refused = True
            return
        self._asked = "a subscription"
        # All topics at once: they are the same for every account, so that one cannot refuse the others.
        if await self._agreed(socket, {"op": "subscribe", "args": list(self._topics)}, "subscribe"):
            self._events.put_nowait(PrivateConnected(self.connections))

    def _ping(self) -> str:
        return '{"op":"ping"}'

    def _lost(self, reason: str) -> PrivateEvent:
        refused, self._refused = self._refused, False
        return PrivateDisconnected(reason, refused)

    async def _agreed(self, socket: ClientConnection, request: dict[str, object], operation: str) -> bool:
        """Ask for something and wait for the answer; where it is no, the socket is cut."""
        await socket.send(msgspec.json.encode(request).decode())
        async with asyncio.timeout(self._silence_timeout_s):
            while (answer := await self._answers.get()).operation not in (operation, ""):
                continue
        if answer.success:
            return True
        self._cut(socket, f"the venue refused {operation}: {without_key(answer.message, self._key)}")
        return False

    def _take(self, data: str | bytes) -> None:
        frame = decode_frame(data)
        if isinstance(frame, Pong):
            self._pong.set()
        elif isinstance(frame, Acknowledgement):
            self._answers.put_nowait(frame)
        elif isinstance(frame, Malformed):
            self.malformed_frames += 1
            _log.warning("malformed private frame dropped", url=self.url, reason=frame.reason)
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
