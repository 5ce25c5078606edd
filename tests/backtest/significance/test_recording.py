"""Signals on a tape, the same again under other assumptions, and what a memory knew when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from backtest.replay import replay
from backtest.significance.maturity import audit_maturity
from backtest.significance.recording import RecordedStrategy, RecordingStrategy
from backtest.significance.shuffling import ShuffledOutcomes, shuffle_memory
from backtest.significance.stress import closed, scaled, slippage_of, stress_runs
from bot.engine import AccountSettings, SimulatedEngine
from bot.execution.fills import Costs
from bot.portfolio import ClosedTrade
from strategies.bars import HOUR_MS, Bar, BarSeries
from strategies.base import Signal, Strategy
from strategies.baselines import SmaCross
from strategies.similarity import SimilaritySettings, SimilarityStrategy
from tests.bot.scenes import A, B, engine_of, walk

BARS = 900
PAST = 500
SERIES = {A: walk(BARS, 1, A), B: walk(BARS, 2, B)}
SETTINGS = SimilaritySettings(
    significance=1.0,
    memory_size=300,
    n_neighbors=8,
    minimum_neighbors=2,
    confidence_threshold=0.51,
    horizons=(1, 4),
    primary=4,
    embargo=6,
)


def similarity() -> SimilarityStrategy:
    return SimilarityStrategy((A, B), "60", SETTINGS)


def parts(at: int = PAST) -> tuple[dict[str, BarSeries], dict[str, BarSeries]]:
    past = {symbol: series.slice(0, at) for symbol, series in SERIES.items()}
    return past, {symbol: series.slice(at, BARS) for symbol, series in SERIES.items()}


def other_engine(strategy: Strategy, account: AccountSettings) -> SimulatedEngine:
    return engine_of(strategy, A, B, costs=account.costs)


def test_a_recording_changes_nothing_and_its_tape_trades_the_same() -> None:
    past, future = parts()
    plain, recording = similarity(), RecordingStrategy(similarity())
    found = []
    for strategy in (plain, recording):
        strategy.warm(past)
        trades: list[ClosedTrade] = []
        engine = engine_of(strategy, A, B, costs=Costs(), trades=trades)
        found.append((replay(engine, future, trades=trades), engine))
    (first, _), (second, engine) = found
    assert first.decisions_sha256 == second.decisions_sha256 and first.trades_sha256 == second.trades_sha256
    again: list[ClosedTrade] = []
    third = replay(engine_of(RecordedStrategy(recording.tape), A, B, costs=Costs(), trades=again), future, trades=again)
    assert third.trades_sha256 == first.trades_sha256 and len(first.executions) > 20
    stressed = stress_runs(recording.tape, engine.account, other_engine, future)
    assert np.array_equal(stressed["costs x1"], first.equity)
    assert stressed["costs x0"][-1] > stressed["costs x1"][-1] > stressed["costs x2"][-1]
    ending = stress_runs(recording.tape, engine.account, other_engine, future, closes=True)["costs x1"]
    assert np.array_equal(ending, closed(first.equity, engine))
    assert np.array_equal(ending[:-1], first.equity[:-1])


def test_a_signal_that_comes_late_is_that_of_the_bar_before() -> None:
    past, future = parts()
    recording = RecordingStrategy(SmaCross(3, 9))
    recording.warm(past)
    bars = list(future[A].bars())
    wanted = [recording.on_bar(bar).target_exposure for bar in bars]
    late = RecordedStrategy(recording.tape, bars_late=1)
    assert [late.on_bar(bar).target_exposure for bar in bars] == [None, *wanted[:-1]]


def test_every_cost_is_scaled_and_nothing_else() -> None:
    costs = Costs()
    assert scaled(costs, 1) == costs
    assert scaled(costs, 2).taker_fee == 2 * costs.taker_fee and scaled(costs, 2).slippage == 2 * costs.slippage
    assert scaled(costs, 0).maker_fee == 0


def test_slippage_is_the_distance_from_the_price_of_the_candle() -> None:
    past, future = parts()
    strategy = SmaCross(3, 9)
    strategy.warm(past)
    result = replay(engine_of(strategy, A, B, costs=Costs()), future, trades=[])
    opens = {
        symbol: dict(zip(bars.open_time.tolist(), bars.open.tolist(), strict=True)) for symbol, bars in future.items()
    }
    market = [each for each in result.executions if each.kind.value == "market"]
    by_hand = sum(float(each.signed_quantity) * (float(each.price) - opens[each.symbol][each.time]) for each in market)
    assert by_hand > 0.0
    assert slippage_of(market, future, Costs()) == pytest.approx(by_hand)


def test_an_honest_memory_keeps_its_embargo_and_the_closest_outcome_is_named() -> None:
    past, future = parts()
    recording = RecordingStrategy(similarity())
    recording.warm(past)
    replay(engine_of(recording, A, B, costs=Costs()), future, trades=[])
    audit = audit_maturity(recording, past, future)
    assert audit is not None and audit.decisions > 500 and audit.violations == 0
    assert audit.smallest_margin_ms is not None and audit.smallest_margin_ms >= audit.embargo_ms == 6 * HOUR_MS
    assert audit_maturity(RecordingStrategy(SmaCross(3, 9)), past, future) is None


def test_an_outcome_that_was_not_known_is_found() -> None:
    past, future = parts()
    recording = RecordingStrategy(similarity())
    recording.warm(past)
    replay(engine_of(recording, A, B, costs=Costs()), future, trades=[])
    decided, youngest = recording.tape.youngest[100]
    honest = audit_maturity(recording, past, future)
    # With a horizon of 4 bars and an embargo of 6 hours the youngest allowed moment closed 10 hours ago.
    recording.tape.youngest[100] = (decided, {**youngest, A: decided - 10 * HOUR_MS})
    found = audit_maturity(recording, past, future)
    assert honest is not None and honest.violations == 0
    assert found is not None and found.violations == 1 and found.decided_at == decided
    recording.tape.youngest[100] = (decided, {**youngest, A: decided - 11 * HOUR_MS})
    edge = audit_maturity(recording, past, future)
    assert edge is not None and edge.violations == 0 and edge.smallest_margin_ms == 6 * HOUR_MS


class Witness(SimilarityStrategy):
    """Keeps what its memory knew at every bar."""

    def on_bar(self, bar: Bar) -> Signal:
        self.seen = [*getattr(self, "seen", []), {entry.entry_id: entry.outcomes for entry in self.bank.entries()}]
        return super().on_bar(bar)


def decided(
    series: Mapping[str, BarSeries], seed: int | None
) -> tuple[list[dict[int, tuple[float | None, ...]]], list[Signal]]:
    past = {symbol: bars.slice(0, 400) for symbol, bars in series.items()}
    strategy = Witness((A, B), "60", SETTINGS)
    if seed is not None:
        shuffle_memory(strategy, seed)
    strategy.warm(past)
    recording = RecordingStrategy(strategy)
    replay(
        engine_of(recording, A, B, costs=Costs()),
        {symbol: bars.slice(400, 470) for symbol, bars in series.items()},
        trades=[],
    )
    return strategy.seen, [each for answers in recording.tape.answers.values() for each in answers]  # type: ignore[misc]


def test_a_shuffled_memory_tells_outcomes_of_others_as_early_and_never_earlier() -> None:
    true, _ = decided(SERIES, None)
    shuffled, _ = decided(SERIES, 1)
    told = 0
    for mine, theirs in zip(true, shuffled, strict=True):
        assert set(mine) == set(theirs), "the same moments are remembered"
        for entry, outcomes in mine.items():
            assert [value is None for value in outcomes] == [value is None for value in theirs[entry]], "as early"
            told += outcomes != theirs[entry]
    assert told > 1000
    known = {outcomes for memory in true for outcomes in memory.values() if None not in outcomes}
    late = [outcomes for outcomes in shuffled[-1].values() if None not in outcomes]
    # What is told is what followed some moment; those of the first warm bars have left this small memory.
    assert sum(outcomes in known for outcomes in late) > 0.5 * len(late)


def test_a_shuffled_memory_is_that_of_its_seed_and_knows_no_later_bar() -> None:
    other = {
        symbol: replace(bars, close=np.concatenate((bars.close[:450], bars.close[450:] * 1.5)),
                        high=np.concatenate((bars.high[:450], bars.high[450:] * 1.5)))
        for symbol, bars in SERIES.items()
    }  # fmt: skip
    first, signals = decided(SERIES, 1)
    assert decided(SERIES, 1) == (first, signals)
    assert decided(SERIES, 2)[0] != first
    assert decided(other, 1)[0][:100] == first[:100]


def test_a_bank_of_shuffled_outcomes_has_the_rules_of_the_one_it_replaces() -> None:
    strategy = similarity()
    config = strategy.bank.config
    shuffle_memory(strategy, 1)
    assert isinstance(strategy.bank, ShuffledOutcomes) and strategy.bank.config == config
