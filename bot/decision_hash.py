"""The hash over all decisions of a run.

A run makes one decision per bar, and most say what the one before said. Texts are therefore made and hashed block by block, and
the lines of equal decisions in a row all at once: line by line, that took a fifth of a replay.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

import msgspec

from bot.orders import Verdict

BLOCK: Final = 16
"""Decisions that are hashed together."""
_encoded = msgspec.json.Encoder().encode


class DecisionHash:
    """SHA-256 over the texts of decisions, one per line: each whole block is hashed with the link before it.

    What it comes to does not depend on which decisions came by ``add`` and which as repetitions.
    """

    __slots__ = ("_lines", "_link", "_repeated", "symbol", "times", "verdicts")

    def __init__(self) -> None:
        self._link = hashlib.sha256(b"decisions").hexdigest()
        self._lines: list[str] = []
        self._repeated = ""
        self.symbol = ""
        """Of the decisions that repeat."""
        self.verdicts: tuple[Verdict, ...] | None = None
        """Theirs, the very tuple."""
        self.times: list[int] = []
        """Open times of their bars: a decision on this symbol with these verdicts and no more is added by appending to it."""

    @property
    def link(self) -> str:
        """Hash over all whole blocks, in hexadecimal."""
        return self._link

    @property
    def tail(self) -> tuple[str, ...]:
        """Texts of the decisions since the last whole block."""
        self._end_repetition()
        return tuple("\n".join(self._lines).split("\n")) if self._lines else ()

    @property
    def sha256(self) -> str:
        """Hash over all decisions so far. It does not depend on when it is asked for."""
        self._end_repetition()
        return _linked(self._link, self._lines)

    def add(self, text: str) -> None:
        """A decision whose text is like no other."""
        self._end_repetition()
        self._lines.append(text)

    def begin(self, symbol: str, verdicts: tuple[Verdict, ...], open_time: int) -> None:
        """A decision without orders that others may repeat."""
        self._end_repetition()
        if verdicts is not self.verdicts:
            self.verdicts, self._repeated = verdicts, ",".join(verdicts)
        self.symbol = symbol
        self.times.append(open_time)

    def end_block(self) -> None:
        """To be called after every ``BLOCK`` decisions."""
        self._end_repetition()
        self._link = _linked(self._link, self._lines)
        self._lines.clear()

    def restore(self, link: str, tail: Sequence[str]) -> None:
        """Go on from there."""
        self._link, self._lines = link, list(tail)
        self.times.clear()

    def _end_repetition(self) -> None:
        times = self.times
        if not times:
            return
        before, after = f"{self.symbol}|", f"|{self._repeated}"
        digits = joined(times).replace(",", f"{after}\n{before}")
        self._lines.append(f"{before}{digits}{after}")
        times.clear()


def joined(numbers: Sequence[int]) -> str:
    """Whole numbers with commas between them: as a list in JSON, which is the fastest way to their digits."""
    return _encoded(numbers).decode()[1:-1]


def _linked(link: str, lines: Sequence[str]) -> str:
    return hashlib.sha256("\n".join([link, *lines]).encode()).hexdigest()
