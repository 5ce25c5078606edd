"""The account: exact books, round trips, funding, and coming back from a journal."""

from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.orders import Execution, ExecutionKind, Funding, Side
from bot.portfolio import ClosedTrade, Portfolio, PortfolioState, Position
from tests.bot.scenes import START, A, B, execution, instruments

CASH = Decimal(10_000)
BOOKED = Execution | Funding


def portfolio_of(*symbols: str) -> Portfolio:
    return Portfolio(CASH, instruments(*(symbols or (A, B))))


def book(portfolio: Portfolio, event: BOOKED) -> ClosedTrade | None:
    if isinstance(event, Execution):
        return portfolio.apply_execution(event)
    portfolio.apply_funding(event)
    return None


@st.composite
def executions(draw: st.DrawFn, number: int = 0) -> Execution:
    quantity = Decimal(draw(st.integers(1, 5_000))) / 1000
    price = Decimal(draw(st.integers(1, 20_000_000))) / 100
    rate = Decimal(draw(st.integers(-50, 100))) / 100_000
    return Execution(
        "f",
        "o",
        draw(st.sampled_from([A, B])),
        draw(st.sampled_from(list(Side))),
        quantity,
        price,
        quantity * price * rate,
        ExecutionKind.MARKET,
        START + number,
    )


@st.composite
def fundings(draw: st.DrawFn) -> Funding:
    rate = Decimal(draw(st.integers(-300, 300))) / 100_000
    return Funding(draw(st.sampled_from([A, B])), rate, Decimal(draw(st.integers(1, 10**7))) / 100, START)


histories = st.lists(st.one_of(executions(), executions(), executions(), fundings()), max_size=30)
marks = st.tuples(st.integers(1, 10**7), st.integers(1, 10**7))


@given(histories, marks)
def test_equity_is_cash_plus_positions_at_their_marks_and_all_profits_add_up_to_it_exactly(
    events: list[BOOKED], at: tuple[int, int]
) -> None:
    """Not to the cent but to the last digit: closed round trips and open ones together are the whole change."""
    portfolio = portfolio_of()
    closed = [trade for event in events if (trade := book(portfolio, event)) is not None]
    mark = dict(zip((A, B), (Decimal(cents) / 100 for cents in at), strict=True))
    equity = portfolio.cash + sum(p.quantity * mark[s] for s, p in portfolio.positions.items())
    still_open = sum(
        p.realised + (p.quantity * mark[s] - p.cost) - p.fees - p.funding for s, p in portfolio.positions.items()
    )
    closed_profit = sum((trade.profit for trade in closed), Decimal(0))
    flows = sum(p.cash_flow + p.quantity * mark[s] - p.fees - p.funding for s, p in portfolio.positions.items())
    assert closed_profit + flows == equity - CASH
    assert still_open == pytest.approx(flows, abs=Decimal("1e-15"))
    for symbol, price in mark.items():
        portfolio.mark(symbol, float(price))
    assert portfolio.equity == pytest.approx(float(equity), rel=1e-12, abs=1e-6)


@given(histories)
def test_positions_fees_and_turnover_are_the_sums_of_the_fills(events: list[BOOKED]) -> None:
    portfolio = portfolio_of()
    for event in events:
        book(portfolio, event)
    fills = [event for event in events if isinstance(event, Execution)]
    for symbol, position in portfolio.positions.items():
        assert position.quantity == sum(fill.signed_quantity for fill in fills if fill.symbol == symbol)
        assert portfolio.lots[symbol] == position.quantity * 1000
    assert portfolio.fees_paid == sum(fill.fee for fill in fills)
    assert portfolio.turnover == sum(fill.quantity * fill.price for fill in fills)


@given(histories, st.data())
def test_a_portfolio_that_went_through_the_journal_goes_on_identically(
    events: list[BOOKED], data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(events)))
    unbroken, before, after = portfolio_of(), portfolio_of(), portfolio_of()
    trades = [book(unbroken, event) for event in events]
    trades_before = [book(before, event) for event in events[:cut]]
    written = msgspec.json.encode(before.state())
    after.restore(msgspec.json.decode(written, type=PortfolioState))
    assert trades_before + [book(after, event) for event in events[cut:]] == trades
    assert after.state() == unbroken.state()
    assert after.equity == unbroken.equity
    assert after.lots == unbroken.lots


def test_a_journalled_state_does_not_move_with_the_account() -> None:
    portfolio = portfolio_of()
    portfolio.apply_execution(execution(Side.BUY, "1", "100"))
    state = portfolio.state()
    portfolio.apply_execution(execution(Side.BUY, "1", "100"))
    assert state.positions[0].quantity == 1
    assert state.cash == CASH - 100


