"""Simulated time of the sandbox: running at some speed, or stepped from bar to bar."""

from __future__ import annotations

import time as system_time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class ClockMode(StrEnum):
    """How simulated time passes."""

    REAL = "real"
    """One simulated second per real second."""
    ACCELERATED = "accelerated"
    """Several simulated seconds per real second."""
    STEPPED = "stepped"
    """Only when told to, from one bar's close to the next."""


@dataclass(frozen=True, slots=True)
class ClockSetting:
    """A mode and, for an accelerated clock, the simulated seconds per real second."""

    mode: ClockMode
    speed: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 < self.speed < float("inf"):
            raise ValueError(f"speed {self.speed} must be a positive number of simulated seconds per real second")

    @property
    def passes_as_outside(self) -> bool:
        """Whether simulated time passes as time does outside."""
        return self.mode is not ClockMode.STEPPED and self.speed == 1.0

    @classmethod
    def real(cls) -> ClockSetting:
        """Time passes as it does outside."""
        return cls(ClockMode.REAL)

    @classmethod
    def accelerated(cls, speed: float) -> ClockSetting:
        """``speed`` simulated seconds pass in each real second.

        Raises:
            ValueError: the speed is not a positive number.
        """
        return cls(ClockMode.ACCELERATED, speed)

    @classmethod
    def stepped(cls) -> ClockSetting:
        """Time stands still between steps."""
        return cls(ClockMode.STEPPED)


class Clock(Protocol):
    """Simulated time in milliseconds since the epoch, UTC."""

    def run(self) -> None:
        """Let time pass from now on, where it passes by itself; until then it stands still."""

    def now(self) -> int:
        """The simulated time."""

    def advance_to(self, time: int) -> None:
        """Let at least ``time`` have come."""

    def seconds_until(self, time: int) -> float:
        """Real seconds until simulated ``time``, 0 when it has passed; infinite where time does not pass by itself."""

    def stop_at(self, time: int) -> None:
        """Let simulated time never pass ``time``: nothing happens after it."""


class SteppedClock:
    """Time that moves only by ``advance_to``."""

    def __init__(self, start: int) -> None:
        self._now = start

    def run(self) -> None:
        """A stepped clock waits for its steps."""

    def now(self) -> int:
        return self._now

    def advance_to(self, time: int) -> None:
        self._now = max(self._now, time)

    def seconds_until(self, time: int) -> float:
        return 0.0 if time <= self._now else float("inf")

    def stop_at(self, time: int) -> None:
        """A stepped clock has no way to run past the last step."""


class RunningClock:
    """Time that passes by itself, ``speed`` simulated seconds per real second, from ``start`` on."""

    def __init__(self, start: int, speed: float, monotonic: Callable[[], float] = system_time.monotonic) -> None:
        self._start = start
        self._speed = speed
        self._monotonic = monotonic
        self._begin: float | None = None
        self._limit: int | None = None

    def run(self) -> None:
        if self._begin is None:
            self._begin = self._monotonic()

    def now(self) -> int:
        elapsed = 0.0 if self._begin is None else (self._monotonic() - self._begin) * self._speed
        now = self._start + int(elapsed * 1000.0)
        return now if self._limit is None else min(now, self._limit)

    def advance_to(self, time: int) -> None:
        """Make up for a timer that woke a fraction of a millisecond early."""
        self._start += max(0, time - self.now())

    def seconds_until(self, time: int) -> float:
        return max(0.0, (time - self.now()) / 1000.0 / self._speed)

    def stop_at(self, time: int) -> None:
        self._limit = time


def make_clock(setting: ClockSetting, start: int) -> Clock:
    """The clock of a setting, standing at ``start`` until it runs."""
    if setting.mode is ClockMode.STEPPED:
        return SteppedClock(start)
    return RunningClock(start, setting.speed)
