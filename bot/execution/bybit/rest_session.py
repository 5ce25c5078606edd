"""Signed requests to one account: pybit signs and sends, in two threads of its own, behind asynchronous methods.

One thread for what changes something and one for questions, so that no question delays an order. Retries, the clock, the
limits and what a failure means are here, and not in pybit.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import requests
from pybit.exceptions import FailedRequestError, InvalidRequestError
from pybit.unified_trading import HTTP

from bot.errors import VenueError
from bot.execution.bybit.clock import RECEIVE_WINDOW_MS, ClockSample, VenueClock
from bot.execution.bybit.codes import REPEATED_READS, SERVER_TROUBLE, Action, action_of, action_of_status
from bot.execution.bybit.rate_limits import EndpointGroup, RateLimits
from bot.market.backoff import Backoff
from bot.market.bybit_login import without_key
from bot.market.bybit_rest import NOT_JSON, Environment, rate_wait_s
from bot.market.healing_socket import FORBIDDEN, FORBIDDEN_WAIT_S

NO_REPLY: Final = 0
"""In place of an HTTP status: the line broke, or the reply did not come in time."""
_FIXES: Final = {
    Action.STOP: "check RECALL_LIVE__API_KEY and RECALL_LIVE__API_SECRET, the key's rights, and that it belongs to this host",
    Action.RESYNCHRONISE: "set this machine's clock",
    Action.STAND_DOWN: "wait at least 10 minutes, or use a host that serves this region",
    Action.REFUSE: "check the symbols and that this is a Bybit v5 host",
}


@dataclass(frozen=True, slots=True)
class Credentials:
    """A key and what requests are signed with; never shown."""

    key: str
    secret: str

    def __repr__(self) -> str:
        return "Credentials(***)"


class Refused(Exception):
    """The venue did not do what it was asked to, or it is unknown whether it did."""

    def __init__(self, action: Action, code: int, message: str, *, wait_s: float = 0.0, arrived: bool = True) -> None:
        """
        Args:
            action: what to do about it.
            code: the venue's return code, or the HTTP status where there was none.
            message: the venue's words.
            wait_s: how long the venue asked to wait, seconds.
            arrived: whether the venue answered in its own protocol.
        """
        super().__init__(f"{message} (code {code})")
        self.message = message
        self.action = action
        self.code = code
        self.wait_s = wait_s
        self.arrived = arrived

    def hiding(self, key: str) -> Refused:
        """The same with a key taken out of the venue's words."""
        message = without_key(self.message, key)
        return Refused(self.action, self.code, message, wait_s=self.wait_s, arrived=self.arrived)

    @property
    def is_ambiguous(self) -> bool:
        """Whether the request may yet have been carried out."""
        return not self.arrived or self.code in SERVER_TROUBLE


class SignedHttp(HTTP):  # type: ignore[misc]
    """pybit's client with a clock of our choice; pybit itself stamps with this machine's."""

    stamp: Callable[[], int]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.endpoint})"  # pybit's own shows the secret

    def _prepare_headers(
        self, payload: str, recv_window: int, content_type: str = "application/json"
    ) -> dict[str, str]:
        timestamp = self.stamp()
        return {
            "Content-Type": content_type,
            "X-BAPI-API-KEY": self.api_key,
            "X-BAPI-SIGN": self._auth(payload, recv_window, timestamp),
            "X-BAPI-SIGN-TYPE": "2",
            "X-BAPI-TIMESTAMP": str(timestamp),
            "X-BAPI-RECV-WINDOW": str(recv_window),
        }


