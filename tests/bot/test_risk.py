"""The risk layer: every verdict, limits that hold, halts that survive, levels and ids."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bot.execution.instruments import Instrument, exact
from bot.orders import OperatorAction, OperatorCommand, Order, OrderType, Side, Verdict
from bot.portfolio import Portfolio
from bot.risk import LossAction, RiskLayer, RiskLimits, RiskState, client_order_id, run_token
from strategies.bars import DAY_MS, HOUR_MS
from strategies.base import Signal
from tests.bot.scenes import START, A, B, C, bar, execution, instruments

BUY, SELL = Side.BUY, Side.SELL
PLAIN = RiskLimits(daily_loss_limit=0.0, stop_loss=0.0, no_trade_band=0.0)


class Desk:
    """A risk layer and the account that it looks after, asked about one bar at a time at a price of 100."""

    def __init__(self, limits: RiskLimits = PLAIN, *symbols: str, rules: dict[str, Instrument] | None = None) -> None:
        self.rules = rules or instruments(*(symbols or (A,)))
        self.portfolio = Portfolio(Decimal(10_000), self.rules)
        self.risk = RiskLayer(limits, self.rules, run_token="token0")
        self.number = 0

    def hold(self, quantity: str, symbol: str = A, price: str = "100") -> None:
        """Have a position."""
        side = SELL if quantity.startswith("-") else BUY
        self.portfolio.apply_execution(execution(side, quantity.lstrip("-"), price, symbol=symbol))

    def ask(
        self,
        target: float | None,
        *,
        symbol: str = A,
        price: float = 100.0,
        equity: float = 10_000.0,
        late: bool = False,
        working: bool = False,
        stop: float | None = None,
        take: float | None = None,
    ) -> tuple[Order | None, list[Verdict]]:
        """The order for a target, and the verdicts."""
        self.number += 1
        seen = bar(self.number, price, symbol=symbol)
        self.portfolio.mark(symbol, price)
        signal = Signal(symbol, seen.open_time, target, stop_distance=stop, target_distance=take)
        orders, verdicts = self.risk.review(signal, seen, self.portfolio, equity, late=late, working=working)
        assert len(orders) <= 1
        return orders[0] if orders else None, list(verdicts)

    def tell(self, action: OperatorAction) -> None:
        self.risk.command(OperatorCommand(action))


# -- one test for every verdict --------------------------------------------------------------------------


def test_a_target_is_followed_by_one_market_order_that_leads_to_it() -> None:
    order, verdicts = Desk().ask(0.5)
    assert verdicts == [Verdict.FOLLOWED]
    seen = bar(1)
    assert order == Order(
        client_order_id=client_order_id("token0", A, seen.open_time),
        symbol=A,
        side=BUY,
        quantity=Decimal(50),
        decided_at=seen.close_time,
        bar_open_time=seen.open_time,
        order_type=OrderType.MARKET,
    )


def test_a_position_on_target_is_left_alone() -> None:
    desk = Desk()
    assert desk.ask(0.0) == (None, [Verdict.ON_TARGET])
    desk.hold("50")
    assert desk.ask(0.5) == (None, [Verdict.ON_TARGET])


def test_a_change_within_the_band_is_not_traded_but_leaving_and_turning_are() -> None:
    desk = Desk(RiskLimits(daily_loss_limit=0.0, stop_loss=0.0, no_trade_band=0.1))
    desk.hold("50")
    assert desk.ask(0.59) == (None, [Verdict.WITHIN_BAND])
    assert desk.ask(0.41) == (None, [Verdict.WITHIN_BAND])
    assert desk.ask(0.61)[1] == [Verdict.FOLLOWED]
    assert desk.ask(0.39)[1] == [Verdict.FOLLOWED]
    assert desk.ask(0.0)[1] == [Verdict.FOLLOWED]
    assert desk.ask(-0.01)[1] == [Verdict.FOLLOWED]


@pytest.mark.parametrize("answer", [None, float("nan")])
def test_an_unknown_answer_holds_the_position_and_what_is_not_a_number_is_unknown(answer: float | None) -> None:
    desk = Desk()
    assert desk.ask(answer) == (None, [Verdict.UNKNOWN_HELD])
    desk.hold("50")
    assert desk.ask(answer) == (None, [Verdict.UNKNOWN_HELD])
    desk.tell(OperatorAction.HALT)
    assert desk.ask(answer) == (None, [Verdict.HALTED_BY_OPERATOR, Verdict.UNKNOWN_HELD])


@pytest.mark.parametrize("target", [0.9, -0.9, float("inf"), float("-inf")])
def test_a_target_beyond_the_largest_position_is_clipped_to_it(target: float) -> None:
    order, verdicts = Desk(RiskLimits(max_position=0.3, daily_loss_limit=0.0, stop_loss=0.0)).ask(target)
    assert verdicts == [Verdict.CLIPPED_POSITION, Verdict.FOLLOWED]
    assert order is not None
    assert order.signed_quantity == (30 if target > 0 else -30)


def test_a_target_beyond_the_leverage_left_by_other_symbols_is_clipped_to_that() -> None:
    desk = Desk(PLAIN, A, B)
    desk.hold("-70", B)
    order, verdicts = desk.ask(1.0)
    assert verdicts == [Verdict.CLIPPED_LEVERAGE, Verdict.FOLLOWED]
    assert order is not None
    assert order.quantity == 30
    desk.hold("-50", B)
    assert desk.ask(1.0) == (None, [Verdict.CLIPPED_LEVERAGE, Verdict.ON_TARGET])
    assert desk.ask(0.0) == (None, [Verdict.ON_TARGET])


def levered(*maximum: float) -> dict[str, Instrument]:
    """Rules of symbols with these largest leverages."""
    rules = instruments(*(A, B, C)[: len(maximum)])
    return {
        symbol: msgspec.structs.replace(rule, maximum_leverage=exact(largest))
        for (symbol, rule), largest in zip(rules.items(), maximum, strict=True)
    }


@pytest.mark.parametrize("target", [1.4, -1.4])
def test_a_target_beyond_the_largest_leverage_of_its_symbol_is_clipped_to_it(target: float) -> None:
    """Alone or one of several, and whatever the account as a whole may do."""
    limits = RiskLimits(max_position=2.0, max_leverage=5.0, daily_loss_limit=0.0, stop_loss=0.0, no_trade_band=0.0)
    for rules in (levered(0.5), levered(0.5, 9.0)):
        desk = Desk(limits, rules=rules)
        order, verdicts = desk.ask(target)
        assert verdicts == [Verdict.CLIPPED_SYMBOL_LEVERAGE, Verdict.FOLLOWED]
        assert order is not None and order.signed_quantity == (50 if target > 0 else -50)
    order, verdicts = desk.ask(target, symbol=B)
    assert verdicts == [Verdict.FOLLOWED] and order is not None and order.quantity == 140
    both = Desk(RiskLimits(max_position=0.8, max_leverage=0.4), rules=levered(0.5)).ask(target)[1]
    assert both == [
        Verdict.CLIPPED_POSITION,
        Verdict.CLIPPED_SYMBOL_LEVERAGE,
        Verdict.CLIPPED_LEVERAGE,
        Verdict.FOLLOWED,
    ]


@pytest.mark.parametrize("side", ["", "-"])
def test_a_position_that_outgrew_its_largest_leverage_is_brought_back_whatever_the_answer(side: str) -> None:
    """Beyond the band, for within it every bar would cost fees; and by an order that only reduces."""
    desk = Desk(RiskLimits(daily_loss_limit=0.0, stop_loss=0.0, no_trade_band=0.1), rules=levered(1.0, 1.0))
    desk.hold(f"{side}100")
    cut = [Verdict.CLIPPED_SYMBOL_LEVERAGE, Verdict.FOLLOWED]
    for answer in (None, float("nan")):
        assert desk.ask(answer, equity=9_100.0) == (None, [Verdict.UNKNOWN_HELD])
        assert desk.ask(answer, equity=8_000.0, working=True) == (None, [Verdict.UNKNOWN_HELD])
        for late in (False, True):
            order, verdicts = desk.ask(answer, equity=8_000.0, late=late)
            assert verdicts == ([Verdict.LATE_BAR, *cut] if late else cut)
            assert order is not None and order.reduce_only and abs(order.signed_quantity) == 20
    order, verdicts = desk.ask(float(f"{side}1"), equity=8_000.0)
    assert verdicts == [Verdict.FOLLOWED] and order is not None and order.quantity == 20
    desk.tell(OperatorAction.HALT)
    assert desk.ask(None, equity=8_000.0)[1] == [Verdict.HALTED_BY_OPERATOR, *cut]
    desk.tell(OperatorAction.FLATTEN)
    order, verdicts = desk.ask(None, equity=8_000.0)
    assert verdicts == [Verdict.FLATTENED_BY_OPERATOR, Verdict.FOLLOWED]
    assert order is not None and order.quantity == 100


@given(
    st.lists(st.tuples(st.one_of(st.none(), st.floats(-3.0, 3.0)), st.floats(0.9, 1.1)), max_size=20),
    st.floats(0.3, 3.0),
    st.floats(0.0, 0.5),
    st.booleans(),
)
def test_the_leverage_of_a_symbol_stays_below_its_largest_and_the_band(
    answers: list[tuple[float | None, float]], maximum: float, band: float, alone: bool
) -> None:
    """At the close of every decision, its order filled there, whatever is asked and however the price moves."""
    limits = RiskLimits(5.0, 5.0, daily_loss_limit=0.0, stop_loss=0.0, no_trade_band=band)
    desk = Desk(limits, rules=levered(maximum) if alone else levered(maximum, 5.0))
    price = 100.0
    for target, move in answers:
        price *= move
        desk.portfolio.mark(A, price)
        equity = desk.portfolio.equity
        if equity <= 0.0:
            return
        held = abs(desk.portfolio.notional(A))
        order, verdicts = desk.ask(target, price=price, equity=equity)
        if order is not None:
            desk.hold(str(order.signed_quantity), price=str(exact(price)))
        leverage = abs(desk.portfolio.notional(A)) / equity
        clipped = Verdict.BELOW_MINIMUM in verdicts
        assert leverage <= (maximum + band) * (1 + 1e-9) or clipped
        if order is not None:
            assert leverage <= maximum * (1 + 1e-9) or abs(desk.portfolio.notional(A)) < held


def test_an_order_beyond_the_largest_market_order_is_clipped_to_whole_lots_of_it() -> None:
    rules = {A: Instrument(A, lot_size=Decimal("0.1"), maximum_market_quantity=Decimal("20.05"))}
    order, verdicts = Desk(rules=rules).ask(1.0)
    assert verdicts == [Verdict.CLIPPED_QUANTITY, Verdict.FOLLOWED]
    assert order is not None
    assert order.quantity == 20


def test_a_turn_that_the_largest_market_order_cuts_short_is_an_exit_and_keeps_the_levels_in_force() -> None:
    """Were it to carry the levels of the other side, they would take the rest out at once."""
    rules = {A: Instrument(A, maximum_market_quantity=Decimal(20))}
    desk = Desk(RiskLimits(daily_loss_limit=0.0, stop_loss=0.05), rules=rules)
    desk.hold("50")
    order, verdicts = desk.ask(-1.0)
    assert verdicts == [Verdict.CLIPPED_QUANTITY, Verdict.FOLLOWED]
    assert order is not None
    assert (order.side, order.quantity, order.reduce_only, order.stop_loss) == (SELL, 20, True, None)


@pytest.mark.parametrize(("quantity", "notional"), [("60", "0"), ("0.001", "5001")])
def test_an_order_below_the_minimum_is_not_sent_unless_it_closes_the_position(quantity: str, notional: str) -> None:
    rules = {A: Instrument(A, minimum_quantity=Decimal(quantity), minimum_notional=Decimal(notional))}
    desk = Desk(rules=rules)
    assert desk.ask(0.5) == (None, [Verdict.BELOW_MINIMUM])
    desk.hold("50")
    order, verdicts = desk.ask(0.0)
    assert verdicts == [Verdict.FOLLOWED]
    assert order is not None
    assert (order.quantity, order.reduce_only) == (50, True)


def test_a_late_bar_reduces_and_closes_but_never_opens_adds_or_turns() -> None:
    desk = Desk()
    assert desk.ask(0.5, late=True) == (None, [Verdict.LATE_BAR, Verdict.ON_TARGET])
    desk.hold("50")
    assert desk.ask(0.9, late=True) == (None, [Verdict.LATE_BAR, Verdict.ON_TARGET])
    for target, quantity in ((0.2, 30), (-1.0, 50)):
        order, verdicts = desk.ask(target, late=True)
        assert verdicts == [Verdict.LATE_BAR, Verdict.FOLLOWED]
        assert order is not None
        assert (order.signed_quantity, order.reduce_only) == (-quantity, True)


def test_an_unavailable_symbol_may_only_be_left_until_it_is_back() -> None:
    desk = Desk(PLAIN, A, B)
    desk.risk.set_available(A, False)
    assert desk.ask(0.5) == (None, [Verdict.SYMBOL_UNAVAILABLE, Verdict.ON_TARGET])
    assert desk.ask(0.5, symbol=B)[1] == [Verdict.FOLLOWED]
    desk.risk.set_available(A, True)
    assert desk.ask(0.5)[1] == [Verdict.FOLLOWED]


def test_a_halt_by_the_operator_lets_positions_only_shrink_until_resumed() -> None:
    desk = Desk()
    desk.tell(OperatorAction.HALT)
    assert desk.ask(0.5) == (None, [Verdict.HALTED_BY_OPERATOR, Verdict.ON_TARGET])
    desk.hold("50")
    order, verdicts = desk.ask(0.1)
    assert verdicts == [Verdict.HALTED_BY_OPERATOR, Verdict.FOLLOWED]
    assert order is not None
    assert order.reduce_only
    desk.tell(OperatorAction.RESUME)
    assert desk.ask(0.9)[1] == [Verdict.FOLLOWED]


@pytest.mark.parametrize("target", [1.0, -1.0, None])
def test_an_order_to_flatten_closes_whatever_the_strategy_wants_and_halts(target: float | None) -> None:
    desk = Desk()
    desk.hold("50")
    desk.tell(OperatorAction.FLATTEN)
    order, verdicts = desk.ask(target)
    assert verdicts == [Verdict.FLATTENED_BY_OPERATOR, Verdict.FOLLOWED]
    assert order is not None
    assert (order.signed_quantity, order.reduce_only) == (-50, True)
    desk.hold("-50")
    assert desk.ask(1.0) == (None, [Verdict.FLATTENED_BY_OPERATOR, Verdict.ON_TARGET])


def test_nothing_is_ordered_while_an_earlier_order_works() -> None:
    desk = Desk()
    assert desk.ask(0.5, working=True) == (None, [Verdict.ORDER_WORKING])
    desk.hold("50")
    desk.tell(OperatorAction.FLATTEN)
    assert desk.ask(0.5, working=True) == (None, [Verdict.FLATTENED_BY_OPERATOR, Verdict.ORDER_WORKING])


@pytest.mark.parametrize("target", [1.0, None])
def test_a_bankrupt_account_is_closed_out_whatever_the_strategy_wants(target: float | None) -> None:
    desk = Desk()
    desk.hold("50")
    order, verdicts = desk.ask(target, equity=-1.0)
    assert verdicts == [Verdict.BANKRUPT, Verdict.FOLLOWED]
    assert order is not None
    assert (order.signed_quantity, order.reduce_only) == (-50, True)
    desk.hold("-50")
    assert desk.ask(target, equity=0.0) == (None, [Verdict.BANKRUPT, Verdict.ON_TARGET])


# -- the daily loss --------------------------------------------------------------------------------------


def daily(action: LossAction = LossAction.FLATTEN) -> Desk:
    desk = Desk(RiskLimits(daily_loss_limit=0.1, on_daily_loss=action, stop_loss=0.0, no_trade_band=0.0))
    desk.hold("50")
    return desk


def watch(desk: Desk, hours: Sequence[float], equity: Sequence[float]) -> list[bool]:
    """Whether the account is halted by loss after each of some batches."""
    found = []
    for hour, value in zip(hours, equity, strict=True):
        desk.risk.observe_equity(START + int(hour * HOUR_MS), value)
        found.append(desk.risk.state.halted_by_loss)
    return found


def test_the_daily_loss_limit_flattens_and_holds_until_the_day_ends() -> None:
    desk = daily()
    assert watch(desk, [1, 2, 3, 4], [10_000.0, 9_001.0, 9_000.0, 9_900.0]) == [False, False, True, True]
    order, verdicts = desk.ask(1.0)
    assert verdicts == [Verdict.HALTED_BY_LOSS, Verdict.FOLLOWED]
    assert order is not None
    assert (order.signed_quantity, order.reduce_only) == (-50, True)
    assert watch(desk, [24, 25], [9_900.0, 9_900.0]) == [True, False]
    assert desk.ask(1.0)[1] == [Verdict.FOLLOWED]


def test_the_daily_loss_limit_may_leave_positions_open_that_then_only_shrink() -> None:
    desk = daily(LossAction.REDUCE_ONLY)
    assert watch(desk, [1, 2], [10_000.0, 8_000.0]) == [False, True]
    assert desk.ask(1.0) == (None, [Verdict.HALTED_BY_LOSS, Verdict.ON_TARGET])
    order, _ = desk.ask(0.2)
    assert order is not None
    assert (order.signed_quantity, order.reduce_only) == (-30, True)


def test_a_day_begins_with_the_equity_of_the_last_batch_of_the_day_before() -> None:
    """So the loss of its first bar counts, and daily bars can reach the limit at all."""
    assert watch(daily(), [23, 24, 25], [10_000.0, 10_000.0, 8_900.0]) == [False, False, True]
    assert watch(daily(), [24, 48, 72], [10_000.0, 8_900.0, 8_800.0]) == [False, True, False]


def test_a_late_batch_of_the_day_before_neither_ends_a_halt_nor_moves_the_day() -> None:
    assert watch(daily(), [24, 26, 27, 23, 28], [10_000.0, 9_500.0, 8_900.0, 8_900.0, 8_900.0])[2:] == [True] * 3


def test_resuming_forgives_the_loss_so_far_and_counts_anew_from_there() -> None:
    desk = daily()
    watch(desk, [1, 2], [10_000.0, 8_900.0])
    desk.tell(OperatorAction.RESUME)
    assert watch(desk, [3, 4, 5], [8_500.0, 8_011.0, 8_010.0]) == [False, False, True]


def test_no_limit_never_halts() -> None:
    assert watch(Desk(), [1, 2], [10_000.0, 1.0]) == [False, False]


@pytest.mark.parametrize("cut", [1, 2, 3, 4])
def test_halts_survive_a_crash(cut: int) -> None:
    """Operator's halt, daily loss, first equity of the day, unavailable symbols and orders on their way."""
    events = [
        lambda desk: watch(desk, [1, 2], [10_000.0, 9_500.0]),
        lambda desk: desk.risk.set_available(A, False),
        lambda desk: watch(desk, [3], [9_000.0]),
        lambda desk: desk.tell(OperatorAction.HALT),
        lambda desk: watch(desk, [4, 25], [9_100.0, 9_100.0]),
    ]
    unbroken, broken = daily(), daily()
    unbroken.ask(1.0)
    broken.ask(1.0)
    for number, event in enumerate(events):
        if number == cut:
            written = msgspec.json.encode(broken.risk.state)
            broken = daily()
            broken.risk.restore(msgspec.json.decode(written, type=RiskState))
        event(unbroken)
        event(broken)
        assert broken.risk.state == unbroken.risk.state
        assert broken.ask(1.0)[1] == unbroken.ask(1.0)[1]


