"""Bybit's websocket trade API: orders over a socket that stays open and heals itself.

https://bybit-exchange.github.io/docs/v5/websocket/trade/guideline
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final

import msgspec
import structlog
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed
from websockets.protocol import State

from bot.execution.bybit.clock import RECEIVE_WINDOW_MS
from bot.execution.bybit.codes import ACCEPTED, RESTARTING, Action, action_of
from bot.execution.bybit.order_entry import NotWritten, Operation
from bot.execution.bybit.rest_session import NO_REPLY, Credentials, Refused
from bot.market.backoff import Backoff
from bot.market.bybit_login import login_request, without_key
from bot.market.bybit_rest import rate_wait_s
from bot.market.healing_socket import HealingSocket

_log = structlog.get_logger(__name__)


class _Reply(msgspec.Struct):
    request: Any = msgspec.field(default="", name="reqId")
    code: Any = msgspec.field(default=None, name="retCode")
    message: Any = msgspec.field(default="", name="retMsg")
    operation: Any = msgspec.field(default="", name="op")
    data: Any = None
    header: Any = None


_replies: Final = msgspec.json.Decoder(_Reply)


class TradeStream(HealingSocket[None]):
    """A logged-in socket that takes orders. It has nothing to iterate over: each request gets its own reply.

    Nothing is sent twice from here. A request whose reply did not come, or whose connection broke after it was written, is
    one of which nobody knows whether it was carried out.

    Args:
        url: such as ``wss://stream.bybit.com/v5/trade``.
        credentials: of the account.
        stamp: what to stamp a request with that leaves now, milliseconds of the venue's clock.
        answer_timeout_s: seconds within which a request must be answered.
        ping_interval_s: see ``HealingSocket``, as the next two.
        silence_timeout_s: see there.
        backoff: see there.
    """

    def __init__(
        self,
        url: str,
        credentials: Credentials,
        stamp: Callable[[], int],
        *,
        answer_timeout_s: float = 5.0,
        ping_interval_s: float = 20.0,
        silence_timeout_s: float = 10.0,
        backoff: Backoff | None = None,
    ) -> None:
        super().__init__(
            url, "trade stream", ping_interval_s=ping_interval_s, silence_timeout_s=silence_timeout_s, backoff=backoff
        )
        self._credentials = credentials
        self._stamp = stamp
        self._answer_timeout_s = answer_timeout_s
        self._numbers = itertools.count(1)
        self._login: asyncio.Queue[_Reply] = asyncio.Queue()
        self._waiting: dict[str, asyncio.Future[_Reply | None]] = {}
        """Requests without a reply, by their id; the connection's end answers them with ``None``."""
        self._open_socket: ClientConnection | None = None
        self._logged_in = asyncio.Event()

    async def logged_in(self) -> None:
        """Wait until requests can be written."""
        await self._logged_in.wait()

    async def operate(self, operation: Operation, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        """Send a request once; returns the reply in REST's shape, with ``result``.

        Raises:
            NotWritten: the socket is not connected and logged in; nothing was sent.
            Refused: it was not carried out, or nobody knows.
        """
        socket = self._open_socket
        # Only before anything is written is it certain that nothing was: an error of the writing itself says nothing.
        if socket is None or socket.state is not State.OPEN:
            raise NotWritten("the trade socket is not connected")
        name = str(next(self._numbers))
        header = {"X-BAPI-TIMESTAMP": str(self._stamp()), "X-BAPI-RECV-WINDOW": str(RECEIVE_WINDOW_MS)}
        request = {"reqId": name, "header": header, "op": str(operation), "args": [parameters]}
        answer = self._waiting[name] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(self._answer_timeout_s):
                await socket.send(msgspec.json.encode(request).decode())
                reply = await answer
        except TimeoutError:
            raise Refused(Action.LOOK_UP, NO_REPLY, "no reply in time", arrived=False) from None
        except ConnectionClosed:
            reply = None
        finally:
            del self._waiting[name]
        try:
            return _result(reply)
        except Refused as problem:
            raise problem.hiding(self._credentials.key) from None

    async def _open(self, socket: ClientConnection) -> None:
        self._login = asyncio.Queue()
        self._asked = "a login"
        request = login_request(self._credentials.key, self._credentials.secret, self._stamp())
        await socket.send(msgspec.json.encode(request).decode())
        async with asyncio.timeout(self._silence_timeout_s):
            reply = await self._login.get()
        if reply.code != ACCEPTED:
            told = without_key(str(reply.message), self._credentials.key)
            self._cut(socket, f"the venue refused the login: {told} (code {reply.code})")
            return
        self._open_socket = socket
        self._logged_in.set()

    def _ping(self) -> str:
        return '{"op":"ping"}'

    def _lost(self, reason: str) -> None:
        self._open_socket = None
        self._logged_in.clear()
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_result(None)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await super().__aexit__(kind, error, trace)
        self._lost("closed")

    def _take(self, data: str | bytes) -> None:
        try:
            reply = _replies.decode(data)
        except (msgspec.MsgspecError, ValueError, RecursionError) as problem:
            self.malformed_frames += 1
            _log.warning("malformed trade frame dropped", url=self.url, reason=str(problem))
            return
        if reply.operation == "pong":
            self._pong.set()
        elif reply.operation == "auth":
            self._login.put_nowait(reply)
        elif isinstance(reply.request, str) and reply.request in self._waiting:
            answer = self._waiting[reply.request]
            if not answer.done():
                answer.set_result(reply)
        else:
            _log.warning("reply to no request of ours", url=self.url, request=str(reply.request), code=str(reply.code))
        if reply.code == RESTARTING and self._open_socket is not None:
            self._cut(self._open_socket, "the venue restarts its trade service")


def _result(reply: _Reply | None) -> Mapping[str, Any]:
    """What a reply says, in REST's shape.

    Raises:
        Refused: it says no, or nothing that can be understood.
    """
    if reply is None:
        raise Refused(Action.LOOK_UP, NO_REPLY, "the connection broke before the reply", arrived=False)
    code = reply.code
    if not isinstance(code, int) or isinstance(code, bool):
        raise Refused(Action.LOOK_UP, NO_REPLY, "the reply is of another protocol", arrived=False)
    if code != ACCEPTED:
        header = reply.header if isinstance(reply.header, Mapping) else {}
        texts = {name: value for name, value in header.items() if isinstance(value, str)}
        raise Refused(action_of(code), code, str(reply.message), wait_s=rate_wait_s(texts))
    return {"result": reply.data}
