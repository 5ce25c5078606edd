"""The specification's picture of a run: growth, drawdown, distribution of daily returns and rolling Sharpe ratio."""

from __future__ import annotations

import math
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from backtest.metrics import drawdowns
from backtest.report.returns import ROLLING_DAYS, DailyReturns, returns_by_day, rolling_sharpe
from backtest.report.thinning import thin_out
from strategies.bars import Calendar, FloatArray, IntArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.ticker import Formatter

LOG_SCALE_FROM: Final = 3.0
"""Ratio of highest to lowest equity from which a linear axis would hide the early part."""

MOST_TICKS: Final = 8
STEPS: Final = (
    (1.0,),
    (1.0, 3.0),
    (1.0, 2.0, 5.0),
    (1.0, 1.5, 2.0, 3.0, 5.0, 7.0),
    tuple(1.0 + 0.5 * n for n in range(18)),
)
"""Of a power of ten: where a logarithmic axis has its labels, the coarsest first."""

INK: Final = "#1f2933"
MUTED: Final = "#66737f"
GRID: Final = "#dfe4e8"
LINE: Final = "#1f5fa8"
LOSS: Final = "#c0392b"


def plot_panels(
    path: Path,
    close_times: IntArray,
    equity: FloatArray,
    title: str,
    *,
    initial_cash: Decimal | float,
    calendar: Calendar,
) -> None:
    """Draw the four panels into a PNG file.

    Equity is on a logarithmic axis when its range is wider than ``LOG_SCALE_FROM``. Of long runs the extremes of each
    stretch are drawn, so that no peak or trough is lost. Uses no state that other threads or notebooks share.

    Args:
        path: file to write; its folder must exist.
        close_times: close of every bar batch, ``[n]`` milliseconds.
        equity: equity at these closes, ``[n]`` quote units.
        title: what was run.
        initial_cash: what return and drawdown start from.
        calendar: decides what a day and a year are.

    Raises:
        ValueError: there are fewer than two bars to draw.
    """
    if len(equity) < 2:
        raise ValueError(
            f"the panels of a run need at least two bars, this run has {len(equity)}; choose a longer span"
        )
    # Only a plot pays for importing matplotlib, which takes longer than most commands.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14.0, 9.0), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 2, gridspec_kw={"hspace": 0.28, "wspace": 0.16})
    figure.subplots_adjust(left=0.065, right=0.98, top=0.865, bottom=0.06)
    start = float(initial_cash)
    daily = returns_by_day(close_times, equity, start, calendar)
    falls = drawdowns(equity, start)
    times = close_times.astype("datetime64[ms]")
    _draw_growth(axes[0, 0], times, equity / start)
    _draw_drawdown(axes[0, 1], times, falls)
    _draw_distribution(axes[1, 0], daily)
    _draw_rolling(axes[1, 1], daily, calendar)
    caption = f"return {equity[-1] / start - 1.0:+,.1%}   ·   deepest drawdown {float(falls.min()):,.1%}"
    caption += f"   ·   {len(daily):,} days"
    figure.text(0.065, 0.963, title, fontsize=14, fontweight="bold", color=INK, va="center")
    figure.text(0.065, 0.931, caption.replace("-", "\N{MINUS SIGN}"), fontsize=10.5, color=MUTED, va="center")
    figure.savefig(path, format="png", metadata={"Software": None, "Title": title})


