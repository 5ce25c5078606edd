"""The picture of a walk: growth of its arms and of holding, and how far each was below its highest value."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from backtest.metrics import drawdowns
from backtest.report.panels import LOG_SCALE_FROM, style_axes, style_dates
from backtest.report.thinning import thin_out
from backtest.report.walk_material import gather_walk
from bot.config import Config
from strategies.bars import FloatArray

PICTURE: Final = Path(__file__).resolve().parents[1] / "docs" / "images" / "walk_forward.png"
_COLOURS: Final = {
    "with memory": "#1f5fa8",
    "without memory": "#d08a2e",
    "shuffled outcomes": "#8a63c7",
    "hold": "#98a3ad",
}


def plot_walk(folder: Path, config: Config, path: Path = PICTURE) -> None:
    """Draw a walk.

    Args:
        folder: of the walk, with its windows.
        config: says where candles are.
        path: file to write.

    Raises:
        UsageError: the folder does not hold a whole walk.
    """
    material = gather_walk(folder, config)
    assert material.walk is not None
    curves = {"hold": material.hold[1], **material.walk.rivals, "with memory": material.equity}
    figure = Figure(figsize=(11.0, 6.0), dpi=120, layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [3, 1.3]})
    times = material.times.astype("datetime64[ms]")
    for name, equity in curves.items():
        growth = equity / material.initial_cash
        _line(upper, times, growth, name)
        _line(lower, times, drawdowns(growth, 1.0), name)
    for axes in (upper, lower):
        for window in material.walk.windows[1:]:
            axes.axvline(np.datetime64(window.start, "ms"), color="0.8", linewidth=0.8, linestyle=(0, (2, 3)))
    _scale(upper, [equity / material.initial_cash for equity in curves.values()])
    upper.legend(frameon=False, loc="upper left", fontsize=9)
    lower.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100.0 * value:.0f} %"))
    style_axes(lower, "Drawdown")
    style_dates(lower)
    path.parent.mkdir(parents=True, exist_ok=True)
    # No date and no version in the file: the same walk gives the same bytes.
    figure.savefig(path, metadata={"Software": None})


def _line(axes: Any, times: Any, values: FloatArray, name: str) -> None:
    shown = thin_out(values)
    width = 1.6 if name == "with memory" else 1.1
    axes.plot(times[shown], values[shown], color=_COLOURS[name], linewidth=width, label=name)


def _scale(axes: Any, growths: list[FloatArray]) -> None:
    lowest, highest = min(float(each.min()) for each in growths), max(float(each.max()) for each in growths)
    title = "Growth of 1"
    if lowest > 0.0 and highest / lowest > LOG_SCALE_FROM:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if highest / lowest < 200.0 else (1.0,)))
        axes.yaxis.set_minor_locator(NullLocator())
        title += ", logarithmic"
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.4g}"))
    style_axes(axes, title)
