"""The fault matrix: each way in which venues and processes are known to fail, on the sandbox over real sockets.

Every rehearsal ends in the same invariants (``benchmarks.chaos.invariants``): venue position == bot position, no naked
position, no duplicate order, journal == venue, no bar missed or doubled, and an audit without differences.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from backtest.sandbox.faults import CLOSE, Fault, FaultPlan, FaultRule
from backtest.sandbox.records import BookKey, Category
from benchmarks.chaos.invariants import breaches, exchange_of, orders_of
from benchmarks.chaos.plans import Accidents, scene_of
from benchmarks.chaos.rehearsal import LIMITS, Crash, Rehearsal, Scene
from bot.orders import AccountStanding, EmergencyOrder, Funding, Notice, NoticeKind, Order, Side, Verdict
from bot.trading import AccountNews, OrderRouter
from strategies.bars import DAY_MS
from tests.bot.market.scenes import T0

CREATE = "POST /v5/order/create"
SYMBOL = "BTCUSDT"
ALONE = (SYMBOL,)
Part = Callable[[Rehearsal], Any]


def slow(*values: Any, name: str | None = None) -> Any:
    """A variant that only ``make test-all`` plays."""
    return pytest.param(*values, marks=pytest.mark.slow, id=name)


def rehearse(
    tmp_path: Path, scene: Scene, *parts: Part, transferred: Decimal | None = Decimal(0), least: int = 3
) -> Rehearsal:
    """Play a scene, by parts or whole, and let nothing be broken at its end, after so many orders at least."""

    async def run() -> Rehearsal:
        async with Rehearsal(tmp_path, scene) as rehearsal:
            async with asyncio.timeout(280):
                for part in parts or (Rehearsal.play,):
                    await part(rehearsal)
            assert breaches(rehearsal, transferred=transferred) == []
            # So that it is no empty truth.
            assert len(orders_of(rehearsal)) >= least
            return rehearsal

    return asyncio.run(run())


def rules(*rows: FaultRule) -> FaultPlan:
    return FaultPlan(rows, seed=1)


def scene(*rows: FaultRule, bars: int = 12, symbols: Sequence[str] = ALONE, **more: Any) -> Scene:
    return Scene(bars, tuple(symbols), plan=rules(*rows), **more)


def events_of(rehearsal: Rehearsal, kind: type) -> list[Any]:
    return [event for _, event in rehearsal.journal.read_events(rehearsal.run_id) if isinstance(event, kind)]


class Breaking:
    """Stands where orders go, and ends the process around the sending of some of them."""

    def __init__(self, entry: OrderRouter, when: Callable[[], bool], *, sent: bool) -> None:
        self._entry, self._when, self._sent = entry, when, sent

    def deliver(self, orders: Sequence[Order]) -> None:
        """Send, or not, and end."""
        ends = bool(orders) and self._when()
        if self._sent or not ends:
            self._entry.deliver(orders)
        if ends:
            raise Crash("around the sending of an order")

    async def last_news(self) -> list[AccountNews]:
        """What the account has to say at the end."""
        return await self._entry.last_news()


def breaking(sent: bool, times: int = 2) -> Part:
    """Play with the process ending at the first orders."""
    left = iter(range(times))

    async def play(rehearsal: Rehearsal) -> None:
        await rehearsal.play(entry=lambda entry: Breaking(entry, lambda: next(left, None) is not None, sent=sent))
        assert rehearsal.lives == times + 1

    return play


# -- 1. the request of an order and its reply ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rule",
    [
        FaultRule(Fault.LOSE, CREATE, every=2),
        slow(FaultRule(Fault.LOSE, CREATE, every=2, status=502)),
        slow(FaultRule(Fault.LOSE, CREATE, every=2, html=True)),
        slow(FaultRule(Fault.DROP, CREATE, every=2)),
        slow(FaultRule(Fault.CORRUPT, CREATE, every=2)),
        slow(FaultRule(Fault.ANSWER, CREATE, every=2, status=503)),
    ],
)
def test_1_an_order_whose_reply_is_lost_is_at_the_venue_once(tmp_path, rule):
    rehearsal = rehearse(tmp_path, scene(rule))
    assert rehearsal.venue.faults_struck >= 1


@pytest.mark.slow
def test_1_an_order_whose_reply_comes_after_the_timeout_is_at_the_venue_once(tmp_path):
    rehearse(tmp_path, scene(FaultRule(Fault.DELAY, CREATE, every=3, seconds=2.5)))


@pytest.mark.parametrize("do", [Fault.LOSE, slow(Fault.DROP), slow(Fault.CUT)])
def test_1_an_order_over_the_trade_socket_whose_reply_is_lost_is_at_the_venue_once(tmp_path, do):
    settings = {"live": {"order_entry": "websocket"}, "venue": {"rest_timeout": 0.5}}
    rehearse(tmp_path, scene(FaultRule(do, "order.create", every=3), settings=settings))


# -- 2. the same id again --------------------------------------------------------------------------------------------


def test_2_an_order_that_arrives_twice_is_there_once_and_the_refusal_of_the_second_is_no_failure(tmp_path):
    rows = (FaultRule(Fault.DUPLICATE, CREATE, every=2), FaultRule(Fault.LOSE, CREATE, every=3, code=10000))
    rehearsal = rehearse(tmp_path, scene(*rows))
    assert not any(notice.kind is NoticeKind.ALARM for notice in events_of(rehearsal, Notice))


# -- 3. messages in any order ----------------------------------------------------------------------------------------

SHARED = {"fills": {"participation": 0.0002}}


@pytest.mark.parametrize(
    "rows",
    [
        slow((FaultRule(Fault.DELAY, CREATE, seconds=0.1),)),
        (FaultRule(Fault.REORDER, "order", every=2), FaultRule(Fault.REORDER, "execution", every=2)),
        slow((FaultRule(Fault.DUPLICATE, "order"), FaultRule(Fault.DUPLICATE, "execution"))),
        slow((FaultRule(Fault.DELAY, "order", bars_late=1),)),
    ],
)
def test_3_fills_answers_and_cancellations_in_any_order_come_to_the_same(tmp_path, rows):
    rehearse(tmp_path, scene(*rows, settings=SHARED))


# -- 4. fills that come late -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("late", [slow(1), 3])
def test_4_a_fill_that_is_told_bars_later_is_not_ordered_again(tmp_path, late):
    """Neither comparison nor verification helps: the run has to wait for what it has sent."""
    slow = replace(LIMITS, every_s=60.0, verify_s=60.0)
    rows = (FaultRule(Fault.DELAY, "execution", bars_late=late), FaultRule(Fault.DELAY, "order", bars_late=late))
    rehearsal = rehearse(tmp_path, scene(*rows, bars=20, limits=slow))
    decisions = [decision for _, decision in rehearsal.journal.read_decisions(rehearsal.run_id)]
    assert late == 1 or any(Verdict.ORDER_WORKING in decision.verdicts for decision in decisions)


# -- 5. the process ends ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [False, True], ids=["before-sending", "after-sending"])
@pytest.mark.parametrize("settings", [slow({}, name="whole"), pytest.param(SHARED, id="in-part")])
def test_5_a_process_that_ends_around_the_sending_of_an_order_goes_on_with_it_once(tmp_path, sent, settings):
    rehearse(tmp_path, scene(settings=settings, bars=24), breaking(sent))


@pytest.mark.slow
def test_5_and_so_it_does_where_the_venue_restarts_meanwhile_and_forgets_closed_orders(tmp_path):
    rows = (FaultRule(Fault.RESTART, CLOSE, every=2), FaultRule(Fault.LOSE, CREATE, every=2))
    rehearse(tmp_path, scene(*rows, bars=24), breaking(sent=True))


def test_5_a_fill_that_nobody_heard_before_hours_went_by_is_found_after_a_restart(tmp_path):
    """Private pushes and lists are silent, bars go on, the process ends: the fill is older than the newest bar by hours."""
    silent = [FaultRule(Fault.FREEZE, topic, first=2, last=8) for topic in ("order", "execution", "position", "wallet")]
    deaf = FaultRule(Fault.ANSWER, "GET /v5/execution/list", first=2, last=8, code=10016)

    async def end(rehearsal: Rehearsal) -> None:
        def kill(_step: Any) -> None:
            if rehearsal.venue.tape.closes == 8 and rehearsal.lives == 1:
                raise Crash("hours later")

        rehearsal.on_step = kill
        await rehearsal.play()
        assert rehearsal.lives == 2

    rehearse(tmp_path, scene(*silent, deaf, bars=16), end)


# -- 6. a person trades too ------------------------------------------------------------------------------------------


def by_hand(side: Side, quantity: str, symbol: str = SYMBOL, name: str = "hand") -> Order:
    return Order(f"{name}-{side}", symbol, side, Decimal(quantity), T0, T0)


WIDE = {
    "strategy": {"name": "tests.bot.cli.strategies:TakesTurns", "parameters": {"bars": 2}},
    "risk": {"stop_loss": 0.5, "max_position": 0.3},
}


def test_6_a_position_opened_by_hand_while_the_bot_is_up_is_left_alone_until_it_is_gone(tmp_path):
    async def meddle(rehearsal: Rehearsal) -> None:
        async def between() -> None:
            closes = rehearsal.venue.tape.closes
            if closes in (5, 10):
                await rehearsal.by_hand(by_hand(Side.BUY if closes == 5 else Side.SELL, "0.002"))
                await asyncio.sleep(5 * LIMITS.retry_s)

        rehearsal.between = between
        await rehearsal.play()

    rehearsal = rehearse(tmp_path, scene(bars=18, settings=WIDE), meddle, transferred=None)
    standings = events_of(rehearsal, AccountStanding)
    assert any(standing.foreign == ALONE for standing in standings)
    assert standings[-1].known and not standings[-1].foreign
    decisions = [decision for _, decision in rehearsal.journal.read_decisions(rehearsal.run_id)]
    assert any(Verdict.FOREIGN in decision.verdicts for decision in decisions)


@pytest.mark.slow
def test_6_a_position_closed_by_hand_while_the_bot_is_down_is_not_taken_for_its_own(tmp_path):
    async def down(rehearsal: Rehearsal) -> None:
        await rehearsal.play(6)
        held = rehearsal.run.engine.portfolio.positions[SYMBOL].quantity
        side = Side.SELL if held > 0 else Side.BUY
        await rehearsal.by_hand(by_hand(side, "0.002"))
        rehearsal.unsettled = ""
        task = asyncio.create_task(rehearsal.play(3))
        await task
        assert "holds" in rehearsal.unsettled or events_of(rehearsal, AccountStanding)[-1].foreign == ALONE
        orders = len(orders_of(rehearsal))
        await rehearsal.play(3)
        assert len(orders_of(rehearsal)) == orders, "an order of a symbol that somebody else trades"
        await rehearsal.by_hand(by_hand(Side.BUY if side is Side.SELL else Side.SELL, "0.002"))
        await rehearsal.play(6)

    rehearse(tmp_path, scene(bars=18, settings=WIDE), down, transferred=None)


@pytest.mark.slow
def test_6_another_symbol_traded_by_hand_only_moves_money(tmp_path):
    async def meddle(rehearsal: Rehearsal) -> None:
        await rehearsal.play(5)
        await rehearsal.by_hand(by_hand(Side.BUY, "1", "SOLUSDT"))
        await rehearsal.play(5)

    rehearsal = rehearse(tmp_path, scene(extra=("SOLUSDT",)), meddle, transferred=None)
    assert not any(standing.foreign for standing in events_of(rehearsal, AccountStanding))


# -- 7. lists that leave out -----------------------------------------------------------------------------------------


def test_7_lists_of_orders_that_leave_out_what_is_closed_do_not_end_an_order_that_was_filled(tmp_path):
    rows = [FaultRule(Fault.OMIT, f"GET /v5/order/{name}", keep=0) for name in ("history", "realtime")]
    rehearse(tmp_path, scene(*rows, FaultRule(Fault.LOSE, CREATE, every=3)))


@pytest.mark.slow
def test_7_a_list_of_fills_that_leaves_some_out_is_asked_again_before_anything_is_believed(tmp_path):
    rows = (FaultRule(Fault.OMIT, "GET /v5/execution/list", every=3), FaultRule(Fault.DROP, "execution", every=2))
    rehearse(tmp_path, scene(*rows, bars=20), least=2)


# -- 8. sockets that are open and say nothing ------------------------------------------------------------------------


@pytest.mark.parametrize("topic", ["kline.*", slow("execution"), slow("order")])
def test_8_a_topic_that_is_silent_while_pings_are_answered_costs_nothing(tmp_path, topic):
    rehearse(tmp_path, scene(FaultRule(Fault.FREEZE, topic, first=3, last=7)))


@pytest.mark.slow
def test_8_a_reconnection_whose_subscription_is_never_answered_is_made_again(tmp_path):
    rows = (FaultRule(Fault.CUT, CLOSE, after=3, times=1), FaultRule(Fault.DROP, "subscribe", after=2, times=2))
    rehearse(tmp_path, scene(*rows))


def test_8_sockets_that_flap_at_every_close_cost_no_bar_and_no_fill(tmp_path):
    # With a line that is hardly ever there little is opened.
    rehearse(tmp_path, scene(FaultRule(Fault.CUT, CLOSE)), least=1)


# -- 9. candles ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rule",
    [
        FaultRule(Fault.DROP, "kline.*", every=3),
        slow(FaultRule(Fault.DUPLICATE, "kline.*")),
        slow(FaultRule(Fault.REORDER, "kline.*", every=3)),
        slow(FaultRule(Fault.REVISE, "kline.*", every=3, bars_late=1)),
        slow(FaultRule(Fault.DELAY, "kline.*", every=4, bars_late=2)),
    ],
)
def test_9_candles_that_come_wrong_are_decided_on_once_and_in_order(tmp_path, rule):
    rehearse(tmp_path, scene(rule, symbols=(SYMBOL, "ETHUSDT"), bars=10))


@pytest.mark.slow
def test_9_a_hole_of_the_whole_exchange_is_told_and_the_run_goes_on_after_it(tmp_path):
    rehearse(tmp_path, scene(FaultRule(Fault.SKIP, "kline.*", first=4, last=6), bars=14))


# -- 10. REST --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rows",
    [
        (FaultRule(Fault.OMIT, "GET /v5/market/kline", every=2, keep=1), FaultRule(Fault.CUT, CLOSE, every=3)),
        slow((FaultRule(Fault.ANSWER, "GET /v5/*", every=4, code=10006), FaultRule(Fault.CUT, CLOSE, every=3))),
        slow((FaultRule(Fault.LOSE, CREATE, every=2, code=10016),)),
        slow((FaultRule(Fault.ANSWER, CREATE, every=2, code=10016),)),
    ],
)
def test_10_replies_that_are_short_limited_or_of_a_server_that_restarts_cost_nothing(tmp_path, rows):
    """The list of candles always holds the one that is open, which is none to decide on."""
    rehearse(tmp_path, scene(*rows))


# -- 11. clocks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("off", [slow(3000), -3000])
def test_11_a_clock_that_jumps_and_jumps_back_costs_no_order(tmp_path, off):
    rows = (
        FaultRule(Fault.SKEW, CLOSE, first=3, times=1, milliseconds=off),
        FaultRule(Fault.SKEW, CLOSE, first=8, times=1, milliseconds=0),
    )
    rehearse(tmp_path, scene(*rows))


# 12. Power loss while a model or the memory is saved: tests/crash/test_memory_kills.py, tests/crash/test_swap_kills.py.

# -- 13. stops -------------------------------------------------------------------------------------------------------

STANDING = {
    "strategy": {"name": "tests.bot.cli.strategies:TakesTurns", "parameters": {"bars": 3}},
    "risk": {"stop_loss": 0.2, "max_position": 0.3},
}


OFTEN = replace(LIMITS, every_s=0.03)


def cancelling(at: Sequence[int]) -> Part:
    """Play while the venue takes the stop loss away after some bars."""

    async def play(rehearsal: Rehearsal) -> None:
        async def between() -> None:
            exchange = exchange_of(rehearsal.venue)
            (view,) = exchange.positions(SYMBOL)
            if rehearsal.venue.tape.closes in at and view.stop_loss is not None:
                exchange.protect(BookKey(Category.LINEAR, SYMBOL), stop_loss=Decimal(0))
                await asyncio.sleep(20 * OFTEN.every_s)

        rehearsal.between = between
        await rehearsal.play()

    return play


def test_13_a_stop_loss_that_the_venue_takes_away_is_set_again(tmp_path):
    rehearsal = rehearse(tmp_path, scene(settings=STANDING, bars=14, limits=OFTEN), cancelling(range(3, 10)))
    assert any("no stop loss" in notice.text for notice in events_of(rehearsal, Notice))


@pytest.mark.slow
def test_13_a_position_whose_stop_loss_the_venue_does_not_take_is_closed(tmp_path):
    refused = FaultRule(Fault.ANSWER, "POST /v5/position/trading-stop", code=10001)
    rehearsal = rehearse(tmp_path, scene(refused, settings=STANDING, bars=14, limits=OFTEN), cancelling(range(3, 10)))
    assert events_of(rehearsal, EmergencyOrder)


def test_13_a_stop_that_is_reached_while_the_line_is_down_is_booked_when_it_is_back(tmp_path):
    silent = [FaultRule(Fault.FREEZE, topic, first=1, last=9) for topic in ("order", "execution", "position", "wallet")]
    near = {"risk": {"stop_loss": 0.001}}
    rehearsal = rehearse(tmp_path, scene(*silent, FaultRule(Fault.CUT, CLOSE, every=4), settings=near, bars=14))
    stops = [fill for _, fill in rehearsal.journal.read_executions(rehearsal.run_id) if fill.kind == "stop_loss"]
    assert stops


# -- 14. funding -----------------------------------------------------------------------------------------------------


def test_14_funding_that_is_settled_while_the_bot_is_down_is_paid_once(tmp_path):
    async def down(rehearsal: Rehearsal) -> None:
        await rehearsal.play(7)
        await rehearsal.venue.step(2)
        await rehearsal.play(6)

    long = {**STANDING, "strategy": {**STANDING["strategy"], "parameters": {"bars": 4}}}
    rehearsal = rehearse(tmp_path, scene(bars=18, settings=long), down)
    assert events_of(rehearsal, Funding)


# Trading rules that change over night: tests/bot/market/test_instrument_book.py.

# -- 15. long runs ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_15_a_long_run_keeps_no_more_tasks_than_it_began_with(tmp_path):
    counts: list[int] = []

    async def watched(rehearsal: Rehearsal) -> None:
        async def between() -> None:
            if rehearsal.venue.tape.closes % 50 == 20:
                await asyncio.sleep(2 * LIMITS.verify_s)
                counts.append(len(asyncio.all_tasks()))

        rehearsal.between = between
        await rehearsal.play()

    rehearse(tmp_path, scene(FaultRule(Fault.CUT, CLOSE, every=20), bars=400), watched)
    assert max(counts[-3:]) <= max(counts[:3]) + 2, counts


# -- 16. halts -------------------------------------------------------------------------------------------------------


def test_16_a_halt_by_loss_is_still_there_after_a_restart(tmp_path):
    losing = {"risk": {"daily_loss_limit": 0.0005, "on_daily_loss": "flatten", "stop_loss": 0.01}}

    async def ended(rehearsal: Rehearsal) -> None:
        state = lambda: rehearsal.run.engine.core.risk.state  # noqa: E731
        halted: list[tuple[int, int | None]] = []

        def kill(_step: Any) -> None:
            if state().halted_by_loss and rehearsal.lives < 4:
                halted.append((rehearsal.lives, state().day))
                raise Crash("halted")

        rehearsal.on_step = kill
        await rehearsal.play()
        assert len(halted) >= 1

    rehearsal = rehearse(tmp_path, scene(bars=30, settings=losing), ended, least=2)
    assert rehearsal.lives >= 2
    halted_day = None
    for _, decision in rehearsal.journal.read_decisions(rehearsal.run_id):
        day = (decision.close_time - 1) // DAY_MS
        if Verdict.HALTED_BY_LOSS in decision.verdicts:
            halted_day = day
        elif day == halted_day:
            raise AssertionError("a halt by loss was forgotten within its day")
        if day == halted_day:
            assert all(order.reduce_only for order in decision.orders)
    assert halted_day is not None


# -- all at once -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, slow(1), slow(2)])
def test_a_few_seeds_of_the_campaign_break_nothing(tmp_path, seed):
    """``make chaos`` plays hundreds, of five hundred bars."""

    async def play(rehearsal: Rehearsal) -> None:
        await rehearsal.play(entry=Accidents(rehearsal, seed, 0.02).enter)

    rehearse(tmp_path, scene_of(seed, 40), play)


@pytest.mark.slow
def test_sockets_cut_every_twenty_bars_for_two_thousand_bars_cost_no_bar_and_no_fill(tmp_path):
    """No bar missed, doubled or out of order; every fill booked; audit 0."""
    rehearsal = rehearse(tmp_path, scene(FaultRule(Fault.CUT, CLOSE, every=20), bars=2_000))
    assert rehearsal.venue.faults_struck == 100
    decided = rehearsal.journal.read_bars(rehearsal.run_id, symbol=SYMBOL)
    assert len(decided) == 2_000
