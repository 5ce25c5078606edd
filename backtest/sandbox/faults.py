"""What is to go wrong at the venue, when and how often: a plan that can be written down and played again by its seed."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

CLOSE: Final = "close"
"""What a rule is ``on`` that looks at every close instead of a message or a request."""


class Fault(StrEnum):
    """What goes wrong."""

    DROP = "drop"
    """A push is not sent; a request is cut off before it is looked at."""
    DELAY = "delay"
    """A push comes ``bars_late`` closes or ``seconds`` later; the reply to a request ``seconds`` after it was carried out."""
    DUPLICATE = "duplicate"
    """A push is sent twice; a request is carried out twice, and the first outcome is told."""
    REORDER = "reorder"
    """A push is sent after the next one of its stream."""
    CORRUPT = "corrupt"
    """A push or reply breaks off in the middle."""
    FREEZE = "freeze"
    """Nothing of a topic is pushed, while pings are answered."""
    CUT = "cut"
    """Sockets break: those of a topic before its push, or all of them at a close."""
    ANSWER = "answer"
    """A request is not carried out; the answer is ``status`` with a page, or the return code ``code``."""
    LOSE = "lose"
    """A request is carried out and its reply is lost; with ``status`` or ``code``, that is told instead."""
    OMIT = "omit"
    """A reply's list holds its first ``keep`` rows only."""
    SKIP = "skip"
    """A closed candle exists neither in the stream nor over REST, or not before ``bars_late`` closes later."""
    REVISE = "revise"
    """A closed candle is pushed with a close off by ``fraction`` of its range, and ``bars_late`` closes later as it is."""
    SKEW = "skew"
    """The server's clock is ``milliseconds`` off from that close on."""
    RESTART = "restart"
    """All sockets break, and closed orders are known to the history alone."""


AT_CLOSE: Final = frozenset({Fault.CUT, Fault.SKEW, Fault.RESTART})
OF_CANDLES: Final = frozenset({Fault.SKIP, Fault.REVISE})
OF_REQUESTS: Final = frozenset(
    {Fault.DROP, Fault.DELAY, Fault.DUPLICATE, Fault.CORRUPT, Fault.CUT, Fault.ANSWER, Fault.LOSE, Fault.OMIT}
)
OF_PUSHES: Final = frozenset(
    {Fault.DROP, Fault.DELAY, Fault.DUPLICATE, Fault.REORDER, Fault.CORRUPT, Fault.FREEZE, Fault.CUT}
)
OF_ANSWERS: Final = OF_PUSHES - {Fault.REORDER, Fault.FREEZE, Fault.CUT}
"""Of answers to subscriptions."""


@dataclass(frozen=True, slots=True)
class FaultRule:
    """One line of a plan.

    Args:
        do: what goes wrong.
        on: where, as a pattern with ``*`` and ``?``: a topic (``kline.60.BTCUSDT``, ``order``), a request
            (``POST /v5/order/create``), an operation of the websocket trade API (``order.create``), the answer to a
            subscription (``subscribe``), or ``close``.
        chance: of each occurrence, drawn from the plan's seed.
        first: closes of the venue after which the rule begins to hold.
        last: closes after which it no longer holds; -1: never.
        after: occurrences that pass before the first that it looks at.
        every: look at every so-manieth occurrence only.
        times: how often it strikes at most; 0: without end.
        bars_late: closes by which something is late.
        seconds: by which something is late, of the clock on the wall.
        status: HTTP status to answer with.
        code: return code to answer with.
        html: answer with a page of HTML where an object is expected.
        keep: rows that an ``omit`` leaves.
        fraction: of the candle's range by which a ``revise`` is wrong at first.
        milliseconds: of a ``skew``.

    Raises:
        ValueError: a value is out of range, or the place and the fault do not go together.
    """

    do: Fault
    on: str = "*"
    chance: float = 1.0
    first: int = 0
    last: int = -1
    after: int = 0
    every: int = 1
    times: int = 0
    bars_late: int = 0
    seconds: float = 0.0
    status: int = 200
    code: int = 0
    html: bool = False
    keep: int = 0
    fraction: float = 0.5
    milliseconds: int = 0

    def __post_init__(self) -> None:
        if not 0.0 <= self.chance <= 1.0:
            raise ValueError(f"chance {self.chance} must be between 0 and 1")
        if min(self.first, self.after, self.times, self.bars_late, self.keep) < 0 or self.every < 1 or self.seconds < 0:
            raise ValueError(
                "first, after, times, bars_late, keep and seconds must not be negative, and every at least 1"
            )
        if not 100 <= self.status <= 599:
            raise ValueError(f"status {self.status} is no HTTP status")
        if (self.on == CLOSE) != (self.do in AT_CLOSE) and self.do is not Fault.CUT:
            raise ValueError(f'{self.do} is on "{CLOSE}" or on messages and requests, not on {self.on!r}')
        if self.do is Fault.ANSWER and self.status == 200 and not self.code and not self.html:
            raise ValueError("an answer needs a status, a code or html = true")
        if self.do is Fault.DELAY and not self.bars_late and not self.seconds:
            raise ValueError("a delay needs bars_late or seconds")


