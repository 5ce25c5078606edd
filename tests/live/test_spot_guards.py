"""The stop loss of coins: a conditional sale at the venue that follows what is held, on the sandbox over real sockets.

Every rehearsal ends in the invariants of ``benchmarks.chaos.invariants``: the wallet's coins are the run's, a stop loss of just
these waits at the venue wherever the run wants one, each order is there once, journal == venue, and the audit finds nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from backtest.sandbox.faults import CLOSE, Fault, FaultRule
from backtest.sandbox.records import Category, Status, VenueOrder
from benchmarks.chaos.invariants import exchange_of, orders_of
from benchmarks.chaos.plans import Accidents, scene_of
from benchmarks.chaos.rehearsal import LIMITS, Crash, Rehearsal, Scene
from bot.execution.fills import FillRules
from bot.orders import EmergencyOrder, Execution, GuardOrder, Notice, NoticeKind, Order, OrderUpdate, Side, is_guard
from bot.trading import OrderRouter
from tests.live.test_fault_matrix import CREATE, SYMBOL, Part, events_of, rehearse, rules, slow

OFTEN = replace(LIMITS, every_s=0.05)
FAR, NEAR = 0.2, 0.001


def scene(
    *rows: FaultRule,
    stop_loss: float = FAR,
    bars: int = 12,
    strategy: Mapping[str, Any] | None = None,
    symbols: Sequence[str] = (SYMBOL,),
    **more: Any,
) -> Scene:
    """Long and flat in turns of three bars on the spot market."""
    settings = {
        "market": {"category": "spot", "symbols": symbols, "interval": "60"},
        "strategy": strategy or {"name": "tests.bot.cli.strategies:TakesTurns", "parameters": {"bars": 3}},
        "risk": {"stop_loss": stop_loss, "daily_loss_limit": 0.0, "no_trade_band": 0.1},
    }
    return Scene(bars, tuple(symbols), plan=rules(*rows), settings=settings, **more)


def guards_of(rehearsal: Rehearsal) -> list[VenueOrder]:
    """Conditional sales that the run has sent, as the venue has them."""
    return [order for order in orders_of(rehearsal) if is_guard(order.link_id)]


def fills_of(rehearsal: Rehearsal) -> list[Execution]:
    return [fill for _, fill in rehearsal.journal.read_executions(rehearsal.run_id)]


def alarms_of(rehearsal: Rehearsal) -> list[str]:
    return [notice.text for notice in events_of(rehearsal, Notice) if notice.kind is NoticeKind.ALARM]


def at_bars(bars: Sequence[int], act: Callable[[Rehearsal, Order], Any]) -> Part:
    """Play, and let something happen to the guard of the run after some bars."""

    async def play(rehearsal: Rehearsal) -> None:
        async def between() -> None:
            guards = rehearsal.run.engine.venue.guards  # type: ignore[attr-defined]
            if rehearsal.venue.tape.closes in bars and guards:
                await act(rehearsal, next(iter(guards.values())))
                await asyncio.sleep(20 * OFTEN.every_s)

        rehearsal.between = between
        await rehearsal.play()

    return play


def test_what_is_bought_has_its_stop_loss_at_the_venue_and_a_sale_leaves_none_behind(tmp_path):
    rehearsal = rehearse(tmp_path, scene())
    guards = guards_of(rehearsal)
    bought = [fill for fill in fills_of(rehearsal) if fill.side is Side.BUY]
    assert len(guards) >= 2 and {order.status for order in guards} <= {Status.DEACTIVATED, Status.UNTRIGGERED}
    for fill, guard in zip(bought, guards, strict=True):
        # What an earlier sale left may make up a lot.
        assert abs(fill.signed_quantity - guard.quantity) < guard.instrument.lot_size
        assert guard.stop_order_type == "tpslOrder" and guard.side is Side.SELL
    assert not alarms_of(rehearsal) and not events_of(rehearsal, EmergencyOrder)


def test_a_stop_that_is_reached_sells_the_coins_and_is_booked_as_a_stop(tmp_path):
    rehearsal = rehearse(tmp_path, scene(stop_loss=NEAR, bars=16))
    stops = [fill for fill in fills_of(rehearsal) if fill.kind == "stop_loss"]
    assert stops and all(is_guard(fill.client_order_id) and fill.side is Side.SELL for fill in stops)
    filled = [order for order in guards_of(rehearsal) if order.status is Status.FILLED]
    assert {order.link_id for order in filled} == {fill.client_order_id for fill in stops}


@pytest.mark.slow
def test_additions_and_reductions_leave_one_stop_of_just_what_is_held(tmp_path):
    restless = {"name": "benchmarks.chaos.strategy:Restless", "parameters": {"seed": 7}}
    rehearsal = rehearse(tmp_path, scene(bars=40, strategy=restless, symbols=(SYMBOL, "ETHUSDT")), least=20)
    sold = {order.link_id for order in orders_of(rehearsal) if order.side is Side.SELL and not is_guard(order.link_id)}
    assert sold and len(guards_of(rehearsal)) > len(sold)
    assert not [text for text in alarms_of(rehearsal) if "refused" in text]


def test_a_stop_that_somebody_cancels_is_set_again_with_an_alarm(tmp_path):
    async def cancel(rehearsal: Rehearsal, guard: Order) -> None:
        await rehearsal.cancel_by_hand(guard)

    rehearsal = rehearse(tmp_path, scene(limits=OFTEN), at_bars((4,), cancel))
    assert [text for text in alarms_of(rehearsal) if "no stop loss at the venue" in text]
    assert len(guards_of(rehearsal)) > sum(fill.side is Side.BUY for fill in fills_of(rehearsal))
    assert not events_of(rehearsal, EmergencyOrder)


@pytest.mark.slow
def test_a_stop_that_somebody_changes_is_set_again_with_an_alarm(tmp_path):
    async def amend(rehearsal: Rehearsal, guard: Order) -> None:
        exchange = exchange_of(rehearsal.venue)
        order = exchange.find(Category.SPOT, "", guard.client_order_id)
        assert order is not None
        exchange.amend(order, quantity=guard.quantity / 2 // order.instrument.lot_size * order.instrument.lot_size)

    rehearsal = rehearse(tmp_path, scene(limits=OFTEN), at_bars((4,), amend))
    assert [text for text in alarms_of(rehearsal) if "was changed" in text]


def test_coins_whose_stop_loss_the_venue_does_not_take_are_sold(tmp_path):
    refused = FaultRule(Fault.ANSWER, CREATE, after=1, times=1, code=170130)
    rehearsal = rehearse(tmp_path, scene(refused, limits=OFTEN))
    (emergency,) = events_of(rehearsal, EmergencyOrder)
    rejected = [update for update in events_of(rehearsal, OrderUpdate) if update.status == "rejected"]
    assert [is_guard(update.client_order_id) for update in rejected] == [True]
    sold = [fill for fill in fills_of(rehearsal) if fill.client_order_id == emergency.order.client_order_id]
    assert sold and any("cannot have a stop loss" in text for text in alarms_of(rehearsal))


@pytest.mark.parametrize(
    "rule",
    [
        FaultRule(Fault.LOSE, CREATE, every=2),
        slow(FaultRule(Fault.DROP, CREATE, every=2)),
        slow(FaultRule(Fault.ANSWER, CREATE, every=2, status=503)),
        slow(FaultRule(Fault.LOSE, "POST /v5/order/cancel", every=2)),
        slow(FaultRule(Fault.DROP, "POST /v5/order/cancel", every=2)),
        slow(FaultRule(Fault.FREEZE, "order", first=1, last=9)),
        slow(FaultRule(Fault.FREEZE, "execution", first=1, last=9)),
        slow(FaultRule(Fault.CUT, CLOSE, every=2)),
    ],
)
def test_a_stop_whose_request_or_news_is_lost_is_at_the_venue_once(tmp_path, rule):
    rehearsal = rehearse(tmp_path, scene(rule, stop_loss=0.003, bars=16))
    assert rehearsal.venue.faults_struck >= 1


@pytest.mark.slow
def test_a_stop_that_is_filled_in_part_ends_with_nothing_left(tmp_path):
    thin = FillRules(impact=0.0, latency_ms=0, participation=0.002, queue=0.0)
    rehearsal = rehearse(tmp_path, scene(stop_loss=NEAR, bars=20, account={"rules": thin}, limits=OFTEN))
    cut = [order for order in guards_of(rehearsal) if order.status is Status.PARTIALLY_FILLED_CANCELLED]
    assert cut and events_of(rehearsal, EmergencyOrder)


@pytest.mark.parametrize("sent", [False, slow(True)])
def test_a_process_that_ends_around_the_sending_of_a_stop_leaves_no_coins_bare_and_no_stop_twice(tmp_path, sent):
    crashes = iter(range(2))

    class Breaking:
        """Ends the process before or after a guard is sent."""

        def __init__(self, entry: OrderRouter) -> None:
            self._entry = entry

        def deliver(self, orders: Sequence[Order]) -> None:
            ends = any(is_guard(order.client_order_id) for order in orders) and next(crashes, None) is not None
            if sent or not ends:
                self._entry.deliver(orders)
            if ends:
                raise Crash("around the sending of a stop loss")

        async def last_news(self) -> Any:
            return await self._entry.last_news()

    async def play(rehearsal: Rehearsal) -> None:
        await rehearsal.play(entry=Breaking)
        assert rehearsal.lives == 3

    rehearsal = rehearse(tmp_path, scene(), play)
    names = [event.order.client_order_id for event in events_of(rehearsal, GuardOrder)]
    assert len(names) == len(set(names)) >= 2


@pytest.mark.slow
def test_a_stop_that_the_price_has_passed_before_it_was_set_is_no_target_and_the_coins_are_sold(tmp_path):
    """The venue takes a trigger above the price for that of a take profit."""

    class Late:
        """Lets a bar pass before a guard is sent."""

        def __init__(self, rehearsal: Rehearsal, entry: OrderRouter) -> None:
            self._rehearsal, self._entry = rehearsal, entry
            self._tasks: set[asyncio.Task[None]] = set()

        def deliver(self, orders: Sequence[Order]) -> None:
            task = asyncio.create_task(self._deliver(orders))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        async def _deliver(self, orders: Sequence[Order]) -> None:
            if any(is_guard(order.client_order_id) for order in orders) and not self._rehearsal.venue.finished:
                await self._rehearsal.venue.step()
            self._entry.deliver(orders)

        async def last_news(self) -> Any:
            return await self._entry.last_news()

    async def play(rehearsal: Rehearsal) -> None:
        await rehearsal.play(entry=lambda entry: Late(rehearsal, entry))

    rehearsal = rehearse(tmp_path, scene(stop_loss=NEAR, bars=30, seed=1), play)
    assert [text for text in alarms_of(rehearsal) if "before it was set" in text]
    assert not [order for order in guards_of(rehearsal) if order.trigger_direction == 1 and order.filled]


@pytest.mark.slow
def test_a_stop_that_is_reached_while_the_bot_is_down_is_booked_when_it_is_back(tmp_path):
    async def down(rehearsal: Rehearsal) -> None:
        await rehearsal.play(4)
        await rehearsal.venue.step(6)
        await rehearsal.play(6)

    rehearsal = rehearse(tmp_path, scene(stop_loss=NEAR, bars=18), down, least=2)
    assert [fill for fill in fills_of(rehearsal) if fill.kind == "stop_loss"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_a_few_seeds_of_the_campaign_break_nothing_on_the_spot_market(tmp_path, seed):
    """``python -m benchmarks.chaos.campaign --category spot`` plays as many as wanted."""

    async def play(rehearsal: Rehearsal) -> None:
        await rehearsal.play(entry=Accidents(rehearsal, seed, 0.02).enter)

    rehearse(tmp_path, scene_of(seed, 40, "spot"), play)