# -- limits that hold ------------------------------------------------------------------------------------

targets = st.floats(-1.5, 1.5)
prices = st.integers(1, 10**7).map(lambda cents: cents / 100)


limits_of = st.floats(0.1, 3.0)
positions = st.integers(-(10**6), 10**6)


@given(targets, prices, st.floats(1.0, 1e8), limits_of, limits_of, limits_of, positions)
def test_lots_never_exceed_the_target_nor_the_limits(
    target: float, price: float, equity: float, position: float, leverage: float, maximum: float, held: int
) -> None:
    limits = RiskLimits(position, leverage, daily_loss_limit=0.0, stop_loss=0.0, no_trade_band=0.0)
    desk = Desk(limits, rules=levered(maximum))
    if held:
        desk.hold(str(Decimal(held) / 1000), price=str(exact(price)))
    order, verdicts = desk.ask(target, price=price, equity=equity)
    if order is None or Verdict.CLIPPED_QUANTITY in verdicts:
        return
    after = desk.portfolio.positions[A].quantity + order.signed_quantity
    assert after % Decimal("0.001") == 0
    largest = min(abs(target), position, leverage, maximum) * equity
    assert float(abs(after)) * price <= largest * (1 + 1e-12)
    assert after == 0 or (after > 0) == (target > 0)
    # ... and falls short of it by less than a lot.
    assert float(abs(after) + Decimal("0.001")) * price > largest * (1 - 1e-12)


