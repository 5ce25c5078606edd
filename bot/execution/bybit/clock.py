"""The venue's clock as seen from here: https://bybit-exchange.github.io/docs/v5/guide#parameters-for-authenticated-endpoints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

PAST_BIAS_MS: Final = 300
"""How far timestamps are moved to the past: one from the future is refused from 1 s on, one from the past after 5."""
ALARMING_OFFSET_MS: Final = 500
RECEIVE_WINDOW_MS: Final = 5000
"""How long after its stamp a request is taken; the venue's default."""


@dataclass(frozen=True, slots=True)
class ClockSample:
    """One answer that carried the venue's time; all times in milliseconds."""

    sent: int
    received: int
    venue: int

    @property
    def round_trip(self) -> int:
        """Milliseconds between question and answer."""
        return self.received - self.sent

    @property
    def offset(self) -> int:
        """The venue's clock minus ours, as if it had been read half-way."""
        return self.venue - (self.sent + self.received) // 2


@dataclass(frozen=True, slots=True)
class VenueClock:
    """What is known of the venue's clock. Of all samples that with the shortest round trip is believed."""

    best: ClockSample | None = None

    def learned(self, sample: ClockSample) -> VenueClock:
        """With one more sample; one whose answer came before its question teaches nothing."""
        if sample.round_trip < 0:
            return self
        if self.best is None or sample.round_trip <= self.best.round_trip:
            return VenueClock(sample)
        return self

    @property
    def offset(self) -> int:
        """The venue's clock minus ours, milliseconds; 0 while nothing is known."""
        return 0 if self.best is None else self.best.offset

    def timestamp(self, local: int) -> int:
        """What to stamp a request with that leaves now, milliseconds: never ahead of the venue unless the line is very slow."""
        return local + self.offset - PAST_BIAS_MS
