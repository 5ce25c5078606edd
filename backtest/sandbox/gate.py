"""What stands before every REST route: planned faults, forbidden bodies, and Bybit's envelope for refusals."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import web

from backtest.sandbox import protocol
from backtest.sandbox.faults import OF_REQUESTS, Fault, FaultInjector, FaultRule
from backtest.sandbox.keys import ServerClock
from backtest.sandbox.refusals import SERVER_ERROR, TEXTS, VenueRefusal

STREAM_PATHS: Final = ("/v5/public/", "/v5/private", "/v5/trade")
"""Websockets, which no REST fault concerns."""
_PAGES: Final = {403: "access too frequent", 429: "too many requests", 502: "Bad Gateway", 503: "Service Unavailable"}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Gate:
    """The middleware of all routes of ``/v5``.

    Args:
        clock: what time replies tell.
        injector: what goes wrong.
    """

    def __init__(self, clock: ServerClock, injector: FaultInjector) -> None:
        self._clock = clock
        self._injector = injector
        self._failures: list[tuple[int, int]] = []
        self.requests = 0
        """Answered so far."""

    def fail(self, times: int, *, status: int = 200, code: int = 10006) -> None:
        """Answer the next ``times`` requests with an HTTP status and, if that is 200, with a return code."""
        self._failures.extend([(status, code)] * times)

    @web.middleware
    async def guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        """Let a request pass, or not."""
        if not request.path.startswith("/v5/") or request.path.startswith(STREAM_PATHS):
            return await self._told(request, handler)
        self.requests += 1
        if self._failures:
            status, code = self._failures.pop(0)
            return self._wrong(FaultRule(Fault.ANSWER, status=status, code=code))
        rule = self._injector.strike(f"{request.method} {request.path}", OF_REQUESTS)
        if rule is None:
            return await self._answer(request, handler)
        return await self._spoil(rule, request, handler)

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.method == "GET" and request.can_read_body:
            return _page(403, "forbidden")
        return await self._told(request, handler)

    async def _told(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except VenueRefusal as refusal:
            body = protocol.error(refusal.code, refusal.message, self._clock.now())
            return web.json_response(body, status=refusal.status, headers=refusal.headers)

    async def _spoil(self, rule: FaultRule, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer a request with what is planned for it."""
        if rule.do is Fault.ANSWER:
            return self._wrong(rule)
        if rule.do in (Fault.DROP, Fault.CUT):
            return _broken_off(request)
        response = await self._answer(request, handler)
        if rule.do is Fault.DUPLICATE:
            await self._answer(request, handler)
        elif rule.do is Fault.DELAY:
            await asyncio.sleep(rule.seconds)
        elif rule.do is Fault.LOSE:
            is_told = rule.status != 200 or rule.code or rule.html
            return self._wrong(rule) if is_told else _broken_off(request)
        elif isinstance(response, web.Response) and response.text is not None:
            if rule.do is Fault.CORRUPT:
                response.text = self._injector.broken(response.text)
            elif rule.do is Fault.OMIT:
                response.text = _shortened(response.text, rule.keep)
        return response

    def _wrong(self, rule: FaultRule) -> web.Response:
        """A page where the status or the rule asks for one, else the envelope with a return code."""
        if rule.status != 200 or rule.html:
            return _page(rule.status, _PAGES.get(rule.status, "unavailable"))
        text = TEXTS.get(rule.code, TEXTS[SERVER_ERROR])
        return web.json_response(protocol.error(rule.code, text, self._clock.now()))


def _page(status: int, text: str) -> web.Response:
    return web.Response(status=status, text=f"<html><body>{text}</body></html>", content_type="text/html")


def _broken_off(request: web.Request) -> web.Response:
    """Break the connection; what is answered then goes nowhere."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


def _shortened(text: str, rows: int) -> str:
    """A reply whose list ends after some rows, and names no page after them."""
    body = json.loads(text)
    result = body.get("result", {})
    if isinstance(result.get("list"), list):
        result["list"] = result["list"][:rows]
        if "nextPageCursor" in result:
            result["nextPageCursor"] = ""
    return json.dumps(body)