@given(targets, st.integers(-100, 100), st.sets(st.sampled_from(["late", "unavailable", "halt", "flatten", "loss"])))
def test_whatever_restricts_an_account_its_orders_only_reduce(target: float, held: int, why: set[str]) -> None:
    assume(why)
    desk = Desk(RiskLimits(daily_loss_limit=0.1, on_daily_loss=LossAction.REDUCE_ONLY, no_trade_band=0.0))
    if held:
        desk.hold(str(held))
    if "unavailable" in why:
        desk.risk.set_available(A, False)
    if "halt" in why:
        desk.tell(OperatorAction.HALT)
    if "flatten" in why:
        desk.tell(OperatorAction.FLATTEN)
    if "loss" in why:
        watch(desk, [1, 2], [10_000.0, 5_000.0])
    order, verdicts = desk.ask(target, late="late" in why)
    assert verdicts
    if order is not None:
        assert order.reduce_only
        assert 0 < order.quantity <= abs(held)
        assert order.signed_quantity * held < 0
        assert (order.stop_loss, order.take_profit) == (None, None)
    if "flatten" in why:
        assert (order is not None) == (held != 0)
        assert order is None or order.quantity == abs(held)


@given(
    st.lists(st.tuples(*[st.one_of(st.none(), targets)] * 3), min_size=1, max_size=4),
    st.lists(st.integers(-80, 80), min_size=3, max_size=3),
    st.floats(0.2, 3.0),
    st.sets(st.integers(0, 11)),
)
def test_symbols_that_decide_in_one_batch_never_exceed_the_leverage_together(
    batches: list[tuple[float | None, ...]], held: list[int], leverage: float, unfilled: set[int]
) -> None:
    """Neither with the orders of the batch, nor with those of earlier batches that have not filled yet.

    Where prices moved the account beyond the limit, no order takes it further.
    """
    symbols = (A, B, C)
    desk = Desk(RiskLimits(2.0, leverage, daily_loss_limit=0.0, stop_loss=0.0, no_trade_band=0.0), *symbols)
    for symbol, quantity in zip(symbols, held, strict=True):
        desk.portfolio.mark(symbol, 100.0)
        if quantity:
            desk.hold(str(quantity), symbol)
    working: dict[str, Order] = {}
    asked = 0
    for wanted in batches:
        desk.risk.forget_filled(working)
        for symbol, target in zip(symbols, wanted, strict=True):
            before = gross(desk, working)
            order, _ = desk.ask(target, symbol=symbol, working=symbol in working)
            if order is not None:
                working[symbol] = order
                assert gross(desk, working) <= max(before, leverage * 10_000 * (1 + 1e-12))
        for symbol, order in list(working.items()):
            asked += 1
            if asked not in unfilled:
                desk.hold(str(order.signed_quantity), symbol)
                del working[symbol]


