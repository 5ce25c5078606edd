"""The whole loop on real candles, as a user runs it; slow, because it is years of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.runs import recall

BITCOIN = ("--symbols", "BTCUSDT", "--interval", "60")
APPLE = ("--symbols", "AAPL", "--interval", "D")
TWO_YEARS = ("--start", "2024-01-01", "--end", "2026-01-01")
BARS_OF_TWO_YEARS = 17_544
FIGURES = {
    "total_return", "annual_return", "volatility", "sharpe_ratio", "sortino_ratio", "max_drawdown", "win_rate",
    "trades", "bars", "bars_per_second", "decisions_sha256", "trades_sha256", "run_id", "model_id",
}  # fmt: skip


@pytest.fixture(scope="module")
def bitcoin(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A data_dir with years of hours, and a model trained on those before 2024."""
    data_dir = tmp_path_factory.mktemp("bitcoin")
    file = str(real_data / "bybit_linear_BTCUSDT_1h.parquet")
    recall(data_dir, "fetch", "--source", "file", file, "--symbol", "BTCUSDT", "--interval", "60")
    span = ("--start", "2020-03-25", "--end", "2024-01-01")
    trained = recall(data_dir, "train", *BITCOIN, *span, "--epochs", "5", "--memory-size", "50000")
    return data_dir, trained["model_id"]


@pytest.mark.slow
def test_fetch_train_and_backtest_run_through_on_years_of_hours(bitcoin):
    data_dir, model_id = bitcoin
    result = recall(data_dir, "backtest", *BITCOIN, *TWO_YEARS)
    assert set(result) >= FIGURES
    assert result["model_id"] == model_id and result["bars"] == BARS_OF_TWO_YEARS
    assert result["max_drawdown"] <= 0.0 and 0.0 <= result["win_rate"] <= 1.0
    # A market that never closes: two calendar years are two years.
    assert result["annual_return"] == pytest.approx((1.0 + result["total_return"]) ** (365 / 731) - 1.0, abs=2e-3)


@pytest.mark.slow
def test_two_years_over_real_sockets_decide_as_their_replay_and_audit_clean(bitcoin):
    data_dir, _ = bitcoin
    sandbox = ("--venue", "sandbox", "--set", "sandbox.source=store")
    # Following each forecast alone, with exits close enough that stops and targets are met.
    near = ("--memory-size", "50000", "--set", "signal.holding_bars=1")
    near = (*near, "--set", "signal.exits=volatility", "--set", "signal.stop_multiple=0.6")
    paper = recall(data_dir, "paper", *BITCOIN, *TWO_YEARS, *sandbox, *near)
    replay = recall(data_dir, "backtest", *BITCOIN, *TWO_YEARS, *near, "--no-plot")
    assert paper["finished"] and paper["bars"] == BARS_OF_TWO_YEARS
    assert (paper["decisions_sha256"], paper["trades_sha256"]) == (replay["decisions_sha256"], replay["trades_sha256"])
    report = recall(data_dir, "audit", paper["run_id"])
    assert report["differences"] == 0 and report["bars"] >= 5_000 and report["memory_entries"] > 0
    assert min(report["buys"], report["sells"]) >= 200
    assert report["stops_and_targets"] >= 20


def test_daily_candles_of_a_stock_keep_their_sessions_through_fetch_train_and_backtest(real_data: Path, tmp_path: Path):
    file = str(real_data / "stock_AAPL_1d_recent.parquet")
    fetched = recall(tmp_path, "fetch", "--source", "file", file, "--symbol", "AAPL", "--interval", "1d")
    assert fetched[0]["calendar"] == "sessions"
    small = ("--memory-size", "500", "--set", "model.d_model=16", "--set", "model.attention_window=16")
    recall(tmp_path, "train", *APPLE, "--end", "2025-01-01", "--epochs", "1", *small)
    span = ("--start", "2025-01-01", "--end", "2026-05-01")
    result = recall(tmp_path, "backtest", *APPLE, *span, "--memory-size", "500")
    assert result["bars"] == result["days"] == 332
    held = recall(tmp_path, "backtest", *APPLE, *span, "--strategy", "buy_and_hold")
    # 252 sessions make a year, not 365 days.
    assert held["annual_return"] == pytest.approx((1.0 + held["total_return"]) ** (252 / 332) - 1.0, abs=2e-3)
