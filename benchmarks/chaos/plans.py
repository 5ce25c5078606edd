"""What a campaign plays, drawn from a seed: the market, the faults, lives that end at any moment, and what a person does."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from backtest.sandbox.faults import CLOSE, Fault, FaultPlan, FaultRule
from benchmarks.chaos.rehearsal import INTERVAL, Crash, Rehearsal, Scene
from bot.engine import Step
from bot.execution.instruments import Category
from bot.orders import OperatorAction, OperatorCommand, Order
from bot.trading import AccountNews, OrderRouter

CALM: Final = 15
"""Bars before the end in which nothing new goes wrong."""
_SHARE: Final = 0.3
"""Of all kinds of faults, how many a plan has."""
_CREATE: Final = "POST /v5/order/create"
_PRIVATE: Final = ("order", "execution", "position", "wallet")

Draw = Callable[[random.Random], FaultRule]


def _rare(rng: random.Random) -> float:
    return rng.uniform(0.005, 0.05)


def _push(do: Fault, on: str) -> Draw:
    def draw(rng: random.Random) -> FaultRule:
        late = rng.randint(1, 3) if do is Fault.DELAY else 0
        return FaultRule(do, on, chance=_rare(rng), bars_late=late)

    return draw


def _late_by_time(on: str) -> Draw:
    return lambda rng: FaultRule(Fault.DELAY, on, chance=_rare(rng), seconds=rng.uniform(0.01, 0.2))


def _frozen(on: str) -> Draw:
    def draw(rng: random.Random) -> FaultRule:
        begin = rng.randint(1, 400)
        return FaultRule(Fault.FREEZE, on, first=begin, last=begin + rng.randint(2, 8))

    return draw


def _candle(do: Fault) -> Draw:
    return lambda rng: FaultRule(do, "kline.*", chance=_rare(rng) / 2, bars_late=rng.randint(0, 2))


def _request(do: Fault, on: str) -> Draw:
    return lambda rng: FaultRule(do, on, chance=2 * _rare(rng), seconds=rng.uniform(0.01, 0.2))


def _told(do: Fault, on: str) -> Draw:
    """A status, a code or a page in place of what would be answered."""

    def draw(rng: random.Random) -> FaultRule:
        chance, told = 2 * _rare(rng), rng.choice((502, 503, 10000, 10006, 10016, 0))
        if not told:
            return FaultRule(do, on, chance=chance, html=True)
        if told < 600:
            return FaultRule(do, on, chance=chance, status=told)
        return FaultRule(do, on, chance=chance, code=told)

    return draw


def _omitted(on: str) -> Draw:
    return lambda rng: FaultRule(Fault.OMIT, on, chance=4 * _rare(rng), keep=rng.randint(0, 1))


def _at_close(do: Fault) -> Draw:
    return lambda rng: FaultRule(do, CLOSE, every=rng.randint(7, 60))


_KINDS: Final[Sequence[Draw]] = (
    *(
        _push(do, "kline.*")
        for do in (Fault.DROP, Fault.DELAY, Fault.DUPLICATE, Fault.REORDER, Fault.CORRUPT, Fault.CUT)
    ),
    *(
        _push(do, on)
        for on in _PRIVATE
        for do in (Fault.DROP, Fault.DELAY, Fault.DUPLICATE, Fault.REORDER, Fault.CORRUPT, Fault.CUT)
    ),
    *(_late_by_time(on) for on in ("kline.*", *_PRIVATE)),
    *(_frozen(on) for on in ("kline.*", *_PRIVATE)),
    _candle(Fault.SKIP),
    _candle(Fault.REVISE),
    *(
        _request(do, on)
        for on in (_CREATE, "GET /v5/*")
        for do in (Fault.LOSE, Fault.DROP, Fault.CORRUPT, Fault.DELAY, Fault.DUPLICATE)
    ),
    *(_told(do, on) for on in (_CREATE, "GET /v5/*") for do in (Fault.ANSWER, Fault.LOSE)),
    _request(Fault.LOSE, "POST /v5/position/trading-stop"),
    *(_omitted(on) for on in ("GET /v5/order/realtime", "GET /v5/order/history", "GET /v5/execution/list")),
    *(_at_close(do) for do in (Fault.CUT, Fault.RESTART)),
)


_ON_SPOT: Final[Sequence[Draw]] = (
    *(
        _request(do, "POST /v5/order/cancel")
        for do in (Fault.LOSE, Fault.DROP, Fault.CORRUPT, Fault.DELAY, Fault.DUPLICATE)
    ),
    *(_told(do, "POST /v5/order/cancel") for do in (Fault.ANSWER, Fault.LOSE)),
)
"""Stop losses are orders of their own there, and are taken back."""


def plan_of(seed: int, bars: int, category: Category = "linear") -> FaultPlan:
    """The faults of a seed; the last bars of the run have none."""
    rng = random.Random(f"plan {seed}")
    last = max(2, bars - CALM)
    rules = []
    for draw in _KINDS:
        rule = draw(rng)
        if rng.random() < _SHARE:
            rules.append(_until(rule, last))
    if rng.random() < 2 * _SHARE:
        off = rng.choice((-3000, 3000, -30_000))
        begin = rng.randint(1, last)
        rules.append(FaultRule(Fault.SKEW, CLOSE, first=begin, times=1, milliseconds=off))
        rules.append(FaultRule(Fault.SKEW, CLOSE, first=min(last, begin + 10), times=1, milliseconds=0))
    for draw in _ON_SPOT if category == "spot" else ():
        rule = draw(rng)
        if rng.random() < _SHARE:
            rules.append(_until(rule, last))
    return FaultPlan(tuple(rules), seed)


def scene_of(seed: int, bars: int, category: Category = "linear") -> Scene:
    """The market and the account of a seed."""
    rng = random.Random(f"scene {seed}")
    symbols = ("BTCUSDT", "ETHUSDT", "SOLUSDT")[: rng.randint(1, 3)]
    settings: dict[str, dict[str, Any]] = {
        "strategy": {"parameters": {"seed": seed, "share": rng.choice((0.2, 0.4, 0.9))}},
        "fills": {"participation": rng.choice((0.0, 0.0, 0.0002, 0.001))},
        "risk": {"daily_loss_limit": rng.choice((0.0, 0.0, 0.02)), "take_profit": rng.choice((0.0, 0.01))},
    }
    if category == "spot":
        settings["market"] = {"category": "spot", "symbols": symbols, "interval": INTERVAL}
    return Scene(bars, symbols, seed, plan_of(seed, bars, category), settings)


class Accidents:
    """Ends lives at moments drawn from a seed, and lets a person halt, flatten and resume.

    Args:
        rehearsal: whose.
        seed: of what is drawn.
        chance: of each sort of accident at each bar.
    """

    def __init__(self, rehearsal: Rehearsal, seed: int, chance: float = 0.004) -> None:
        self._rehearsal = rehearsal
        self._draws = FaultPlan(seed=seed)
        self._chance = chance
        self._drawn: Counter[tuple[int, str]] = Counter()
        self._entry: OrderRouter | None = None
        rehearsal.on_step = self._after_step
        rehearsal.between = self._between_bars

    def enter(self, entry: OrderRouter) -> OrderRouter:
        """Stand between the run and where its orders go."""
        self._entry = entry
        return self

    def deliver(self, orders: Sequence[Order]) -> None:
        """Pass orders on, or not."""
        assert self._entry is not None
        if orders and self._happens("before sending"):
            raise Crash("between the journal and the sending of an order")
        self._entry.deliver(orders)
        if orders and self._happens("after sending"):
            raise Crash("between the sending of an order and its answer")

    async def last_news(self) -> list[AccountNews]:
        """What the account has to say at the end."""
        assert self._entry is not None
        return await self._entry.last_news()

    def _after_step(self, _step: Step) -> None:
        if self._happens("after a step"):
            raise Crash("after a step")

    async def _between_bars(self) -> None:
        if self._happens("a kill"):
            asyncio.get_running_loop().call_later(0.05 * self._draw("when"), self._rehearsal.kill, "at any moment")
        if self._happens("a command"):
            action = OperatorAction.HALT if self._draw("which") < 0.5 else OperatorAction.FLATTEN
            self._rehearsal.journal.issue_command(self._rehearsal.run_id, OperatorCommand(action, "drawn"))
        elif self._draw("resume") < 20 * self._chance:
            command = OperatorCommand(OperatorAction.RESUME, "drawn")
            self._rehearsal.journal.issue_command(self._rehearsal.run_id, command)

    def _happens(self, what: str) -> bool:
        is_calm = self._rehearsal.venue.tape.closes >= self._rehearsal.scene.bars - CALM
        return self._draw(what) < self._chance and not is_calm

    def _draw(self, what: str) -> float:
        """Follows from the seed, the bar and how often it was drawn in that bar, so that a seed can be played again.

        What time alone decides, such as one request more, moves no later draw.
        """
        closes = self._rehearsal.venue.tape.closes
        self._drawn[closes, what] += 1
        return self._draws.draw("accident", what, closes, self._drawn[closes, what])


def _until(rule: FaultRule, last: int) -> FaultRule:
    end = last if rule.last < 0 else min(rule.last, last)
    return replace(rule, first=max(1, rule.first), last=max(1, end))
