"""What a person sees at the end of a run: a table of figures and a picture of equity and drawdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
from rich import box
from rich.columns import Columns
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from backtest.metrics import drawdowns
from bot.portfolio import ClosedTrade
from strategies.bars import FloatArray, IntArray, format_time

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = tuple[str, Text | str]

SECTION_WIDTH: Final = 38
"""Two sections side by side fit a terminal of 80 columns."""
UNDEFINED: Final = "–"
MOST_POINTS: Final = 4000
LOG_SCALE_FROM: Final = 3.0
"""Ratio of highest to lowest equity from which a linear axis would hide the early part."""
MOST_MARKED_TRADES: Final = 120

_INK: Final = "#1f2933"
_MUTED: Final = "#66737f"
_GRID: Final = "#dfe4e8"
_EQUITY: Final = "#1f5fa8"
_LOSS: Final = "#c0392b"
_WIN: Final = "#1e8e5a"


def span_title(strategy: str, symbols: Sequence[str], interval: str, close_times: IntArray) -> str:
    """One line that says what was run over what: the strategy, its symbols, the interval and the span."""
    shown = ", ".join(symbols[:4]) + (f" and {len(symbols) - 4} more" if len(symbols) > 4 else "")
    title = f"{strategy} · {shown} · {_interval_label(interval)}"
    if len(close_times):
        title += f" · {format_time(int(close_times[0]))[:10]} to {format_time(int(close_times[-1]))[:10]}"
    return title


def print_summary(console: Console, title: str, document: Mapping[str, Any]) -> None:
    """Print a run's figures in sections: result, risk, trades, costs, and the run itself.

    Args:
        console: where to.
        title: what was run, for example from ``span_title``.
        document: the figures of ``Metrics.to_json`` and, of the run itself, any of ``run_id, model_id, fills, bars,
            bars_per_second, decisions_sha256, trades_sha256, plot``; further keys are not shown.
    """
    console.print(Text(title, style="bold"))
    console.print(Columns([_section_table(name, rows) for name, rows in _sections(document)], padding=(0, 2)))
    facts = _facts(document)
    if facts:
        console.print(_section_table("Run", facts, justify="left", width=None))


def plot_equity(
    path: Path,
    close_times: IntArray,
    equity: FloatArray,
    trades: Sequence[ClosedTrade],
    title: str,
    *,
    initial_cash: Decimal | float | None = None,
) -> None:
    """Draw equity above drawdown into a PNG file.

    Equity is on a logarithmic axis when its range is wider than ``LOG_SCALE_FROM``. Of long runs the extremes of each
    stretch are drawn, so that no peak or trough is lost. Uses no state that other threads or notebooks share.

    Args:
        path: file to write; its folder must exist.
        close_times: close of every bar batch, ``[n]`` milliseconds.
        equity: equity at these closes, ``[n]`` quote units.
        trades: closed round trips; marked on the curve as long as they can be told apart.
        title: what was run.
        initial_cash: what return and drawdown start from; the first equity by default.

    Raises:
        ValueError: there are fewer than two bars to draw.
    """
    if len(equity) < 2:
        raise ValueError(f"an equity plot needs at least two bars, this run has {len(equity)}; choose a longer span")
    # Only a plot pays for importing matplotlib, which takes longer than most commands.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.0, 6.4), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(
        2, 1, sharex=True, gridspec_kw={"height_ratios": [2.7, 1.0], "hspace": 0.07}, squeeze=True
    )
    figure.subplots_adjust(left=0.085, right=0.975, top=0.875, bottom=0.075)
    times = close_times.astype("datetime64[ms]")
    start = float(equity[0]) if initial_cash is None else float(initial_cash)
    falls = drawdowns(equity, start)
    _draw_equity(upper, times, equity, trades, start)
    _draw_drawdown(lower, times, falls)
    _style_dates(lower, times)
    caption = _caption(float(equity[-1]) / start - 1.0, float(falls.min()), trades)
    figure.text(0.085, 0.945, title, fontsize=12.5, fontweight="bold", color=_INK, va="center")
    figure.text(0.085, 0.905, caption, fontsize=9.5, color=_MUTED, va="center")
    figure.savefig(path, format="png", metadata={"Software": None, "Title": title})


def thin_out(values: FloatArray, most: int = MOST_POINTS) -> npt.NDArray[np.intp]:
    """Positions of at most ``most`` points that keep the shape of a curve: first, last, and each stretch's extremes.

    Args:
        values: the curve, ``[n]``.
        most: at least 4.
    """
    count = len(values)
    if count <= most:
        return np.arange(count)
    stretches = (most - 2) // 2
    length = -(-count // stretches)
    padded = np.concatenate((values, np.full(length * (-(-count // length)) - count, values[-1])))
    rows = padded.reshape(-1, length)
    starts = np.arange(len(rows)) * length
    picked = np.concatenate(([0, count - 1], starts + rows.argmin(axis=1), starts + rows.argmax(axis=1)))
    return np.unique(np.minimum(picked, count - 1))


def _sections(figures: Mapping[str, Any]) -> list[tuple[str, list[Row]]]:
    return [
        (
            "Result",
            [
                ("Final equity", f"{figures['final_equity']:,.2f}"),
                ("Total return", _percent(figures["total_return"], signed=True)),
                ("Annual return", _percent(figures["annual_return"], signed=True)),
                ("Best day", _percent(figures["best_day"], signed=True)),
                ("Worst day", _percent(figures["worst_day"], signed=True)),
            ],
        ),
        (
            "Risk",
            [
                ("Volatility, annual", _percent(figures["volatility"])),
                ("Sharpe ratio", _ratio(figures["sharpe_ratio"])),
                ("Sortino ratio", _ratio(figures["sortino_ratio"])),
                ("Calmar ratio", _ratio(figures["calmar_ratio"])),
                ("Maximum drawdown", _percent(figures["max_drawdown"], signed=True)),
                ("Longest drawdown", f"{figures['max_drawdown_days']:,.1f} days"),
            ],
        ),
        (
            "Trades",
            [
                ("Closed round trips", f"{figures['trades']:,}"),
                ("Win rate, after costs", _percent(figures["win_rate"])),
                ("Profit factor", _ratio(figures["profit_factor"])),
                ("Mean result per trade", _percent(figures["expectancy"], signed=True, digits=3)),
            ],
        ),
        (
            "Costs",
            [
                ("Fees", f"{figures['fees_paid']:,.2f}"),
                ("Funding", f"{figures['funding_paid']:,.2f}"),
                ("Turnover", f"{figures['turnover']:,.0f}"),
            ],
        ),
    ]


def _facts(document: Mapping[str, Any]) -> list[Row]:
    """What the document knows about the run itself, in a fixed order."""
    shown = (
        ("run_id", "Run", "{}"),
        ("model_id", "Model", "{}"),
        ("bars", "Bars", "{:,}"),
        ("bars_per_second", "Bars/s", "{:,.0f}"),
        ("fills", "Fills", "{:,}"),
        ("decisions_sha256", "Decisions", "{}"),
        ("trades_sha256", "Executions", "{}"),
        ("plot", "Plot", "{}"),
    )
    return [(label, form.format(document[key])) for key, label, form in shown if document.get(key) is not None]


def _section_table(
    heading: str, rows: Sequence[Row], *, justify: JustifyMethod = "right", width: int | None = SECTION_WIDTH
) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, width=width)
    table.add_column(Text(heading, style="bold"), style="dim", no_wrap=True)
    table.add_column(justify=justify, overflow="fold", ratio=1)
    for name, value in rows:
        table.add_row(name, value)
    return table


def _interval_label(interval: str) -> str:
    if not interval.isdigit():
        return {"D": "daily", "W": "weekly", "M": "monthly"}[interval]
    minutes = int(interval)
    return f"{minutes // 60} h" if minutes % 60 == 0 else f"{minutes} min"


def _percent(value: float | None, *, signed: bool = False, digits: int = 2) -> Text | str:
    """A fraction as a percentage; gains and losses are coloured where the sign is the message."""
    if value is None:
        return UNDEFINED
    if not signed:
        return f"{100.0 * value:,.{digits}f} %"
    style = "green" if value > 0.0 else "red" if value < 0.0 else ""
    return Text(f"{100.0 * value:+,.{digits}f} %", style=style)


def _ratio(value: float | None) -> str:
    return UNDEFINED if value is None else f"{value:,.2f}"


def _caption(change: float, depth: float, trades: Sequence[ClosedTrade]) -> str:
    parts = [f"return {100.0 * change:+,.1f} %", f"deepest drawdown {100.0 * depth:,.1f} %"]
    if trades:
        won = sum(trade.profit > 0 for trade in trades) / len(trades)
        parts.append(f"{len(trades):,} round trips, {100.0 * won:.0f} % won after costs")
    return "   ·   ".join(parts).replace("-", "\N{MINUS SIGN}")


def _draw_equity(
    axes: Axes, times: npt.NDArray[np.datetime64], equity: FloatArray, trades: Sequence[ClosedTrade], start: float
) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    shown = thin_out(equity)
    axes.plot(times[shown], equity[shown], color=_EQUITY, linewidth=1.3, solid_joinstyle="round", zorder=3)
    axes.axhline(start, color=_MUTED, linewidth=0.8, linestyle=(0, (4, 4)), zorder=2)
    lowest, highest = float(equity.min()), float(equity.max())
    if lowest > 0.0 and highest / lowest > LOG_SCALE_FROM:
        axes.set_yscale("log")
        steps = (1.0, 2.0, 5.0) if highest / lowest < 200.0 else (1.0,)
        axes.yaxis.set_major_locator(LogLocator(base=10.0, subs=steps, numticks=12))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_ylabel("Equity (log scale)", color=_MUTED, fontsize=9.5)
    else:
        axes.yaxis.set_major_locator(MaxNLocator(nbins=6, min_n_ticks=3))
        axes.set_ylabel("Equity", color=_MUTED, fontsize=9.5)
    small = highest - lowest < 10.0 and highest < 10_000.0
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.2f}" if small else f"{value:,.0f}"))
    if 0 < len(trades) <= MOST_MARKED_TRADES:
        _mark_trades(axes, times, equity, trades)
    _style(axes)


def _mark_trades(
    axes: Axes, times: npt.NDArray[np.datetime64], equity: FloatArray, trades: Sequence[ClosedTrade]
) -> None:
    closed = np.array([trade.closed_at for trade in trades], dtype=np.int64)
    won = np.array([trade.profit > 0 for trade in trades])
    at = np.minimum(np.searchsorted(times.astype(np.int64), closed), len(times) - 1)
    for group, colour, label in ((won, _WIN, "trade won"), (~won, _LOSS, "trade lost")):
        if group.any():
            axes.scatter(
                times[at[group]], equity[at[group]], s=17, color=colour, edgecolors="white", linewidths=0.6, zorder=4
            ).set_label(label)
    axes.legend(loc="best", frameon=False, fontsize=8.5, labelcolor=_MUTED, handletextpad=0.2)


def _draw_drawdown(axes: Axes, times: npt.NDArray[np.datetime64], falls: FloatArray) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    shown = thin_out(falls)
    axes.fill_between(times[shown], falls[shown], 0.0, color=_LOSS, alpha=0.22, linewidth=0.0, zorder=2)
    axes.plot(times[shown], falls[shown], color=_LOSS, linewidth=0.8, zorder=3)
    deepest = min(float(falls.min()), -0.001)
    axes.set_ylim(1.12 * deepest, -0.04 * deepest)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{100.0 * value:g} %".replace("-", "\N{MINUS SIGN}"))
    )
    axes.set_ylabel("Drawdown", color=_MUTED, fontsize=9.5)
    _style(axes)


def _style(axes: Axes) -> None:
    axes.grid(visible=True, color=_GRID, linewidth=0.7, zorder=0)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_GRID)
    axes.tick_params(colors=_MUTED, labelsize=9, length=0)
    axes.margins(x=0.0, y=0.06)
    axes.yaxis.set_label_coords(-0.066, 0.5)


def _style_dates(axes: Axes, times: npt.NDArray[np.datetime64]) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(minticks=4, maxticks=10)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    formats = ["%Y", "%b", "%d %b", "%H:%M", "%H:%M", "%H:%M:%S"]
    at_zero = ["", "%Y", "%b", "%d %b", "%H:%M", "%H:%M"]
    axes.xaxis.set_major_formatter(
        ConciseDateFormatter(  # type: ignore[no-untyped-call]
            locator, formats=formats, zero_formats=at_zero, show_offset=False
        )
    )
    axes.set_xlim(times[0], times[-1])
