"""How long to wait before trying again: exponential with jitter, bounded, the first retry fast."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Seconds before the n-th retry: ``first_s``, then ``base_s`` doubling up to ``limit_s``, each times a jitter.

    The jitter is uniform in [0.5, 1), so that many clients which lost the same venue do not come back together.
    """

    first_s: float = 0.25
    base_s: float = 1.0
    limit_s: float = 30.0
    uniform: Callable[[], float] = random.random
    """A number in [0, 1)."""

    def delay(self, attempt: int) -> float:
        """Seconds before retry number ``attempt``, counted from 0."""
        doubled = min(self.limit_s, self.base_s * 2.0 ** min(max(0, attempt - 1), 60))
        seconds = self.first_s if attempt <= 0 else doubled
        return seconds * (0.5 + 0.5 * self.uniform())
