"""A running check of how many true neighbours an approximate index finds."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from memory_store.records import IntArray


@dataclass(frozen=True, slots=True)
class RecallReading:
    """What the checks of late have shown."""

    queries: int
    """Queries counted."""
    checks: int
    """Of them checked."""
    recall: float | None
    """Share of the true neighbours found in the checks of the window; ``None`` before the first."""
    worst: float | None
    """Share found in the worst check of the window."""
    alarm: bool
    """The window holds enough checks to tell, and its recall is too low."""


@dataclass(frozen=True, slots=True)
class RecallState:
    """All that a monitor knows, so that the check of a run goes on where it was stopped."""

    queries: int = 0
    checks: int = 0
    window: tuple[tuple[int, int], ...] = ()
    """Of the checks that count: true neighbours found, and true neighbours."""


class RecallMonitor:
    """Counts queries, says which to check against an exact search, and keeps the outcome. It never changes an answer.

    Which queries are checked follows from their number alone, so that a replay checks the same ones.

    Args:
        every: one query of so many is checked.
        window: checks that count.
        enough: checks in the window before it may raise an alarm.
        alarm_below: recall below which it does.
        state: of a monitor to go on from.
    """

    def __init__(
        self,
        *,
        every: int = 100,
        window: int = 100,
        enough: int = 10,
        alarm_below: float = 0.95,
        state: RecallState | None = None,
    ) -> None:
        known = RecallState() if state is None else state
        self._every = every
        self._enough = enough
        self._alarm_below = alarm_below
        self._queries = known.queries
        self._checks = known.checks
        self._window: deque[tuple[int, int]] = deque(known.window, maxlen=window)

    @property
    def checks_next(self) -> bool:
        """Whether the next query is to be checked."""
        return (self._queries + 1) % self._every == 0

    def due(self) -> bool:
        """Count a query; True for every one that is to be checked: the ``every``-th, twice that, and so on."""
        self._queries += 1
        return self._queries % self._every == 0

    def record(self, found: IntArray, exact: IntArray) -> None:
        """Compare the ids that a query found with those that it should have found; where there are none it tells nothing."""
        self._checks += 1
        if len(exact):
            self._window.append((int(np.count_nonzero(np.isin(exact, found))), len(exact)))

    @property
    def state(self) -> RecallState:
        """What a monitor needs to go on from here."""
        return RecallState(self._queries, self._checks, tuple(self._window))

    @property
    def reading(self) -> RecallReading:
        """The state now."""
        wanted = sum(count for _, count in self._window)
        recall = sum(hits for hits, _ in self._window) / wanted if wanted else None
        worst = min((hits / count for hits, count in self._window), default=None)
        alarm = recall is not None and len(self._window) >= self._enough and recall < self._alarm_below
        return RecallReading(self._queries, self._checks, recall, worst, alarm)
