"""The summary table and the equity plot, as a person gets them."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from backtest.metrics import performance
from backtest.report import UNDEFINED, plot_equity, print_summary, span_title, thin_out
from bot.portfolio import ClosedTrade
from strategies.bars import DAY_MS, HOUR_MS, Calendar, FloatArray, IntArray

START = 1_704_067_200_000  # 2024-01-01T00:00Z


def path_of(bars: int, seed: int = 1, growth: float = 0.0) -> tuple[IntArray, FloatArray]:
    equity = 1000.0 * np.exp(np.cumsum(np.random.default_rng(seed).normal(growth, 0.004, bars)))
    return START + HOUR_MS * np.arange(1, bars + 1, dtype=np.int64), np.asarray(equity)


def trade(closed_at: int, profit: int) -> ClosedTrade:
    return ClosedTrade(
        symbol="BTCUSDT",
        side="long",
        quantity=Decimal(1),
        entry_price=Decimal(100),
        exit_price=Decimal(101),
        opened_at=closed_at - HOUR_MS,
        closed_at=closed_at,
        profit=Decimal(profit),
        fees=Decimal("0.1"),
        funding=Decimal(0),
    )


def decoded_size(path: Path) -> tuple[int, int]:
    """Width and height of a PNG whose every chunk passes its checksum and whose pixels decompress in full."""
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, pixels, kinds = 8, b"", []
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        (checksum,) = struct.unpack(">I", data[at + 8 + length : at + 12 + length])
        assert zlib.crc32(kind + body) == checksum
        kinds.append(kind)
        if kind == b"IDAT":
            pixels += body
        at += 12 + length
    assert kinds[0] == b"IHDR"
    assert kinds[-1] == b"IEND"
    width, height = struct.unpack(">II", data[16:24])
    assert len(zlib.decompress(pixels)) == height * (width * 4 + 1)
    return width, height


def test_the_plot_is_a_valid_png(tmp_path: Path) -> None:
    times, equity = path_of(800)
    trades = [trade(int(times[i]), profit) for i, profit in ((10, 5), (200, -3), (799, 1))]
    plot_equity(tmp_path / "equity.png", times, equity, trades, "sma_cross", initial_cash=Decimal(1000))
    width, height = decoded_size(tmp_path / "equity.png")
    assert width > 1200
    assert height > 700


@pytest.mark.parametrize(
    "equity",
    [
        np.full(50, 1000.0),
        np.linspace(1000.0, 1e7, 50),
        np.linspace(1000.0, -200.0, 50),
        np.array([1000.0, 1000.0001]),
    ],
    ids=["flat", "ten-thousandfold", "below zero", "two bars"],
)
def test_extreme_curves_are_drawn_without_a_warning(
    equity: FloatArray, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    times = START + DAY_MS * np.arange(1, len(equity) + 1, dtype=np.int64)
    plot_equity(tmp_path / "equity.png", times, equity, [], "extreme")
    decoded_size(tmp_path / "equity.png")
    assert not recwarn.list


def test_plotting_leaves_pyplot_alone(tmp_path: Path) -> None:
    """No import of pyplot, no change of the shared settings: safe in a thread, a server and a notebook."""
    program = (
        "import sys, numpy as np, matplotlib\n"
        "from pathlib import Path\n"
        "from backtest.report import plot_equity\n"
        # Reading the key "backend" would itself choose one and import pyplot.
        "shared = lambda: {k: matplotlib.rcParams[k] for k in matplotlib.rcParams if k != 'backend'}\n"
        "before = shared()\n"
        f"times = {START} + 3600000 * np.arange(1, 101)\n"
        f"plot_equity(Path({str(tmp_path)!r}) / 'e.png', times, np.linspace(1e3, 2e3, 100), [], 'title')\n"
        "assert 'matplotlib.pyplot' not in sys.modules, 'pyplot was imported'\n"
        "assert shared() == before, 'shared settings changed'\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True)
    decoded_size(tmp_path / "e.png")


def test_equal_runs_make_equal_files(tmp_path: Path) -> None:
    times, equity = path_of(300)
    for name in ("one.png", "two.png"):
        plot_equity(tmp_path / name, times, equity, [], "same")
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_a_plot_of_one_bar_is_refused_in_one_sentence(tmp_path: Path) -> None:
    times, equity = path_of(1)
    with pytest.raises(ValueError, match="at least two bars"):
        plot_equity(tmp_path / "equity.png", times, equity, [], "title")


@given(count=st.integers(1, 3000), most=st.integers(4, 400), seed=st.integers(0, 99))
def test_thinning_keeps_both_ends_and_both_extremes_and_stays_within_its_budget(
    count: int, most: int, seed: int
) -> None:
    values = np.random.default_rng(seed).normal(size=count).cumsum()
    kept = thin_out(values, most)
    assert len(kept) <= most
    assert np.all(np.diff(kept) > 0)
    assert (kept[0], kept[-1]) == (0, count - 1)
    assert values[kept].min() == values.min()
    assert values[kept].max() == values.max()


def test_half_a_million_bars_are_thinned_to_four_thousand_points() -> None:
    assert len(thin_out(path_of(500_000)[1])) <= 4000


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