def gross(desk: Desk, working: dict[str, Order]) -> float:
    """Value of all positions at 100, each at its largest before and after its order."""
    total = Decimal(0)
    for symbol, position in desk.portfolio.positions.items():
        order = working.get(symbol)
        after = position.quantity if order is None else position.quantity + order.signed_quantity
        total += 100 * max(abs(position.quantity), abs(after))
    return float(total)


def test_two_symbols_that_both_want_everything_share_it_in_their_order() -> None:
    desk = Desk(RiskLimits(max_leverage=1.5, daily_loss_limit=0.0, stop_loss=0.0), A, B, C)
    for symbol in (A, B, C):
        desk.portfolio.mark(symbol, 100.0)
    found = [desk.ask(target, symbol=symbol) for symbol, target in ((A, 1.0), (B, -1.0), (C, 1.0))]
    assert [None if order is None else order.signed_quantity for order, _ in found] == [100, -50, None]
    assert [verdicts[0] for _, verdicts in found] == [
        Verdict.FOLLOWED,
        Verdict.CLIPPED_LEVERAGE,
        Verdict.CLIPPED_LEVERAGE,
    ]


def test_an_order_that_still_works_counts_against_the_leverage_and_one_that_is_gone_does_not() -> None:
    desk = Desk(PLAIN, A, B)
    desk.portfolio.mark(B, 100.0)
    assert desk.ask(0.8)[0] is not None
    desk.risk.forget_filled({A})
    order, _ = desk.ask(0.8, symbol=B)
    assert order is not None
    assert order.quantity == 20
    desk.risk.forget_filled(())
    order, _ = desk.ask(0.8, symbol=B)
    assert order is not None
    assert order.quantity == 80


