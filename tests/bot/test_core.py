"""The decision core: the order of events, time that only moves forward, hashes, and going on after a crash."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest.replay import batches
from bot.core import CoreState, DecisionCore, digest_text
from bot.engine import EngineState, RunLog, SimulatedEngine
from bot.execution.fills import Costs
from bot.orders import (
    BarBatch,
    Decision,
    Funding,
    OperatorAction,
    OperatorCommand,
    Side,
    SymbolAvailability,
    Verdict,
)
from bot.portfolio import ClosedTrade, Portfolio
from bot.risk import RiskLayer, RiskLimits
from strategies.bars import Bar, BarSeries
from strategies.base import Explanation, Neighbour, Signal, Strategy
from strategies.baselines import SmaCross
from tests.bot.cli.strategies import TakesTurns
from tests.bot.scenes import (
    OPEN_LIMITS,
    START,
    A,
    B,
    C,
    Scripted,
    bar,
    batch,
    engine_of,
    execution,
    instruments,
    walk,
)


class Diary(Strategy):
    """Writes down in which order it is called."""

    name = "diary"

    def __init__(self) -> None:
        self.pages: list[tuple[str, tuple[str, ...]]] = []

    @property
    def required_bars(self) -> int:
        return 0

    def warm(self, history: Mapping[str, BarSeries], *, remember: bool = True) -> None:
        """Nothing to know."""

    def settle(self, bars: Sequence[Bar]) -> None:
        self.pages.append(("settle", tuple(each.symbol for each in bars)))

    def on_bar(self, bar: Bar) -> Signal:
        self.pages.append(("on_bar", (bar.symbol,)))
        return Signal(bar.symbol, bar.open_time, 0.5)

    def remember(self, bars: Sequence[Bar]) -> None:
        self.pages.append(("remember", tuple(each.symbol for each in bars)))


def core_of(strategy: Strategy, *symbols: str, limits: RiskLimits = OPEN_LIMITS) -> DecisionCore:
    rules = instruments(*(symbols or (A,)))
    risk = RiskLayer(limits, rules, run_token="token0")
    return DecisionCore(strategy, risk, Portfolio(Decimal(10_000), rules), working=())


def text_of(decision: Decision) -> str:
    """What the hash sees of a decision."""
    signal = decision.signal
    return digest_text(signal.symbol, signal.bar_open_time, signal, decision.verdicts, decision.orders)


def test_each_batch_settles_then_asks_each_symbol_in_order_then_remembers() -> None:
    diary = Diary()
    core = core_of(diary, A, B, C)
    decisions = core.apply(batch(bar(0, symbol=B), bar(0, symbol=A), bar(0, symbol=C)))
    everybody = (B, A, C)
    assert diary.pages == [
        ("settle", everybody),
        *[("on_bar", (symbol,)) for symbol in everybody],
        ("remember", everybody),
    ]
    assert [(decision.number, decision.signal.symbol) for decision in decisions] == [(0, B), (1, A), (2, C)]


@pytest.mark.parametrize("number", [4, 5])
def test_time_never_moves_backwards_nor_stands_still(number: int) -> None:
    core = core_of(Diary())
    core.apply(batch(bar(5)))
    with pytest.raises(ValueError, match="must move forward in time"):
        core.apply(batch(bar(number)))


def test_every_symbol_has_its_own_time_and_it_may_begin_before_1970() -> None:
    core = core_of(Diary(), A, B)
    core.apply(batch(bar(5)))
    core.apply(batch(bar(3, symbol=B)))
    old = [Bar(A, time, time + 1000, 1.0, 1.0, 1.0, 1.0, 1.0) for time in (-2_000, -1_000)]
    ancient = core_of(Diary())
    for each in old:
        assert len(ancient.apply(batch(each))) == 1


def test_a_decision_knows_the_position_and_the_equity_at_all_closes_of_its_batch() -> None:
    core = core_of(Scripted({}), A, B)
    core.apply(execution(Side.BUY, "2", "100"))
    core.apply(execution(Side.SELL, "1", "50", symbol=B))
    first, second = core.apply(batch(bar(1, close=110.0), bar(1, 40.0, symbol=B)))
    assert first.equity == second.equity == 10_000 + 2 * 10 + 10
    assert (first.position, second.position) == (2, -1)
    assert first.close_time == bar(1).close_time


def test_only_bars_are_answered_with_decisions() -> None:
    core = core_of(Diary())
    events = [
        execution(Side.BUY, "1", "100"),
        Funding(A, Decimal("0.001"), Decimal(100), START),
        OperatorCommand(OperatorAction.HALT),
        SymbolAvailability(A, False),
    ]
    assert [core.apply(event) for event in events] == [()] * 4
    assert core.portfolio.cash == Decimal("9899.9")
    (decision,) = core.apply(batch(bar(0)))
    assert decision.verdicts[:2] == (Verdict.SYMBOL_UNAVAILABLE, Verdict.HALTED_BY_OPERATOR)


def test_a_late_bar_reaches_strategy_and_account_but_opens_nothing() -> None:
    diary = Diary()
    core = core_of(diary)
    (decision,) = core.apply(batch(bar(0), late=True))
    assert (decision.orders, decision.verdicts) == ((), (Verdict.LATE_BAR, Verdict.ON_TARGET))
    assert ("on_bar", (A,)) in diary.pages
    assert core.portfolio.marks == {A: 100.0}
    assert core.apply(batch(bar(1)))[0].verdicts == (Verdict.FOLLOWED,)


def test_symbols_of_one_batch_share_the_leverage() -> None:
    everything = {(symbol, number): 1.0 for symbol in (A, B, C) for number in range(3)}
    engine = engine_of(Scripted(everything), A, B, C)
    for number in range(3):
        step = engine.step(batch(*[bar(number, symbol=symbol) for symbol in (A, B, C)]))
        assert sum(abs(position.quantity) for position in engine.portfolio.positions.values()) <= 100
    assert [decision.verdicts[0] for decision in step.decisions] == [
        Verdict.ON_TARGET,
        Verdict.CLIPPED_LEVERAGE,
        Verdict.CLIPPED_LEVERAGE,
    ]


def test_an_order_that_waits_for_a_missing_bar_goes_on_counting_against_the_leverage() -> None:
    engine = engine_of(Scripted({(A, 0): 0.8, (B, 1): 1.0, (B, 3): 1.0}), A, B)
    engine.step(batch(bar(0), bar(0, symbol=B)))
    (decision,) = engine.step(batch(bar(1, symbol=B))).decisions
    assert [order.quantity for order in decision.orders] == [20]
    engine.step(batch(bar(2), bar(2, symbol=B)))
    assert [position.quantity for position in engine.portfolio.positions.values()] == [80, 20]


def test_an_order_that_filled_and_was_stopped_out_at_once_leaves_the_leverage_to_others() -> None:
    limits = RiskLimits(daily_loss_limit=0.0, stop_loss=0.01, no_trade_band=0.0)
    engine = engine_of(Scripted({(A, 0): 1.0, (B, 1): 0.5}), A, B, limits=limits)
    engine.step(batch(bar(0), bar(0, symbol=B)))
    step = engine.step(batch(bar(1, low=98.0, close=100.0), bar(1, symbol=B)))
    assert len(step.executions) == 2
    assert step.decisions[1].verdicts == (Verdict.FOLLOWED,)


def test_closed_round_trips_are_reported_as_they_end() -> None:
    trades: list[ClosedTrade] = []
    engine = engine_of(Scripted({(A, 0): 1.0, (A, 1): 0.0}), trades=trades)
    for number, price in enumerate((100.0, 100.0, 110.0)):
        assert trades == []
        engine.step(batch(bar(number, price)))
    assert [trade.profit for trade in trades] == [1000]


# -- hashes ----------------------------------------------------------------------------------------------


def test_the_hash_of_the_decisions_does_not_depend_on_when_it_is_read() -> None:
    series = {A: walk(200, 3)}
    curious, patient = engine_of(SmaCross(3, 8)), engine_of(SmaCross(3, 8))
    seen = set()
    for one in batches(series):
        curious.step(one)
        seen.add(curious.core.decisions_sha256)
        patient.step(one)
    assert curious.core.decisions_sha256 == patient.core.decisions_sha256
    assert len(seen) == curious.core.decisions_made == 200


def test_the_hash_covers_the_same_text_of_every_decision_whether_it_brings_orders_or_not() -> None:
    script: dict[tuple[str, int], Signal | float | None] = {(A, 1): 1.0, (A, 2): 1.0, (A, 3): None, (A, 5): 0.0}
    script[A, 4] = Signal(
        A, bar(4).open_time, 1.0, explanation=Explanation(neighbours=(Neighbour(7, A, START, 1, 1, 0),))
    )
    core = core_of(Scripted(script))
    decisions = [core.apply(batch(bar(number), late=number == 6))[0] for number in range(8)]
    assert {decision.verdicts for decision in decisions} >= {(Verdict.FOLLOWED,), (Verdict.ON_TARGET,)}
    assert core.state().decisions_tail == tuple(text_of(each) for each in decisions)


def test_a_run_in_one_loop_brings_what_step_after_step_brings_and_leaves_out_only_decisions_without_orders() -> None:
    series = {A: walk(300, 3), B: walk(300, 4, B)}
    stepped, run = engine_of(SmaCross(3, 8), A, B), engine_of(SmaCross(3, 8), A, B)
    steps = [stepped.step(one) for one in batches(series)]
    log, decisions = RunLog(), list[Decision]()
    run.run(batches(series), log, decisions.extend, every=False)
    assert decisions == [each for step in steps for each in step.decisions if each.orders] != []
    assert log.executions == [each for step in steps for each in step.executions] != []
    assert log.updates == [each for step in steps for each in step.updates]
    assert log.equity == [step.equity for step in steps] == [step.decisions[0].equity for step in steps]
    assert run.core.equity == log.equity[-1] == run.portfolio.equity
    assert run.state() == stepped.state()


def test_events_between_the_batches_of_a_run_act_as_between_steps() -> None:
    halt, free = OperatorCommand(OperatorAction.HALT), OperatorCommand(OperatorAction.RESUME)
    stepped, run = engine_of(SmaCross(3, 8)), engine_of(SmaCross(3, 8))

    def told(engine: SimulatedEngine) -> Iterator[BarBatch]:
        for number, one in enumerate(batches({A: walk(200, 3)})):
            yield one
            if number % 20 == 0:
                engine.apply([halt if number % 40 else free])

    wanted = [each for one in told(stepped) for each in stepped.step(one).decisions]
    found: list[Decision] = []
    run.run(told(run), RunLog(), found.extend)
    assert found == wanted
    assert {verdict for each in found for verdict in each.verdicts} >= {Verdict.HALTED_BY_OPERATOR, Verdict.FOLLOWED}
    assert run.state() == stepped.state()


def decision(**changes: object) -> Decision:
    (made,) = core_of(Scripted({(A, 0): 0.5})).apply(batch(bar(0)))
    return msgspec.structs.replace(made, **changes)


def test_the_hash_covers_bar_verdicts_order_fields_and_neighbours_but_no_run_id() -> None:
    plain = decision()
    (order,) = plain.orders
    neighbour = Neighbour(7, A, START, 0.9, 1.0, 0.01)
    explained = [
        msgspec.structs.replace(plain.signal, explanation=Explanation(neighbours=(each,)))
        for each in (neighbour, msgspec.structs.replace(neighbour, entry_id=8))
    ]

    def with_order(**changes: object) -> Decision:
        return decision(orders=(msgspec.structs.replace(order, **changes),))

    variants = [
        plain,
        decision(verdicts=(Verdict.LATE_BAR, Verdict.FOLLOWED)),
        decision(orders=()),
        decision(signal=msgspec.structs.replace(plain.signal, bar_open_time=START + 1)),
        decision(signal=msgspec.structs.replace(plain.signal, symbol=B)),
        *[decision(signal=signal) for signal in explained],
        with_order(side=Side.SELL),
        with_order(quantity=order.quantity + 1),
        with_order(limit_price=Decimal(1)),
        with_order(reduce_only=True),
        with_order(stop_loss=Decimal(1)),
        with_order(take_profit=Decimal(1)),
    ]
    assert len({text_of(each) for each in variants}) == len(variants)
    assert text_of(with_order(client_order_id="another")) == text_of(plain)
    assert text_of(with_order(quantity=Decimal("50.000"))) == text_of(with_order(quantity=Decimal(50)))


def test_the_hash_of_the_trades_covers_every_field_of_a_fill() -> None:
    plain = execution(Side.BUY, "1", "100", "0.1")
    variants = [
        plain,
        execution(Side.SELL, "1", "100", "0.1"),
        execution(Side.BUY, "2", "100", "0.1"),
        execution(Side.BUY, "1", "101", "0.1"),
        execution(Side.BUY, "1", "100", "0.2"),
        execution(Side.BUY, "1", "100", "0.1", symbol=B),
        execution(Side.BUY, "1", "100", "0.1", number=1),
    ]
    found = set()
    for each in variants:
        core = core_of(Diary(), A, B)
        core.apply(each)
        found.add(core.trades_sha256)
    assert len(found) == len(variants)


# -- going on after a crash ------------------------------------------------------------------------------

SYMBOLS = {A: walk(70, 1), B: walk(60, 2, B, first=5, volatility=0.02)}
ALL: list[BarBatch] = list(batches(SYMBOLS))
LIMITS = RiskLimits(max_leverage=1.3, daily_loss_limit=0.02, stop_loss=0.01, take_profit=0.02, no_trade_band=0.05)


class Momentum(SmaCross):
    """A cross that is rebuilt from the bars that it was shown, like every strategy after a crash."""

    def __init__(self) -> None:
        super().__init__(2, 6)


def running(shown: list[BarBatch]) -> SimulatedEngine:
    strategy = Momentum()
    history = {symbol: [b for each in shown for b in each.bars if b.symbol == symbol] for symbol in SYMBOLS}
    strategy.warm({symbol: BarSeries.of(bars, "60") for symbol, bars in history.items() if bars})
    return engine_of(strategy, A, B, limits=LIMITS, costs=Costs())


def commands(number: int) -> list[OperatorCommand | SymbolAvailability | Funding]:
    return {
        20: [OperatorCommand(OperatorAction.HALT)],
        24: [OperatorCommand(OperatorAction.RESUME), SymbolAvailability(B, False)],
        30: [SymbolAvailability(B, True), Funding(A, Decimal("0.0003"), Decimal(101), START)],
        50: [OperatorCommand(OperatorAction.FLATTEN)],
        55: [OperatorCommand(OperatorAction.RESUME)],
    }.get(number, [])


def drive(engine: SimulatedEngine, first: int, last: int) -> list[Decision]:
    made: list[Decision] = []
    for number in range(first, last):
        engine.apply(commands(number))
        made += engine.step(ALL[number]).decisions
    return made


UNBROKEN = running([])
EXPECTED = drive(UNBROKEN, 0, len(ALL))


@settings(max_examples=30)
@given(st.lists(st.integers(0, len(ALL)), max_size=4).map(sorted))
def test_a_run_that_was_killed_anywhere_decides_and_hashes_as_if_nothing_had_happened(cuts: list[int]) -> None:
    engine = running([])
    made: list[Decision] = []
    done = 0
    for cut in cuts:
        made += drive(engine, done, cut)
        written = msgspec.json.encode(engine.state())
        engine = running(ALL[:cut])
        engine.restore(msgspec.json.decode(written, type=type(UNBROKEN.state())))
        done = cut
    made += drive(engine, done, len(ALL))
    assert made == EXPECTED
    assert engine.core.decisions_sha256 == UNBROKEN.core.decisions_sha256
    assert engine.core.trades_sha256 == UNBROKEN.core.trades_sha256
    assert engine.state() == UNBROKEN.state()


def test_the_run_of_the_crash_test_has_met_what_can_happen() -> None:
    verdicts = {verdict for each in EXPECTED for verdict in each.verdicts}
    assert verdicts >= {
        Verdict.FOLLOWED,
        Verdict.CLIPPED_LEVERAGE,
        Verdict.HALTED_BY_OPERATOR,
        Verdict.FLATTENED_BY_OPERATOR,
        Verdict.SYMBOL_UNAVAILABLE,
        Verdict.HALTED_BY_LOSS,
    }
    assert UNBROKEN.portfolio.trades_closed > 5


def taking_turns() -> SimulatedEngine:
    strategy = TakesTurns(5)
    strategy.warm({})
    return engine_of(strategy, A, B, limits=LIMITS, costs=Costs())


@given(st.integers(0, len(ALL)))
@settings(max_examples=10)
def test_what_a_strategy_learned_from_its_decisions_is_given_back_to_another_instance(cut: int) -> None:
    unbroken, engine = taking_turns(), taking_turns()
    expected = drive(unbroken, 0, len(ALL))
    made = drive(engine, 0, cut)
    written = msgspec.json.encode(engine.state())
    engine = taking_turns()
    engine.restore(msgspec.json.decode(written, type=EngineState))
    made += drive(engine, cut, len(ALL))
    assert made == expected
    assert msgspec.json.encode(engine.state()) == msgspec.json.encode(unbroken.state())


def test_a_state_of_a_version_without_a_strategys_own_leaves_the_strategy_as_it_begins() -> None:
    engine = taking_turns()
    drive(engine, 0, 8)
    written = msgspec.json.decode(msgspec.json.encode(engine.state()))
    assert written["core"].pop("strategy")
    other = taking_turns()
    other.restore(msgspec.convert(written, EngineState))
    assert other.core.strategy.state() == taking_turns().core.strategy.state()
    assert other.core.decisions_made == engine.core.decisions_made


def test_a_strategy_without_a_state_leaves_no_trace_of_one() -> None:
    assert "strategy" not in msgspec.json.decode(msgspec.json.encode(UNBROKEN.core.state()))


def test_the_state_of_the_core_goes_through_json_unchanged() -> None:
    state = UNBROKEN.core.state()
    assert msgspec.json.decode(msgspec.json.encode(state), type=CoreState) == state
