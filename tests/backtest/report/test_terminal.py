"""The summary table, as a person gets it in a terminal."""

from __future__ import annotations

from rich.console import Console

from backtest.metrics import performance
from backtest.report.terminal import UNDEFINED, print_summary, span_title
from bot.portfolio import ClosedTrade
from strategies.bars import HOUR_MS, Calendar
from tests.backtest.report.scenes import START, path_of, trade


def printed(bars: int, trades: list[ClosedTrade], width: int = 80) -> str:
    times, equity = path_of(bars)
    metrics = performance(
        times, equity, trades, initial_cash=1000.0, calendar=Calendar.CONTINUOUS, fees_paid=12.5, turnover=40_000.0
    )
    console = Console(width=width, no_color=True)
    facts = {"run_id": "r-17", "model_id": None, "bars": bars, "decisions_sha256": "0" * 64, "symbols": ["BTCUSDT"]}
    with console.capture() as captured:
        print_summary(console, "sma_cross on BTCUSDT", {**metrics.to_json(), **facts})
    return captured.get()


def test_the_summary_shows_every_section_with_fractions_as_percentages() -> None:
    text = printed(2000, [trade(START + HOUR_MS, 5), trade(START + 2 * HOUR_MS, -1)])
    for expected in ("Result", "Risk", "Trades", "Costs", "Run", "sma_cross", "50.00 %", "12.50", "r-17", "2,000"):
        assert expected in text
    assert max(len(line) for line in text.splitlines()) <= 80


def test_what_is_undefined_is_shown_as_a_dash_not_as_zero_or_none() -> None:
    text = printed(5, [])
    line = next(line for line in text.splitlines() if "Win rate" in line)
    assert UNDEFINED in line
    assert "None" not in text
    assert "Model" not in text
    assert "nan" not in text.lower()


def test_the_title_names_strategy_symbols_interval_and_span() -> None:
    times, _ = path_of(8760)
    assert span_title("similarity", ["BTCUSDT"], "60", times) == "similarity · BTCUSDT · 1 h · 2024-01-01 to 2024-12-31"
    assert span_title("hold", list("ABCDEF"), "D", times[:0]) == "hold · A, B, C, D and 2 more · daily"