# -- levels and ids --------------------------------------------------------------------------------------


def test_levels_come_from_the_signal_else_from_the_limits_and_zero_means_none() -> None:
    desk = Desk(RiskLimits(daily_loss_limit=0.0, stop_loss=0.05, take_profit=0.1))
    levels = [
        (order.stop_loss, order.take_profit)
        for order, _ in (
            desk.ask(1.0),
            desk.ask(-1.0),
            desk.ask(1.0, stop=0.02, take=0.03),
            desk.ask(1.0, stop=0.0, take=0.0),
        )
        if order is not None
    ]
    assert levels == [(95, 110), (105, 90), (98, 103), (None, None)]


@pytest.mark.parametrize("distance", [-0.01, float("nan"), float("inf")])
def test_a_distance_that_cannot_be_one_counts_as_not_asked_for(distance: float) -> None:
    order, _ = Desk(RiskLimits(daily_loss_limit=0.0, stop_loss=0.05)).ask(1.0, stop=distance, take=distance)
    assert order is not None
    assert (order.stop_loss, order.take_profit) == (95, None)


def test_a_level_below_zero_is_no_level() -> None:
    desk = Desk()
    for target, expected in ((1.0, (None, 250)), (-1.0, (250, None))):
        order, _ = desk.ask(target, stop=1.5, take=1.5)
        assert order is not None
        assert (order.stop_loss, order.take_profit) == expected