class RestSession:
    """Deeds and questions of one account, each in a thread of its own, within the venue's limits.

    Args:
        credentials: of the account.
        endpoint: takes the place of the environment's host, such as ``http://127.0.0.1:8080``.
        environment: which of Bybit's hosts to ask.
        timeout_s: bound on connecting, and on each wait for bytes, of one attempt.
        attempts: how often a request is sent at most.
        backoff: waits between attempts.
        wall_ms: this machine's clock, milliseconds.
        limits: of requests a second; Bybit's by default, which a stepped sandbox does not enforce.
    """

    def __init__(
        self,
        credentials: Credentials,
        endpoint: str | None,
        environment: Environment,
        timeout_s: float,
        attempts: int,
        backoff: Backoff | None,
        wall_ms: Callable[[], int],
        limits: RateLimits | None = None,
    ) -> None:
        self.clock = VenueClock()
        self._key = credentials.key
        self._banned_until = 0.0
        self._wall_ms = wall_ms
        self.deeds = self._http(credentials, endpoint, environment, timeout_s)
        self.questions = self._http(credentials, endpoint, environment, timeout_s)
        self.endpoint = str(self.deeds.endpoint)
        self.attempts = max(1, attempts)
        self._backoff = backoff or Backoff(first_s=0.2, base_s=0.5, limit_s=5.0)
        self._limits = limits or RateLimits(time.monotonic())
        self._budget_s = 2.0 * timeout_s + 5.0
        self._deed_thread = ThreadPoolExecutor(1, thread_name_prefix="bybit-deeds")
        self._question_thread = ThreadPoolExecutor(1, thread_name_prefix="bybit-questions")

    def _http(
        self, credentials: Credentials, endpoint: str | None, environment: Environment, timeout_s: float
    ) -> SignedHttp:
        # As in bot.market.bybit_rest: one attempt, and no code that pybit itself would retry.
        session = SignedHttp(
            testnet=environment == "testnet",
            demo=environment == "demo",
            api_key=credentials.key,
            api_secret=credentials.secret,
            timeout=timeout_s,
            recv_window=RECEIVE_WINDOW_MS,
            max_retries=1,
            force_retry=False,
            retry_codes={-999},
        )
        session.stamp = self.stamp
        if endpoint is not None:
            session.endpoint = endpoint.rstrip("/")
        return session

    def close(self) -> None:
        """Let the threads end; safe to call twice."""
        for thread, session in ((self._deed_thread, self.deeds), (self._question_thread, self.questions)):
            thread.shutdown(wait=False, cancel_futures=True)
            session.client.close()

    def stamp(self) -> int:
        """What to stamp a request with that leaves now, milliseconds of the venue's clock."""
        return self.clock.timestamp(self._wall_ms())

    async def synchronise(self, samples: int) -> int:
        """Measure the venue's clock anew; returns how far it is ahead of ours, milliseconds.

        Requests that leave meanwhile are stamped by what was known before.

        Raises:
            VenueError: the venue does not answer.
        """
        clock = VenueClock()
        for _ in range(samples):
            sent = self._wall_ms()
            reply = await self.ask(EndpointGroup.READ, self.questions.get_server_time, {}, "its clock")
            venue = reply.get("time")
            if isinstance(venue, int):
                clock = clock.learned(ClockSample(sent, self._wall_ms(), venue))
        self.clock = clock
        return self.clock.offset

    async def permit(self, group: EndpointGroup) -> None:
        """Wait until a request of a group may leave, and count it."""
        while wait := self._limits.reserve(group, time.monotonic()):
            await asyncio.sleep(wait)

    async def do(self, call: Callable[..., Any], parameters: dict[str, Any]) -> Mapping[str, Any]:
        """A deed, sent once; whether it may leave has been asked.

        Raises:
            Refused: it was not carried out, or nobody knows.
        """
        return await self._call(self._deed_thread, call, parameters)

    async def ask(
        self, group: EndpointGroup, call: Callable[..., Any], parameters: dict[str, Any], subject: str
    ) -> Mapping[str, Any]:
        """A question, repeated until it is answered.

        Raises:
            VenueError: the venue refuses it, or did not answer.
        """
        attempt = 0
        while True:
            attempt += 1
            try:
                await self.permit(group)
                return await self._call(self._question_thread, call, parameters)
            except Refused as problem:
                passes = not problem.arrived or problem.code in REPEATED_READS
                again = passes or problem.action is Action.RESYNCHRONISE
                if not again or attempt >= self.attempts:
                    raise VenueError(
                        f"{self.endpoint} did not answer a request for {subject}: {problem}; "
                        f"{_FIXES.get(problem.action, 'check the network, or try again later')}"
                    ) from None
                await self.pause(problem, attempt, resynchronise=call != self.questions.get_server_time)

    async def pages(self, call: Callable[..., Any], parameters: dict[str, Any], subject: str) -> list[Any]:
        """The rows of all pages of a question's answer.

        Raises:
            VenueError: see ``ask``.
        """
        rows: list[Any] = []
        cursor = ""
        while True:
            asked = {**parameters, "cursor": cursor} if cursor else parameters
            reply = await self.ask(EndpointGroup.READ, call, asked, subject)
            rows += rows_of(reply)
            result = reply.get("result")
            following = result.get("nextPageCursor") if isinstance(result, Mapping) else None
            if not isinstance(following, str) or following in ("", cursor):
                return rows
            cursor = following

    async def pause(self, problem: Refused, attempt: int, *, resynchronise: bool = True) -> None:
        """Wait before the next attempt, or measure the clock where that was the problem."""
        if problem.action is Action.RESYNCHRONISE and resynchronise:
            with contextlib.suppress(VenueError):
                await self.synchronise(samples=3)
            return
        await asyncio.sleep(max(self._backoff.delay(attempt - 1), problem.wait_s))

    async def _call(
        self, thread: ThreadPoolExecutor, call: Callable[..., Any], parameters: dict[str, Any]
    ) -> Mapping[str, Any]:
        if (left := self._banned_until - time.monotonic()) > 0:
            raise Refused(
                Action.STAND_DOWN, FORBIDDEN, f"the venue has banned this address, for about {left:.0f} s more"
            )
        future = asyncio.get_running_loop().run_in_executor(thread, _attempt, call, dict(parameters))
        try:
            async with asyncio.timeout(self._budget_s):
                return await future
        except TimeoutError:
            raise Refused(Action.LOOK_UP, NO_REPLY, "no reply in time", arrived=False) from None
        except Refused as problem:
            if problem.code == FORBIDDEN:
                # Asking again would prolong it.
                self._banned_until = time.monotonic() + FORBIDDEN_WAIT_S
            raise problem.hiding(self._key) from None