def round_values(low: float, high: float) -> tuple[float, ...]:
    """Labels of a logarithmic axis from ``low`` to ``high``, both above 0: as many round values as there is room for."""
    powers = [10.0**power for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
    found = [
        tuple(step * power for power in powers for step in steps if low <= step * power <= high) for steps in STEPS
    ]
    return max([each for each in found if len(each) <= MOST_TICKS] or found[:1], key=len)


def style_axes(axes: Axes, title: str) -> None:
    """The look of all our pictures: a quiet grid, no box, the title on the left."""
    axes.set_title(title, loc="left", fontsize=11, color=INK, fontweight="bold", pad=9)
    axes.grid(visible=True, color=GRID, linewidth=0.7, zorder=0)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(GRID)
    axes.tick_params(colors=MUTED, labelsize=9, length=0)
    axes.xaxis.label.set_color(MUTED)
    axes.yaxis.label.set_color(MUTED)


def style_dates(axes: Axes) -> None:
    """Dates along the horizontal axis, as few words as they need."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    # Nine, because eight half years just below four are more than fewer would hold.
    locator = AutoDateLocator(minticks=4, maxticks=9)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    formats = ["%Y", "%b", "%d %b", "%H:%M", "%H:%M", "%H:%M:%S"]
    at_zero = ["", "%Y", "%b", "%d %b", "%H:%M", "%H:%M"]
    axes.xaxis.set_major_formatter(
        ConciseDateFormatter(  # type: ignore[no-untyped-call]
            locator, formats=formats, zero_formats=at_zero, show_offset=False
        )
    )


def _draw_growth(axes: Axes, times: npt.NDArray[np.datetime64], growth: FloatArray) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    shown = thin_out(growth)
    axes.plot(times[shown], growth[shown], color=LINE, linewidth=1.2, solid_joinstyle="round", zorder=3)
    axes.axhline(1.0, color=MUTED, linewidth=0.8, linestyle=(0, (4, 4)), zorder=2)
    lowest, highest = float(growth.min()), float(growth.max())
    title = "Growth of 1"
    if lowest > 0.0 and highest / lowest > LOG_SCALE_FROM:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(FixedLocator(round_values(lowest, highest)))
        axes.yaxis.set_minor_locator(NullLocator())
        title += ", logarithmic"
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.4g}"))
    axes.set_xlim(times[0], times[-1])
    style_axes(axes, title)
    style_dates(axes)


def _draw_drawdown(axes: Axes, times: npt.NDArray[np.datetime64], falls: FloatArray) -> None:
    shown = thin_out(falls)
    axes.fill_between(times[shown], falls[shown], 0.0, color=LOSS, alpha=0.22, linewidth=0.0, zorder=2)
    axes.plot(times[shown], falls[shown], color=LOSS, linewidth=0.8, zorder=3)
    deepest = min(float(falls.min()), -0.001)
    axes.set_ylim(1.12 * deepest, -0.04 * deepest)
    axes.set_xlim(times[0], times[-1])
    axes.yaxis.set_major_formatter(_percent_formatter())
    style_axes(axes, "Drawdown")
    style_dates(axes)


def _draw_distribution(axes: Axes, daily: DailyReturns) -> None:
    from matplotlib.ticker import MaxNLocator

    if len(daily) > 1:
        axes.hist(daily.returns, bins=50, color=LINE, alpha=0.85, zorder=2)
        axes.axvline(float(daily.returns.mean()), color=MUTED, linewidth=1.0, linestyle=(0, (4, 4)), zorder=3)
    axes.axvline(0.0, color=LOSS, linewidth=1.0, zorder=3)
    axes.xaxis.set_major_formatter(_percent_formatter())
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel("days")
    style_axes(axes, "Daily returns")


def _draw_rolling(axes: Axes, daily: DailyReturns, calendar: Calendar) -> None:
    times, ratio = rolling_sharpe(daily, calendar.days_per_year)
    axes.axhline(0.0, color=LOSS, linewidth=1.0, zorder=2)
    if len(ratio):
        shown = times.astype("datetime64[ms]")
        axes.plot(shown, ratio, color=LINE, linewidth=1.1, zorder=3)
        style_dates(axes)
    else:
        axes.set_xticks([])
        text = f"needs {ROLLING_DAYS} days"
        axes.text(0.5, 0.55, text, transform=axes.transAxes, ha="center", color=MUTED, fontsize=10)
    style_axes(axes, f"Sharpe ratio of the last {ROLLING_DAYS} days")


def _percent_formatter() -> Formatter:
    from matplotlib.ticker import FuncFormatter

    return FuncFormatter(lambda value, _: f"{100.0 * value:.3g} %".replace("-", "\N{MINUS SIGN}"))