@given(
    prices,
    st.floats(1e-4, 0.5),
    st.floats(1e-4, 0.5),
    st.sampled_from([1.0, -1.0]),
    st.sampled_from(["0.01", "0.05", "2.5"]),
)
def test_levels_are_rounded_onto_the_tick_towards_the_entry(
    price: float, stop: float, take: float, target: float, tick: str
) -> None:
    """Neither risks more than was asked for, nor waits for more; each is less than a tick away from what was asked for."""
    order, _ = Desk(rules=instruments(A, tick=tick, lot="0.000001")).ask(target, price=price, stop=stop, take=take)
    if order is None:
        return
    close, grid, sign = exact(price), Decimal(tick), order.side.sign
    for level, distance in ((order.stop_loss, -exact(stop)), (order.take_profit, exact(take))):
        asked = close * (1 + sign * distance)
        if level is None:
            assert asked < grid
            continue
        assert level % grid == 0
        nearer = asked - level if distance * sign > 0 else level - asked
        assert 0 <= nearer < grid


def test_an_exact_level_is_not_pushed_by_a_tick_through_the_noise_of_floats() -> None:
    """1.1 * (1 - 0.1) is 0.9900000000000001 in floats, which would round up to 1.00."""
    order, _ = Desk().ask(1.0, price=1.1, stop=0.1)
    assert order is not None
    assert order.stop_loss == Decimal("0.99")


