"""One open websocket of the sandbox: what it is subscribed to, how it is sent to, how it breaks."""

from __future__ import annotations

import asyncio
from typing import Final

from aiohttp import web

SLOW_CONSUMER_S: Final = 10.0


class Connection:
    """One open socket and what it is subscribed to."""

    def __init__(self, name: str, request: web.Request, socket: web.WebSocketResponse) -> None:
        self.name = name
        self.topics: set[str] = set()
        self._request = request
        self._socket = socket

    @property
    def is_spot(self) -> bool:
        """Whether it listens to the spot market."""
        return self._request.path.endswith("/spot")

    async def send(self, text: str) -> None:
        """Send one message; a socket that is gone, or does not take it in time, is cut."""
        try:
            async with asyncio.timeout(SLOW_CONSUMER_S):
                await self._socket.send_str(text)
        except (ConnectionError, TimeoutError, RuntimeError):
            self.cut()

    async def close(self) -> None:
        """Close the socket in good order, without waiting for the other side."""
        self.topics.clear()
        await self._socket.close(drain=False)

    def cut(self) -> None:
        """Drop the transport without a closing handshake, as a broken line does."""
        self.topics.clear()
        if self._request.transport is not None:
            self._request.transport.abort()
