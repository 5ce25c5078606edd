"""Token buckets that keep requests below Bybit's limits. No clock of their own.

https://bybit-exchange.github.io/docs/v5/rate-limit
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

SHARE: Final = 0.8
"""Part of a limit that is used: others may trade the same account."""


class EndpointGroup(StrEnum):
    """Requests that are counted together."""

    CREATE = "create"
    AMEND = "amend"
    CANCEL = "cancel"
    POSITION = "position"
    """Leverage, position mode, stops of a position."""
    READ = "read"
    FEE_RATE = "fee_rate"


LIMITS_PER_SECOND: Final = {
    EndpointGroup.CREATE: 10,
    EndpointGroup.AMEND: 10,
    EndpointGroup.CANCEL: 10,
    EndpointGroup.POSITION: 10,
    EndpointGroup.READ: 50,
    EndpointGroup.FEE_RATE: 5,
}
"""Of an account without a VIP level."""
ALL_PER_SECOND: Final = 100
"""600 requests in 5 s from one address is the venue's limit, 120 a second."""
PUBLIC_PER_SECOND: Final = 40
"""Of market data, which are counted by the same address: with the above, no more than the venue allows."""
CANCEL_RESERVE: Final = 20
"""Requests of the common bucket that only cancels may take."""


class TokenBucket:
    """At most ``rate`` requests in any second on average, and ``rate`` at once.

    Args:
        rate: requests a second.
        now: seconds, by any monotonic clock.
    """

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._tokens = rate
        self._at = now

    def wait_s(self, now: float, keep: float = 0.0) -> float:
        """Seconds until a token can be taken and ``keep`` others are left; 0 when it can be taken now."""
        self._refill(now)
        return max(0.0, (1.0 + keep - self._tokens) / self._rate)

    def take(self, now: float) -> None:
        """Take a token, also where none is left: then later ones wait the longer."""
        self._refill(now)
        self._tokens -= 1.0

    def _refill(self, now: float) -> None:
        self._tokens = min(self._rate, self._tokens + max(0.0, now - self._at) * self._rate)
        self._at = max(self._at, now)


class RateLimits:
    """The buckets of one account: one for each group, and one for all together of which cancels have a part to themselves.

    Args:
        now: seconds, by any monotonic clock.
        share: of the venue's limits that is used; above 1 for a simulated venue that enforces none.
    """

    def __init__(self, now: float, share: float = SHARE) -> None:
        self._groups = {group: TokenBucket(limit * share, now) for group, limit in LIMITS_PER_SECOND.items()}
        self._all = TokenBucket(ALL_PER_SECOND * share, now)

    def reserve(self, group: EndpointGroup, now: float) -> float:
        """Take a request of a group if it may leave now; else how many seconds to wait before asking again.

        Returns:
            0 when it was taken.
        """
        bucket = self._groups[group]
        keep = 0.0 if group is EndpointGroup.CANCEL else float(CANCEL_RESERVE)
        wait = max(bucket.wait_s(now), self._all.wait_s(now, keep))
        # A difference of rounding is no reason to wait.
        if wait > 1e-9:
            return wait
        bucket.take(now)
        self._all.take(now)
        return 0.0
