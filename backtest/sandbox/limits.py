"""How often a route may be asked (https://bybit-exchange.github.io/docs/v5/rate-limit), and the headers that tell it."""

from __future__ import annotations

import time as system_time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

WINDOW_S: Final = 1.0
DEFAULT_PER_SECOND: Final = 50
PER_SECOND: Final[Mapping[str, int]] = {
    "/v5/order/create": 10,
    "/v5/order/amend": 10,
    "/v5/order/cancel": 10,
    "/v5/order/cancel-all": 10,
    "/v5/order/create-batch": 10,
    "/v5/order/amend-batch": 10,
    "/v5/order/cancel-batch": 10,
    "/v5/position/set-leverage": 10,
    "/v5/position/switch-mode": 10,
    "/v5/position/trading-stop": 10,
    "/v5/account/set-margin-mode": 10,
    "/v5/user/query-api": 10,
    "/v5/account/fee-rate": 5,
}
"""Requests per second of the lowest level of client."""


@dataclass(frozen=True, slots=True)
class Quota:
    """What is left of a limit after a request."""

    limit: int
    left: int
    wait_ms: int = 0
    """Until a request passes again; 0 where one would pass now."""
    is_spent: bool = False

    def headers(self, now: int) -> dict[str, str]:
        """As the venue tells it with every reply; ``now`` in milliseconds."""
        return {
            "X-Bapi-Limit": str(self.limit),
            "X-Bapi-Limit-Status": str(self.left),
            "X-Bapi-Limit-Reset-Timestamp": str(now + self.wait_ms),
            "Timenow": str(now),
        }


class RateLimits:
    """Requests of the last second by route.

    Args:
        enforced: whether more than the limit is refused; else it is only told.
        per_second: limits by route; the others may be asked ``DEFAULT_PER_SECOND`` times.
        monotonic: seconds that pass as outside: what a client can send is a matter of its own time, not the market's.
    """

    def __init__(
        self,
        *,
        enforced: bool = True,
        per_second: Mapping[str, int] = PER_SECOND,
        monotonic: Callable[[], float] = system_time.monotonic,
    ) -> None:
        self._enforced = enforced
        self._per_second = per_second
        self._monotonic = monotonic
        self._taken: dict[str, deque[float]] = {}

    def take(self, route: str, count: int = 1) -> Quota:
        """Note ``count`` requests, if the limit allows them."""
        limit = self._per_second.get(route, DEFAULT_PER_SECOND)
        if not self._enforced:
            return Quota(limit, limit - 1)
        now = self._monotonic()
        taken = self._taken.setdefault(route, deque())
        while taken and taken[0] <= now - WINDOW_S:
            taken.popleft()
        if len(taken) + count > limit:
            wait = taken[0] + WINDOW_S - now if taken else WINDOW_S
            return Quota(limit, 0, max(1, int(wait * 1000.0)), is_spent=True)
        taken.extend([now] * count)
        return Quota(limit, limit - len(taken))