SYMBOLS = [
    "BTCUSDT",
    "BTC-USDT",
    "BTC_USDT",
    "BRK.B",
    "BRKB",
    "1000000BABYDOGEUSDT",
    "1000000BABYDOGEUSDC",
    "ÄÖÜ",
    "^GSPC",
    "x" * 60,
]


def test_client_order_ids_are_unique_over_symbols_and_bars_short_and_of_the_venues_alphabet() -> None:
    token = run_token("paper-20260131-120000-1f3a")
    times = [START, START + 60_000, -DAY_MS, 4_102_444_800_000]
    ids = [client_order_id(token, symbol, time) for symbol in SYMBOLS for time in times]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,36}", each) for each in ids)


def test_client_order_ids_follow_from_run_symbol_and_bar_alone() -> None:
    def ids(run: str) -> list[str]:
        return [client_order_id(run_token(run), symbol, START) for symbol in SYMBOLS]

    assert ids("one") == ids("one")
    assert not set(ids("one")) & set(ids("another"))
    assert client_order_id("abc123", "BTCUSDT", 1_704_067_200_000) == "abc123-BTCUSDT-65920080"


# -- the spot market -------------------------------------------------------------------------------------


def coins(*symbols: str) -> dict[str, Instrument]:
    """Rules of coins that are bought for their own sake."""
    return {
        symbol: msgspec.structs.replace(rules, is_spot=True, minimum_notional=Decimal(5))
        for symbol, rules in instruments(*symbols).items()
    }


