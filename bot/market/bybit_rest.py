"""Bybit's public REST interface: pybit in one dedicated thread, behind asynchronous methods, with retries of our own.

Only idempotent reads live here, so a request may be repeated after any failure of the line.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any, Final, Literal

import msgspec
import requests
import structlog
from pybit.exceptions import FailedRequestError, InvalidRequestError
from pybit.unified_trading import HTTP

from bot.errors import VenueError
from bot.execution.bybit.codes import REPEATED_READS, Action, action_of_status
from bot.execution.bybit.rate_limits import PUBLIC_PER_SECOND, TokenBucket
from bot.execution.instruments import Category, Instrument, MarginTier
from bot.market.backoff import Backoff
from bot.market.bybit_decode import (
    decode_funding,
    decode_instrument,
    decode_klines,
    decode_margin_tiers,
    envelope_time,
    next_cursor,
    result_rows,
)
from bot.market.funding import PAGE_RATES
from bot.market.healing_socket import FORBIDDEN_WAIT_S
from strategies.bars import Bar, Calendar, interval_ms

Environment = Literal["mainnet", "testnet", "demo"]

PAGE_BARS: Final = 1000
"""Bars that one request can return."""
PAGE_INSTRUMENTS: Final = 1000

NOT_JSON: Final = 409
"""What pybit reports when a reply with HTTP status 200 is no JSON, as a page of a proxy is."""
LONGEST_RATE_WAIT_S: Final = 10.0

_log = structlog.get_logger(__name__)


class _Request(msgspec.Struct, frozen=True):
    """A call of pybit, and what it asks for in words."""

    call: Callable[..., Any]
    parameters: dict[str, Any]
    subject: str


class _Transient(Exception):
    """A failure worth a retry; ``wait_s`` is a delay that the venue asked for."""

    def __init__(self, reason: str, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


def page_windows(interval: str, start_ms: int, end_ms: int | None = None) -> Iterator[tuple[int, int]]:
    """Windows (first, last open time, both included) of at most ``PAGE_BARS`` bars that cover ``[start_ms, end_ms)``.

    Both ends are always given, because the venue answers a window wider than a page with its newest bars only. Without
    ``end_ms`` the windows go on for ever.
    """
    span = PAGE_BARS * interval_ms(interval)
    first = start_ms
    while end_ms is None or first < end_ms:
        last = first + span - 1
        yield first, last if end_ms is None else min(last, end_ms - 1)
        first += span


class BybitRest:
    """Public market data by REST.

    Methods raise ``VenueError`` with one sentence when the venue refuses, or cannot be reached within the attempts.

    Args:
        endpoint: takes the place of the environment's host, such as ``http://127.0.0.1:8080``.
        environment: which of Bybit's hosts to ask.
        timeout_s: bound on connecting, and on each wait for bytes, of one attempt.
        attempts: how often a request is sent at most.
        backoff: waits between attempts.
        category: which market.
        forbidden_wait_s: seconds after a ban of this address within which nothing is sent, since asking prolongs it.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        environment: Environment = "mainnet",
        timeout_s: float = 5.0,
        *,
        attempts: int = 4,
        backoff: Backoff | None = None,
        category: Category = "linear",
        forbidden_wait_s: float = FORBIDDEN_WAIT_S,
    ) -> None:
        self._category = category
        # One attempt per call and no code that pybit itself would retry: it sleeps inside the call, raises on a rate
        # limit whose reset has passed, and hides the code behind its own. An empty set would mean its defaults.
        self._session = HTTP(
            testnet=environment == "testnet",
            demo=environment == "demo",
            timeout=timeout_s,
            max_retries=1,
            force_retry=False,
            retry_codes={-999},
        )
        if endpoint is not None:
            self._session.endpoint = endpoint.rstrip("/")
        self.endpoint = str(self._session.endpoint)
        self._attempts = max(1, attempts)
        self._backoff = backoff or Backoff(first_s=0.2, base_s=0.5, limit_s=5.0)
        # More than the attempts and waits of one request can take: only a hung thread reaches it.
        waits = max(self._backoff.limit_s, LONGEST_RATE_WAIT_S)
        self._budget_s = self._attempts * (2.0 * timeout_s + waits) + 5.0
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="bybit-rest")
        self._turn = asyncio.Lock()
        # Both are used in the thread only.
        self._bucket = TokenBucket(PUBLIC_PER_SECOND, time.monotonic())
        self._banned_until = 0.0
        self._forbidden_wait_s = forbidden_wait_s
        self._closed = threading.Event()

    def close(self) -> None:
        """Stop retrying and let the thread end; safe to call twice."""
        self._closed.set()
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._session.client.close()

    async def server_time(self) -> int:
        """The venue's clock in milliseconds."""
        reply = await self._ask(_Request(self._session.get_server_time, {}, "its clock"))
        return envelope_time(reply, self.endpoint)

    async def klines(
        self,
        symbol: str,
        interval: str,
        start_ms: int,
        end_ms: int | None = None,
        *,
        calendar: Calendar = Calendar.CONTINUOUS,
    ) -> list[Bar]:
        """Closed bars that open in ``[start_ms, end_ms)``, oldest first, each once.

        ``end_ms`` of ``None`` means up to now by the venue's own clock. Candles that are still forming are left out.
        """
        bars: list[Bar] = []
        for first, last in page_windows(interval, start_ms, end_ms):
            reply = await self._ask(self._kline_request(symbol, interval, first, last))
            bars.extend(self._closed_bars(reply, symbol, interval, calendar, first, last))
            if last >= envelope_time(reply, self.endpoint):
                break
        return bars

    def klines_page(
        self,
        symbol: str,
        interval: str,
        start_ms: int,
        end_ms: int,
        *,
        calendar: Calendar = Calendar.CONTINUOUS,
    ) -> list[Bar]:
        """The closed bars of one window, oldest first, for callers without an event loop; blocks.

        Args:
            symbol: the venue's name.
            interval: the venue's code.
            start_ms: first open time.
            end_ms: last open time, included; at most ``PAGE_BARS`` bars, as ``page_windows`` gives.
            calendar: of the symbol's market.
        """
        request = self._kline_request(symbol, interval, start_ms, end_ms)
        reply = self._thread.submit(self._attempt, request).result()
        return self._closed_bars(reply, symbol, interval, calendar, start_ms, end_ms)

    def funding_page(self, symbol: str, start_ms: int, end_ms: int) -> list[tuple[int, Decimal]]:
        """Funding settlements of a window, both ends included, oldest first: the newest 200 of them; blocks.

        See https://bybit-exchange.github.io/docs/v5/market/history-fund-rate.
        """
        reply = self._thread.submit(self._attempt, self._funding_request(symbol, start_ms, end_ms)).result()
        return decode_funding(result_rows(reply, self.endpoint), symbol, self.endpoint)

    async def funding_rates(self, symbol: str, start_ms: int, end_ms: int) -> list[tuple[int, Decimal]]:
        """As ``funding_page``, for the event loop."""
        reply = await self._ask(self._funding_request(symbol, start_ms, end_ms))
        return decode_funding(result_rows(reply, self.endpoint), symbol, self.endpoint)

    def _funding_request(self, symbol: str, start_ms: int, end_ms: int) -> _Request:
        parameters = {
            "category": "linear",
            "symbol": symbol,
            "startTime": start_ms,
            "endTime": end_ms,
            "limit": PAGE_RATES,
        }
        return _Request(self._session.get_funding_rate_history, parameters, f"funding rates of {symbol}")

    def margin_tiers_page(self, symbol: str) -> tuple[MarginTier, ...]:
        """Margin tiers of a symbol, by increasing value; blocks. There is at least one.

        See https://bybit-exchange.github.io/docs/v5/market/risk-limit.
        """
        reply = self._thread.submit(self._attempt, self._tiers_request(symbol)).result()
        tiers = decode_margin_tiers(result_rows(reply, self.endpoint), symbol, self.endpoint)
        if not tiers:
            raise VenueError(f"{self.endpoint} tells no margin tiers of {symbol}; leave it out")
        return tiers

    def _tiers_request(self, symbol: str) -> _Request:
        parameters = {"category": "linear", "symbol": symbol}
        return _Request(self._session.get_risk_limit, parameters, f"margin tiers of {symbol}")

    async def instruments(self, symbols: Iterable[str]) -> dict[str, Instrument]:
        """Trading rules of symbols, in the order given; all must exist and be open for trading."""
        found, refused = await self.tradable(symbols)
        for reason in refused.values():
            raise VenueError(reason)
        return found

    async def tradable(self, symbols: Iterable[str]) -> tuple[dict[str, Instrument], dict[str, str]]:
        """Trading rules of the symbols that exist and are open for trading, and of the others why they have none.

        Those of perpetuals have their margin tiers with them.
        """
        wanted = list(symbols)
        rows: dict[str, Mapping[str, Any]] = {}
        cursor = ""
        while True:
            parameters = {"category": self._category, "limit": PAGE_INSTRUMENTS, "cursor": cursor or None}
            reply = await self._ask(_Request(self._session.get_instruments_info, parameters, "instruments"))
            page = [row for row in result_rows(reply, self.endpoint) if isinstance(row, Mapping)]
            rows.update((str(row.get("symbol")), row) for row in page)
            following = next_cursor(reply)
            if following in ("", cursor) or all(symbol in rows for symbol in wanted):
                break
            cursor = following
        found: dict[str, Instrument] = {}
        refused: dict[str, str] = {}
        for symbol in wanted:
            try:
                found[symbol] = decode_instrument(symbol, rows.get(symbol), self.endpoint, self._category)
            except VenueError as reason:
                refused[symbol] = str(reason)
        if self._category == "linear":
            for symbol, rules in found.items():
                reply = await self._ask(self._tiers_request(symbol))
                tiers = decode_margin_tiers(result_rows(reply, self.endpoint), symbol, self.endpoint)
                found[symbol] = msgspec.structs.replace(rules, margin_tiers=tiers)
        return found, refused

    def _kline_request(self, symbol: str, interval: str, first: int, last: int) -> _Request:
        parameters = {
            "category": self._category,
            "symbol": symbol,
            "interval": interval,
            "start": first,
            "end": last,
            "limit": PAGE_BARS,
        }
        return _Request(self._session.get_kline, parameters, f"candles of {symbol} at interval {interval}")

    def _closed_bars(
        self, reply: Mapping[str, Any], symbol: str, interval: str, calendar: Calendar, first: int, last: int
    ) -> list[Bar]:
        rows = result_rows(reply, self.endpoint)
        venue_time = envelope_time(reply, self.endpoint)
        bars = decode_klines(rows, symbol, interval, calendar, venue_time, self.endpoint)
        return [bar for bar in bars if first <= bar.open_time <= last]

    async def _ask(self, request: _Request) -> dict[str, Any]:
        """One request at a time, so that its budget does not run while it waits for the thread."""
        async with self._turn:
            future = asyncio.get_running_loop().run_in_executor(self._thread, self._attempt, request)
            try:
                async with asyncio.timeout(self._budget_s):
                    return await future
            except TimeoutError:
                raise VenueError(
                    f"{self.endpoint} gave no answer to a request for {request.subject} in {self._budget_s:.0f} s; "
                    "check the network, or try again later"
                ) from None

    def _attempt(self, request: _Request) -> dict[str, Any]:
        """Send a request until it is answered; runs in the thread, where waiting harms nobody."""
        attempt = 0
        while True:
            try:
                return self._send(request)
            except _Transient as failure:
                attempt += 1
                if attempt >= self._attempts or self._closed.is_set():
                    raise VenueError(
                        f"{self.endpoint} gave no answer to a request for {request.subject} in {attempt} "
                        f"{'attempt' if attempt == 1 else 'attempts'} (last: {failure}); check the network, "
                        "or try again later"
                    ) from None
                delay = max(self._backoff.delay(attempt - 1), failure.wait_s)
                _log.warning("request failed", request=request.subject, reason=str(failure), retry_s=round(delay, 3))
                self._closed.wait(delay)

    def _send(self, request: _Request) -> dict[str, Any]:
        if time.monotonic() < self._banned_until:
            raise self._ban()
        self._closed.wait(self._bucket.wait_s(time.monotonic()))
        self._bucket.take(time.monotonic())
        try:
            reply = request.call(**request.parameters)
        except InvalidRequestError as error:
            raise self._refusal(request, error) from None
        except FailedRequestError as error:
            raise self._failure(request, error) from None
        except requests.exceptions.RequestException as error:
            raise _Transient(type(error).__name__) from None
        except (AttributeError, LookupError, TypeError, ValueError):
            # pybit looks for its fields before it knows that the reply is an object.
            raise _Transient("the reply is no JSON object of this protocol") from None
        if not isinstance(reply, dict):
            raise _Transient("the reply is no JSON object of this protocol")
        return reply

    def _refusal(self, request: _Request, error: InvalidRequestError) -> Exception:
        """A reply whose return code is not 0."""
        code = error.status_code
        if code in REPEATED_READS:
            return _Transient(f"code {code}, {error.message}", rate_wait_s(error.resp_headers))
        return VenueError(
            f"{self.endpoint} refused a request for {request.subject}: {error.message} (code {code}); "
            "check the symbol and the interval"
        )

    def _failure(self, request: _Request, error: FailedRequestError) -> Exception:
        """A reply whose HTTP status is not 200, or that is no JSON."""
        status = error.status_code
        if status == NOT_JSON:
            return _Transient("the reply is no JSON")
        action = action_of_status(status) if isinstance(status, int) else Action.LOOK_UP
        if action is Action.LOOK_UP:
            # Of a read nothing has to be looked up: it is asked again.
            return _Transient(f"HTTP status {status}")
        if action is Action.STAND_DOWN:
            self._banned_until = time.monotonic() + self._forbidden_wait_s
            return self._ban()
        return VenueError(
            f"{self.endpoint} refused a request for {request.subject} with HTTP status {status}; "
            "check that this is a Bybit v5 host"
        )

    def _ban(self) -> VenueError:
        return VenueError(
            f"{self.endpoint} forbids requests from this address (HTTP status 403: too many requests, or a region "
            "that it does not serve); wait at least 10 minutes, or use another host"
        )


def rate_wait_s(headers: Mapping[str, str] | None) -> float:
    """Seconds until a rate limit is lifted, as the reply says; 0 when it does not, or when that has passed."""
    try:
        reset = int((headers or {}).get("X-Bapi-Limit-Reset-Timestamp", "0"))
    except ValueError:
        return 0.0
    return min(LONGEST_RATE_WAIT_S, max(0.0, reset / 1000.0 - time.time()))
