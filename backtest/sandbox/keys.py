"""API keys of the sandbox, and whether a request was signed with one: https://bybit-exchange.github.io/docs/v5/guide."""

from __future__ import annotations

import hashlib
import hmac
import time as system_time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from backtest.sandbox import refusals
from backtest.sandbox.refusals import VenueRefusal
from backtest.sandbox.tape import Tape

DEFAULT_WINDOW_MS: Final = 5000
EARLIEST_AHEAD_MS: Final = 1000
"""How far a request's timestamp may lie before the server's clock: less than this."""

TRADER: Final[Mapping[str, tuple[str, ...]]] = {
    "ContractTrade": ("Order", "Position"),
    "Spot": ("SpotTrade",),
    "Wallet": (),
    "Options": (),
    "Derivatives": ("DerivativesTrade",),
    "Exchange": ("ExchangeHistory",),
}
"""Rights of a key that may trade and may not withdraw, by group, as ``/v5/user/query-api`` tells them."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key of the venue's account.

    Args:
        key: its name.
        secret: what requests are signed with.
        permissions: rights by group, as ``/v5/user/query-api`` tells them.
        read_only: whether it may only look.
        addresses: IP addresses that it is bound to; none: any.
        expires_at: from when on it is refused, milliseconds; ``None``: never.
    """

    key: str
    secret: str = field(repr=False)
    permissions: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: TRADER)
    read_only: bool = False
    addresses: tuple[str, ...] = ()
    expires_at: int | None = None

    def allows(self, group: str, right: str) -> bool:
        """Whether it has a right that changes something."""
        return not self.read_only and right in self.permissions.get(group, ())


class ServerClock:
    """The clock that timestamps are held against: the market's, or the one on the wall.

    A client on this machine stamps with the clock on the wall, one that has asked ``/v5/market/time`` with the market's.
    Either will do. A stepped or accelerated market's own past is never too late, since its time does not pass as the
    client's does; with a skew planted, it is.
    """

    def __init__(self, tape: Tape, wall: bool = True) -> None:
        self._tape = tape
        self._wall = wall
        self._begin = tape.now()
        self.skew_ms = 0
        """Added to every time that is told, and to every time that a request is held against."""

    def now(self) -> int:
        """What the server says the time is, milliseconds."""
        return self._tape.now() + self.skew_ms

    def is_on_time(self, timestamp: int, window_ms: int) -> bool:
        """Whether ``now - window <= timestamp < now + 1000`` by one of the clocks."""
        return any(earliest - window_ms <= timestamp < now + EARLIEST_AHEAD_MS for earliest, now in self._spans())

    def is_to_come(self, timestamp: int) -> bool:
        """Whether a login that expires then is still good."""
        return any(timestamp > earliest for earliest, _ in self._spans())

    def _spans(self) -> list[tuple[int, int]]:
        now = self.now()
        passes_alike = self._tape.setting.passes_as_outside or self.skew_ms
        spans = [(now if passes_alike else self._begin, now)]
        if self._wall:
            wall = int(system_time.time() * 1000.0) + self.skew_ms
            spans.append((wall, wall))
        return spans


class KeyRing:
    """The keys of the venue, and the checks that stand before every private request."""

    def __init__(self, keys: Sequence[ApiKey], clock: ServerClock) -> None:
        self._keys = {key.key: key for key in keys}
        self._clock = clock

    def check_request(self, headers: Mapping[str, str], payload: str, address: str) -> ApiKey:
        """The key that signed a REST request.

        Args:
            headers: of the request, their names without regard to case.
            payload: query string of a GET, body of a POST, byte for byte.
            address: of the client.

        Raises:
            VenueRefusal: 10001, 10002, 10003, 10004, 10010 or 33004.
        """
        stamp, name = headers.get("X-BAPI-TIMESTAMP", ""), headers.get("X-BAPI-API-KEY", "")
        signature = headers.get("X-BAPI-SIGN", "")
        window = headers.get("X-BAPI-RECV-WINDOW", "")
        if not (stamp.isascii() and stamp.isdecimal() and name and signature):
            shown = "xxx" if signature else ""
            raise refusals.bad_parameter(
                f"empty value: apiTimestamp[{stamp}] apiKey[{name}] apiSignature[{shown}]: openapi sign params error!"
            )
        if window and not (window.isascii() and window.isdecimal()):
            raise refusals.bad_parameter("params error: recv_window invalid")
        self.check_time(int(stamp), int(window or DEFAULT_WINDOW_MS))
        key = self._known(name, address)
        origin = f"{stamp}{name}{window}{payload}"
        if not hmac.compare_digest(_sign(key.secret, origin), signature.lower()):
            raise VenueRefusal(refusals.BAD_SIGNATURE, f"error sign! origin_string[{origin}]")
        return key

    def check_time(self, timestamp: int, window_ms: int) -> None:
        """Let only requests pass whose timestamp is near the server's clock.

        Raises:
            VenueRefusal: 10002.
        """
        if not self._clock.is_on_time(timestamp, window_ms):
            raise VenueRefusal(
                refusals.TIMESTAMP,
                "invalid request, please check your server timestamp or recv_window param. "
                f"req_timestamp[{timestamp}],server_timestamp[{self._clock.now()}],recv_window[{window_ms}]",
            )

    def check_login(self, arguments: Any, address: str) -> ApiKey:
        """The key that a websocket logs in with: ``[key, expires, signature]``.

        Raises:
            VenueRefusal: 10001, 10003, 10004, 10010 or 33004.
        """
        if not isinstance(arguments, list) or len(arguments) != 3:
            raise refusals.bad_parameter("Param error")
        name, expires, signature = (str(argument) for argument in arguments)
        key = self._known(name, address)
        if not hmac.compare_digest(_sign(key.secret, f"GET/realtime{expires}"), signature.lower()):
            raise VenueRefusal(refusals.BAD_SIGNATURE, "Error sign, please check your signature generation algorithm.")
        if not expires.isdecimal() or not self._clock.is_to_come(int(expires)):
            raise VenueRefusal(refusals.BAD_SIGNATURE, "Params Error: expires is not after the server's time")
        return key

    def _known(self, name: str, address: str) -> ApiKey:
        key = self._keys.get(name)
        if key is None:
            raise VenueRefusal(refusals.UNKNOWN_KEY)
        if key.expires_at is not None and self._clock.now() >= key.expires_at:
            raise VenueRefusal(refusals.KEY_EXPIRED)
        if key.addresses and address not in key.addresses:
            raise VenueRefusal(refusals.UNMATCHED_IP)
        return key


def _sign(secret: str, text: str) -> str:
    return hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()
