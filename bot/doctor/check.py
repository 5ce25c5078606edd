"""One thing that was looked at."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Check:
    """What was found, and whether it is well."""

    name: str
    good: bool
    found: str
    fix: str = ""
    """What to do; empty where it is well."""

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def check(name: str, good: bool, found: str, fix: str) -> Check:
    """A check whose fix is told only where it is needed."""
    return Check(name, good, found, "" if good else fix)