class FaultPlan:
    """A seed and its rules.

    Args:
        rules: in the order in which they are looked at.
        seed: of all chances.
    """

    def __init__(self, rules: tuple[FaultRule, ...] = (), seed: int = 0) -> None:
        self.rules = rules
        self.seed = seed

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> FaultPlan:
        """A plan from what a TOML file or a JSON body holds: ``seed``, and a list named ``fault``.

        Raises:
            ValueError: something in it is not understood; the text names the rule and what is wrong.
        """
        unknown = set(document) - {"seed", "fault"}
        if unknown:
            raise ValueError(f"the plan has {sorted(unknown)[0]!r}; it may have seed and [[fault]]")
        seed, rows = document.get("seed", 0), document.get("fault", [])
        if not isinstance(seed, int) or isinstance(seed, bool):
            raise ValueError(f"seed {seed!r} must be a whole number")
        if not isinstance(rows, list):
            raise ValueError("fault must be a list: write [[fault]]")
        return cls(tuple(_rule(number, row) for number, row in enumerate(rows, start=1)), seed)

    @classmethod
    def read(cls, path: Path) -> FaultPlan:
        """A plan from a TOML file.

        Raises:
            OSError: the file cannot be read.
            ValueError: it is no TOML, or no plan.
        """
        with path.open("rb") as file:
            return cls.of(tomllib.load(file))

    def draw(self, *names: object) -> float:
        """A number in [0, 1) that follows from the seed and the names alone."""
        digest = hashlib.sha256("/".join(map(str, (self.seed, *names))).encode()).digest()
        return int.from_bytes(digest[:7], "big") / 2**56


def _is_of(value: object, kind: str) -> bool:
    """Whether a value is one that a field of that type can have."""
    if kind == "bool" or isinstance(value, bool):
        return kind == "bool" and isinstance(value, bool)
    if kind in ("int", "float"):
        return isinstance(value, int) or (kind == "float" and isinstance(value, float))
    return isinstance(value, str)


def _rule(number: int, row: Any) -> FaultRule:
    if not isinstance(row, dict):
        raise ValueError(f"fault {number} must be a table")
    kinds = {field.name: field.type for field in fields(FaultRule)}
    values: dict[str, Any] = {}
    for name, value in row.items():
        if name not in kinds:
            raise ValueError(f"fault {number} has {name!r}; choose one of {', '.join(kinds)}")
        if not _is_of(value, str(kinds[name])):
            raise ValueError(f"fault {number}: {name} was {value!r}, which is not of the right kind")
        values[name] = value
    try:
        values["do"] = Fault(values.get("do", ""))
    except ValueError:
        raise ValueError(f"fault {number}: do must be one of {', '.join(Fault)}") from None
    try:
        return FaultRule(**values)
    except ValueError as problem:
        raise ValueError(f"fault {number}: {problem}") from None


class FaultInjector:
    """Tells for each occurrence of something what goes wrong with it, and counts.

    The answer follows from the plan and from how many occurrences of the same thing there were before: for what is drawn, since
    the last close of the venue. So what happens to one topic does not depend on how it interleaves with others, and where a
    client asks once more or once less, because time passed otherwise, the draws are the same again from the next close on.
    """

    def __init__(self, plan: FaultPlan) -> None:
        self._plan = plan
        self._rules = list(plan.rules)
        self._seen: dict[tuple[int, str], int] = {}
        self._struck: dict[int, int] = {}
        self._since_close: dict[tuple[int, str], int] = {}
        self._counted_at = 0
        self.closes = 0
        """Closes of the venue so far."""

    def plant(self, plan: FaultPlan) -> None:
        """Add the rules of another plan; chances are drawn from the first one's seed."""
        self._rules += plan.rules

    def strike(self, target: str, kinds: frozenset[Fault]) -> FaultRule | None:
        """The first rule of these kinds that strikes this occurrence of ``target``, if any does."""
        struck: FaultRule | None = None
        if self._counted_at != self.closes:
            self._counted_at, self._since_close = self.closes, {}
        for number, rule in enumerate(self._rules):
            if rule.do not in kinds or not fnmatchcase(target, rule.on):
                continue
            if (target == CLOSE) != (rule.on == CLOSE):
                continue
            if self.closes < rule.first or 0 <= rule.last <= self.closes:
                continue
            seen = self._seen[number, target] = self._seen.get((number, target), 0) + 1
            place = self._since_close[number, target] = self._since_close.get((number, target), 0) + 1
            if struck is not None or (rule.times and self._struck.get(number, 0) >= rule.times):
                continue
            if seen <= rule.after or (seen - rule.after) % rule.every:
                continue
            if rule.chance < 1.0 and self._plan.draw("strike", number, target, self.closes, place) >= rule.chance:
                continue
            self._struck[number] = self._struck.get(number, 0) + 1
            struck = rule
        return struck

    def broken(self, text: str) -> str:
        """A text that breaks off somewhere."""
        share = self._plan.draw("corrupt", len(text), self.closes)
        return text[: int(share * (len(text) - 1))] if len(text) > 1 else ""

    @property
    def struck(self) -> int:
        """How often something went wrong so far."""
        return sum(self._struck.values())