@pytest.mark.parametrize("symbols", [(A,), (A, B)])
def test_a_coin_is_never_sold_short(symbols: tuple[str, ...]) -> None:
    desk = Desk(rules=coins(*symbols))
    assert desk.ask(-0.5) == (None, [Verdict.LONG_ONLY, Verdict.ON_TARGET])
    desk.hold("10.0004")
    order, verdicts = desk.ask(-1.0)
    assert order is not None and (order.side, order.quantity) == (SELL, Decimal("10.000"))
    assert verdicts == [Verdict.LONG_ONLY, Verdict.FOLLOWED]


def test_a_coin_has_a_stop_loss_and_no_target_since_the_venue_holds_it_for_one_order_alone() -> None:
    limits = RiskLimits(daily_loss_limit=0.0, stop_loss=0.05, take_profit=0.1, no_trade_band=0.0)
    order, _ = Desk(limits, rules=coins(A)).ask(0.5, stop=0.02)
    assert order is not None and order.take_profit is None
    assert order.stop_loss == Decimal(98)


def test_dust_of_a_coin_neither_is_sold_nor_hinders_a_purchase() -> None:
    desk = Desk(rules=coins(A))
    desk.hold("0.0007")
    assert desk.ask(0.0) == (None, [Verdict.ON_TARGET])
    order, _ = desk.ask(0.5)
    assert order is not None and order.quantity == Decimal(50)
    few = Desk(rules=coins(A))
    few.hold("0.049")
    assert few.ask(0.0) == (None, [Verdict.BELOW_MINIMUM])
    order, _ = few.ask(0.5)
    assert order is not None and order.quantity == Decimal("49.951")