def test_a_round_trip_reports_its_profit_net_of_both_fees_and_funding() -> None:
    portfolio = portfolio_of()
    assert portfolio.apply_execution(execution(Side.BUY, "2", "100", "0.5", time=START)) is None
    paid = portfolio.apply_funding(Funding(A, Decimal("0.001"), Decimal(105), START))
    trade = portfolio.apply_execution(execution(Side.SELL, "2", "110", "0.6", time=START + 7))
    assert paid == Decimal("0.21")
    assert trade == ClosedTrade(
        symbol=A,
        side="long",
        quantity=Decimal(2),
        entry_price=Decimal(100),
        exit_price=Decimal(110),
        opened_at=START,
        closed_at=START + 7,
        profit=Decimal(20) - Decimal("1.1") - Decimal("0.21"),
        fees=Decimal("1.1"),
        funding=Decimal("0.21"),
    )
    assert portfolio.cash == CASH + trade.profit
    assert portfolio.trades_closed == 1


def test_nothing_of_a_round_trip_is_left_in_the_position_that_it_ends() -> None:
    portfolio = portfolio_of()
    portfolio.apply_execution(execution(Side.BUY, "2", "100", "0.5"))
    portfolio.apply_funding(Funding(A, Decimal("0.001"), Decimal(105), START))
    assert all(getattr(portfolio.positions[A], name) for name in ("quantity", "cost", "cash_flow", "fees", "funding"))
    portfolio.apply_execution(execution(Side.SELL, "2", "110", "0.6"))
    assert portfolio.positions[A] == Position(A)
    assert portfolio.equity == float(portfolio.cash)


def test_a_fill_that_turns_a_position_ends_one_round_trip_and_begins_the_next() -> None:
    """Its fee is split by quantity, to the last digit even where the quotient has no end."""
    portfolio = portfolio_of()
    portfolio.apply_execution(execution(Side.BUY, "1", "100", "0.1"))
    trade = portfolio.apply_execution(execution(Side.SELL, "3", "90", "0.1", time=START + 5))
    assert trade is not None
    assert (trade.side, trade.quantity, trade.fees) == ("long", 1, Decimal("0.1") + Decimal("0.033333333333"))
    assert trade.profit == -10 - trade.fees
    position = portfolio.positions[A]
    assert (position.quantity, position.entry_price, position.opened_at) == (-2, 90, START + 5)
    assert position.fees == Decimal("0.066666666667")
    back = portfolio.apply_execution(execution(Side.BUY, "2", "80"))
    assert back is not None
    assert (back.side, back.profit) == ("short", 20 - position.fees - back.fees)
    assert trade.profit + back.profit == portfolio.cash - CASH


def test_entries_and_exits_in_steps_give_average_prices_and_the_largest_size() -> None:
    portfolio = portfolio_of()
    for side, quantity, price in ((Side.SELL, "1", "100"), (Side.SELL, "3", "120"), (Side.BUY, "2", "110")):
        assert portfolio.apply_execution(execution(side, quantity, price)) is None
    position = portfolio.positions[A]
    assert position.entry_price == 115
    assert position.realised == 10
    portfolio.mark(A, 105.0)
    assert portfolio.notional(A) == -210.0
    trade = portfolio.apply_execution(execution(Side.BUY, "2", "100"))
    assert trade is not None
    assert (trade.side, trade.quantity, trade.entry_price, trade.exit_price) == ("short", 4, 115, 105)
    assert trade.profit == 40


def test_longs_pay_positive_funding_shorts_receive_it_and_nobody_pays_without_a_position() -> None:
    rate, price = Decimal("0.0001"), Decimal(100)
    long, short, flat = portfolio_of(), portfolio_of(), portfolio_of()
    long.apply_execution(execution(Side.BUY, "10", "100"))
    short.apply_execution(execution(Side.SELL, "10", "100"))
    settled = [each.apply_funding(Funding(A, rate, price, START)) for each in (long, short, flat)]
    assert settled == [Decimal("0.1"), Decimal("-0.1"), 0]
    assert [each.funding_paid for each in (long, short, flat)] == settled
    assert [each.cash for each in (long, short, flat)] == [CASH - 1000 - settled[0], CASH + 1000 - settled[1], CASH]


def test_gross_notional_leaves_out_one_symbol_and_all_signs() -> None:
    portfolio = portfolio_of()
    portfolio.apply_execution(execution(Side.BUY, "1", "100", symbol=A))
    portfolio.apply_execution(execution(Side.SELL, "2", "50", symbol=B))
    assert portfolio.gross_notional_except(A) == 100.0
    assert portfolio.gross_notional_except(B) == 100.0
    assert portfolio.gross_notional_except("other") == 200.0


def test_a_symbol_without_a_mark_is_valued_at_its_first_fill() -> None:
    portfolio = portfolio_of()
    portfolio.apply_execution(execution(Side.BUY, "1", "100", "1"))
    assert portfolio.equity == 9999.0


def test_money_that_comes_in_counts_at_once_and_is_no_profit():
    portfolio = portfolio_of()
    portfolio.apply_transfer(Decimal(-250))
    assert (portfolio.equity, portfolio.wallet, portfolio.invested) == (9_750.0, 9_750, 9_750)
