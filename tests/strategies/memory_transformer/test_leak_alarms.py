"""The four leak alarms, over the whole way from bars to signals: features, encoder, memory, model, calibration.

Prefix invariance and future poison say that no leak is there, noise says that none is found, and the canary says that one
would be.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from backtest.probe import probe
from bot.engine import SimulatedEngine
from bot.execution.fills import Costs
from strategies.bars import COLUMNS, BarSeries
from strategies.base import Signal
from strategies.memory_transformer.bundle import Bundle, load_bundle, save_bundle
from strategies.memory_transformer.settings import MemoryTransformerSettings
from strategies.memory_transformer.strategy import MemoryTransformerStrategy
from strategies.memory_transformer.training import train
from tests.bot.scenes import engine_of
from tests.strategies.markets import batches, random_walk
from tests.strategies.memory_transformer.tiny import QUICK, TINY, two_symbols

HORIZON = TINY.horizons[TINY.primary]
SETTINGS = MemoryTransformerSettings(entry_threshold=0.05, minimum_neighbors=4)
WORLDS, BARS, WARM = 20, 600, 300
"""Markets of noise, bars of each, and how many of them only fill the memory."""


def play(strategy: MemoryTransformerStrategy, series: BarSeries, shown: BarSeries | None = None) -> list[Signal]:
    """Signals of all bars; ``shown`` is what the strategy is told will come, so that it may prepare bulk work."""
    strategy.preview({series.symbol: series if shown is None else shown})
    signals = []
    for batch in batches({series.symbol: series}):
        strategy.settle(batch)
        signals += [strategy.on_bar(bar) for bar in batch]
        strategy.remember(batch)
    return signals


def strategy_of(bundle: Bundle, past: BarSeries) -> MemoryTransformerStrategy:
    strategy = MemoryTransformerStrategy(bundle, (past.symbol,), SETTINGS)
    strategy.warm({past.symbol: past})
    return strategy


def skill(bundle: Bundle, worlds: list[BarSeries]) -> float:
    """Correlation of expected and real returns over outcomes that do not overlap, in standard errors of no skill."""
    expected, came = [], []
    for series in worlds:
        logs = np.log(series.close)
        signals = play(strategy_of(bundle, series.slice(0, WARM)), series.slice(WARM, len(series)))
        for place in range(WARM, len(series) - HORIZON, HORIZON):
            forecast = signals[place - WARM].expected_return
            if forecast is not None:
                expected.append(forecast)
                came.append(logs[place + HORIZON] - logs[place])
    assert len(expected) > len(worlds) * 20
    return float(np.corrcoef(expected, came)[0, 1]) * len(expected) ** 0.5


def test_alarm_one_outputs_up_to_a_bar_do_not_change_with_the_bars_after_it(bundle: Bundle) -> None:
    """Prefix invariance at 20 random bars: decisions with all they saw, and the memory to the last bit."""
    whole = two_symbols(520)
    begin = int(whole["AAAUSDT"].open_time[300])

    def make_engine() -> SimulatedEngine:
        strategy = MemoryTransformerStrategy(bundle, tuple(whole), SETTINGS)
        strategy.warm({symbol: series.span(None, begin) for symbol, series in whole.items()})
        return engine_of(strategy, *whole, costs=Costs())

    report = probe(make_engine, {name: one.span(begin, None) for name, one in whole.items()}, cuts=20, seed=3)
    assert len(report.cuts) == 20
    assert report.leaks == 0


@pytest.mark.parametrize("poison", [1e300, 1e-300])
def test_alarm_two_garbage_after_a_bar_changes_nothing_up_to_it(bundle: Bundle, poison: float) -> None:
    """The strategy is shown a future at prices that no market has, and decides as if it had been shown nothing.

    Prices that are no numbers at all do not come this far: the candle store refuses them.
    """
    series = random_walk(420, 8)
    past, rest = series.slice(0, 300), series.slice(300, 420)
    cut = 70
    garbage = {name: np.where(np.arange(len(rest)) < cut, getattr(rest, name), poison) for name in COLUMNS}
    known = rest.slice(0, cut)
    alone, poisoned = strategy_of(bundle, past), strategy_of(bundle, past)
    assert play(poisoned, known, shown=replace(rest, **garbage)) == play(alone, known)
    assert poisoned.bank.digest() == alone.bank.digest()


def test_alarm_three_noise_in_nothing_out(bundle: Bundle) -> None:
    """Twenty random walks: the forecasts know nothing of what comes."""
    assert abs(skill(bundle, [random_walk(BARS, 1000 + seed) for seed in range(WORLDS)])) < 2.6


def test_alarm_four_a_planted_leak_makes_the_score_jump(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The canary: the same markets with the coming return hidden in the volume, so that the third alarm is known to work."""
    trained = train({"AAAUSDT": leaking(1500, 1)}, TINY, replace(QUICK, epochs=3))
    root = tmp_path_factory.mktemp("canary")
    bundle = load_bundle(root / save_bundle(root, trained))
    assert skill(bundle, [leaking(BARS, 1000 + seed) for seed in range(4)]) > 5.0


def leaking(bars: int, seed: int) -> BarSeries:
    """A random walk whose volume tells the return over the horizon, which nobody can know at that bar."""
    longer = random_walk(bars + HORIZON, seed)
    logs = np.log(longer.close)
    coming = (logs[HORIZON:] - logs[:-HORIZON]) / (0.01 * HORIZON**0.5)
    return replace(longer.slice(0, bars), volume=np.exp(3.0 + coming))
