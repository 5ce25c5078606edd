"""Isolated margin: when a position is taken over, and that nobody loses more than the margin, nor less."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.engine import AccountSettings, SimulatedEngine
from bot.execution.fills import PLAIN, BookSide, FillModel, FillRules, MarginMode
from bot.execution.fills.margin import isolated_prices, maintenance_margin
from bot.execution.instruments import Instrument, MarginTier
from bot.orders import ExecutionKind, Order, OrderReason, Side
from bot.risk import RiskLimits
from strategies.bars import Bar
from tests.bot.scenes import FREE, A, B, Scripted, bar, batch, instruments, order

BUY, SELL = Side.BUY, Side.SELL
LIQUIDATION, STOP = ExecutionKind.LIQUIDATION, ExecutionKind.STOP_LOSS
TENFOLD = replace(PLAIN, margin=MarginMode.ISOLATED, leverage=Decimal(10), maintenance_rate=Decimal("0.005"))


def model_of(*orders: Order, rules: FillRules = TENFOLD) -> FillModel:
    model = FillModel(FREE, instruments(A), rules)
    for each in orders:
        model.submit(each)
    return model


def test_the_prices_are_those_of_the_venues_own_example() -> None:
    """Bybit: long 1 BTC at 20,000 with leverage 50 and a maintenance rate of 0.5 % is liquidated at 19,700."""
    instrument = Instrument(A)
    maintenance = maintenance_margin(Decimal(20_000), instrument, Decimal("0.005"))
    assert isolated_prices(Decimal(1), Decimal(20_000), Decimal(50), maintenance, instrument) == (19_700, 19_600)
    assert isolated_prices(Decimal(-1), Decimal(-20_000), Decimal(50), maintenance, instrument) == (20_300, 20_400)


def test_larger_positions_need_the_margin_of_their_tier() -> None:
    tiers = (
        MarginTier(Decimal(1000), Decimal("0.01")),
        MarginTier(Decimal(5000), Decimal("0.02"), Decimal(10)),
    )
    instrument = Instrument(A, margin_tiers=tiers)
    values = [maintenance_margin(Decimal(value), instrument, Decimal(0)) for value in (500, 1000, 2000, 9000)]
    assert values == [5, 10, 30, 170]


@pytest.mark.parametrize(("side", "extreme", "price"), [(BUY, (101.0, 90.5), "90"), (SELL, (109.5, 99.0), "110")])
def test_a_position_is_taken_over_when_the_worst_price_of_a_bar_reaches_it_and_loses_its_margin(
    side: Side, extreme: tuple[float, float], price: str
) -> None:
    model = model_of(order(side, "1"))
    model.on_bars([bar(0)])
    assert model.on_bars([bar(1, 100.0, 109.49, 90.51)]) == []
    (fill,) = model.on_bars([bar(2, 100.0, *extreme)])
    assert (fill.kind, fill.price, fill.quantity) == (LIQUIDATION, Decimal(price), 1)
    assert model.books[A].quantity == 0
    assert model.on_bars([bar(3, 100.0, 200.0, 1.0)]) == []


@pytest.mark.parametrize(
    ("stop", "kind", "price"), [("95", STOP, "95"), ("90.2", LIQUIDATION, "90"), ("85", LIQUIDATION, "90")]
)
def test_whichever_of_stop_and_liquidation_is_nearer_comes_first(stop: str, kind: ExecutionKind, price: str) -> None:
    model = model_of(order(BUY, "1", stop=stop))
    model.on_bars([bar(0)])
    (fill,) = model.on_bars([bar(1, 100.0, low=80.0)])
    assert (fill.kind, fill.price) == (kind, Decimal(price))


def test_a_gap_beyond_the_liquidation_price_takes_the_margin_even_with_a_stop() -> None:
    model = model_of(order(BUY, "1", stop="95"))
    model.on_bars([bar(0)])
    (fill,) = model.on_bars([bar(1, 70.0)])
    assert (fill.kind, fill.price) == (LIQUIDATION, 90)


def test_adding_moves_the_price_with_the_average_entry_and_reducing_does_not() -> None:
    model = model_of(order(BUY, "1"))
    model.on_bars([bar(0, 100.0)])
    model.submit(order(BUY, "1", name="o2"))
    model.on_bars([bar(1, 110.0)])
    assert (model.books[A].liquidation, model.books[A].bankruptcy) == (Decimal("95.03"), Decimal("94.5"))
    model.submit(order(SELL, "1.5", name="o3"))
    model.on_bars([bar(2, 120.0)])
    assert model.books[A].liquidation == Decimal("95.03")
    model.submit(order(SELL, "1", name="o4"))
    model.on_bars([bar(3, 120.0)])
    assert model.books[A].quantity == Decimal("-0.5")
    assert model.books[A].liquidation == Decimal("131.4")


def test_without_leverage_a_long_position_is_safe_from_all_but_ruin() -> None:
    model = model_of(order(BUY, "1"), rules=replace(TENFOLD, leverage=Decimal(0)))
    model.on_bars([bar(0)])
    assert model.on_bars([bar(1, 100.0, low=0.51)]) == []
    assert [fill.kind for fill in model.on_bars([bar(2, 100.0, low=0.5)])] == [LIQUIDATION]


@given(
    st.integers(1, 10**6), st.integers(1, 10**6), st.integers(1, 100), st.integers(0, 200), st.sampled_from(list(Side))
)
def test_liquidation_lies_between_bankruptcy_and_entry(
    lots: int, cents: int, leverage: int, rate: int, side: Side
) -> None:
    instrument = Instrument(A, tick_size=Decimal("0.0001"))
    quantity, entry = side.sign * Decimal(lots) / 1000, Decimal(cents) / 100
    maintenance = maintenance_margin(abs(quantity * entry), instrument, Decimal(rate) / 10_000)
    liquidation, bankruptcy = isolated_prices(quantity, quantity * entry, Decimal(leverage), maintenance, instrument)
    assert bankruptcy is not None
    if liquidation is not None:
        assert side.sign * bankruptcy <= side.sign * liquidation + instrument.tick_size
        assert side.sign * liquidation <= side.sign * entry


def test_a_position_that_can_be_liquidated_is_written_with_its_prices_and_read_back() -> None:
    model, restored = model_of(order(BUY, "1")), model_of()
    model.on_bars([bar(0)])
    text = msgspec.json.encode(model.state())
    restored.restore(msgspec.json.decode(text, type=tuple[BookSide, ...]))
    assert restored.on_bars([bar(1, 100.0, low=80.0)]) == model.on_bars([bar(1, 100.0, low=80.0)])


# -- cross margin ----------------------------------------------------------------------------------------


def crossed(script: dict[tuple[str, int], float], *, stop: float = 0.0) -> SimulatedEngine:
    """An account of 10,000 that may have positions of five times that."""
    rules = replace(PLAIN, margin=MarginMode.CROSS, maintenance_rate=Decimal("0.01"))
    limits = RiskLimits(max_position=5.0, max_leverage=5.0, no_trade_band=0.0, daily_loss_limit=0.0, stop_loss=stop)
    rows = {
        name: msgspec.structs.replace(each, maximum_leverage=Decimal(5)) for name, each in instruments(A, B).items()
    }
    return SimulatedEngine(
        Scripted(script), rows, AccountSettings(Decimal(10_000), FREE, limits, rules), run_id="a run"
    )


def kinds(engine: SimulatedEngine, *batches: tuple[Bar, ...]) -> list[tuple[str, ExecutionKind]]:
    return [(fill.symbol, fill.kind) for bars in batches for fill in engine.step(batch(*bars)).executions]


def test_under_cross_margin_the_account_stands_for_its_positions_with_all_it_has() -> None:
    """Five times 10,000 at 100: at 80.81 the 500 units have lost 9,595 and need a hundredth of 40,405."""
    engine = crossed({(A, 0): 5.0})
    assert kinds(engine, (bar(0),), (bar(1, 100.0, low=81.0),)) == [(A, ExecutionKind.MARKET)]
    assert kinds(engine, (bar(2, 100.0, low=80.8),)) == [(A, LIQUIDATION)]
    assert engine.portfolio.cash == 10_000 - 500 * Decimal("19.2")
    assert engine.fills.books[A].quantity == engine.portfolio.positions[A].quantity == 0


def test_a_loss_in_one_symbol_takes_the_other_one_with_it_and_a_gain_carries_it() -> None:
    script = {(A, 0): 2.0, (B, 0): -2.0}
    fallen, risen = 60.0, 140.0
    opened = ((bar(0), bar(0, symbol=B)), (bar(1), bar(1, symbol=B)))
    engine = crossed(script)
    assert kinds(engine, *opened, (bar(2, fallen), bar(2, fallen, symbol=B)))[2:] == []
    engine = crossed(script)
    assert kinds(engine, *opened, (bar(2, fallen), bar(2, risen, symbol=B)))[2:] == [(A, LIQUIDATION), (B, LIQUIDATION)]


def test_a_position_is_looked_at_in_the_bar_that_opens_it() -> None:
    engine = crossed({(A, 0): 5.0})
    assert kinds(engine, (bar(0),), (bar(1, 100.0, low=70.0),)) == [(A, ExecutionKind.MARKET), (A, LIQUIDATION)]


def test_a_stop_that_comes_first_keeps_the_account_alive() -> None:
    engine = crossed({(A, 0): 5.0}, stop=0.1)
    assert kinds(engine, (bar(0),), (bar(1),), (bar(2, 100.0, low=70.0),))[1:] == [(A, STOP)]
    engine = crossed({(A, 0): 5.0}, stop=0.1)
    assert kinds(engine, (bar(0),), (bar(1),), (bar(2, 70.0),))[1:] == [(A, LIQUIDATION)]


def test_liquidation_cancels_what_waits() -> None:
    engine = crossed({(A, 0): 5.0})
    engine.step(batch(bar(0)))
    engine.step(batch(bar(1)))
    engine.fills.submit(order(BUY, "1", limit="50", name="waits"))
    step = engine.step(batch(bar(2, 70.0)))
    assert [(update.client_order_id, update.reason) for update in step.updates] == [("waits", OrderReason.LIQUIDATION)]
    assert not engine.fills.has_working(A)