def _attempt(call: Callable[..., Any], parameters: dict[str, Any]) -> Mapping[str, Any]:
    """Send a request once; runs in a thread."""
    try:
        reply = call(**parameters)
    except InvalidRequestError as error:
        code = int(error.status_code)
        raise Refused(action_of(code), code, str(error.message), wait_s=rate_wait_s(error.resp_headers)) from None
    except FailedRequestError as error:
        status = error.status_code if isinstance(error.status_code, int) else NO_REPLY
        if status == NOT_JSON:
            raise Refused(Action.LOOK_UP, status, "the reply is no JSON", arrived=False) from None
        action = action_of_status(status)
        # A ban or a wrong path is an answer: nothing was carried out.
        arrived = action is not Action.LOOK_UP
        raise Refused(action, status, f"HTTP status {status}", arrived=arrived) from None
    except requests.exceptions.RequestException as error:
        raise Refused(Action.LOOK_UP, NO_REPLY, type(error).__name__, arrived=False) from None
    except (AttributeError, LookupError, TypeError, ValueError):
        raise Refused(Action.LOOK_UP, NOT_JSON, "the reply is of another protocol", arrived=False) from None
    if not isinstance(reply, Mapping):
        raise Refused(Action.LOOK_UP, NOT_JSON, "the reply is of another protocol", arrived=False)
    return reply


def rows_of(reply: Mapping[str, Any]) -> list[Any]:
    """The list of a reply's result, without what is no object."""
    result = reply.get("result")
    rows = result.get("list") if isinstance(result, Mapping) else None
    return [row for row in rows if isinstance(row, Mapping)] if isinstance(rows, list) else []
