"""The sandbox's control endpoints, outside ``/v5``: what a test or an operator does to the venue, not through it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from aiohttp import web

from backtest.sandbox.faults import FaultPlan

if TYPE_CHECKING:
    from backtest.sandbox.venue import SandboxVenue


class _BadRequest(Exception):
    """A control request that cannot be carried out."""


class ControlInterface:
    """Handlers of ``/control``: ``state``, and what is done by name to the venue."""

    def __init__(self, venue: SandboxVenue) -> None:
        self._venue = venue

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Register the routes."""
        router.add_get("/control/state", self._state)
        for name, handler in (
            ("resume", self._resume),
            ("step", self._step),
            ("drop", self._drop),
            ("mute", self._mute),
            ("raw", self._raw),
            ("fail", self._fail),
            ("faults", self._plant),
            ("skew", self._skew),
            ("restart", self._restart),
        ):
            router.add_post(f"/control/{name}", self._guarded(handler))

    def _guarded(self, handler: Callable[[dict[str, Any]], Any]) -> Callable[[web.Request], Any]:
        async def answer(request: web.Request) -> web.Response:
            try:
                body = await request.json() if request.can_read_body else {}
                if not isinstance(body, dict):
                    raise _BadRequest("the body must be a JSON object")
                await handler(body)
            except (ValueError, _BadRequest) as error:
                return web.json_response({"error": str(error)}, status=400)
            return web.json_response(self._venue.state())

        return answer

    async def _state(self, request: web.Request) -> web.Response:
        return web.json_response(self._venue.state())

    async def _resume(self, body: dict[str, Any]) -> None:
        self._venue.resume()

    async def _step(self, body: dict[str, Any]) -> None:
        await self._venue.step(_whole(body, "bars", 1))

    async def _drop(self, body: dict[str, Any]) -> None:
        self._venue.drop_connections()

    async def _mute(self, body: dict[str, Any]) -> None:
        self._venue.mute(str(body.get("symbol", "")), _whole(body, "bars", 1))

    async def _raw(self, body: dict[str, Any]) -> None:
        await self._venue.send_raw(str(body.get("text", "")))

    async def _fail(self, body: dict[str, Any]) -> None:
        self._venue.fail_requests(
            _whole(body, "times", 1), status=_whole(body, "status", 200), code=_whole(body, "code", 10006)
        )

    async def _plant(self, body: dict[str, Any]) -> None:
        self._venue.plant(FaultPlan.of(body))

    async def _skew(self, body: dict[str, Any]) -> None:
        milliseconds = body.get("milliseconds", 0)
        if not isinstance(milliseconds, int) or isinstance(milliseconds, bool):
            raise _BadRequest(f"milliseconds must be a whole number, not {milliseconds!r}")
        self._venue.clock.skew_ms = milliseconds

    async def _restart(self, body: dict[str, Any]) -> None:
        self._venue.restart()


def _whole(body: dict[str, Any], name: str, default: int) -> int:
    value = body.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise _BadRequest(f"{name} must be a whole number that is not negative, not {value!r}")
    return value
