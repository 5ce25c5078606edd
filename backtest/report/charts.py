"""Charts of an account: equity, drawdown and exposure over one axis of time, rolling Sharpe ratio, and daily returns."""

from __future__ import annotations

import numpy as np
from bokeh.layouts import column
from bokeh.models import BasicTicker, ColumnDataSource, HoverTool, LayoutDOM, NumeralTickFormatter, Range1d, Span
from bokeh.plotting import figure

from backtest.metrics import drawdowns
from backtest.report.material import Material
from backtest.report.panels import LOG_SCALE_FROM
from backtest.report.returns import DailyReturns, rolling_sharpe
from backtest.report.style import (
    DATE,
    GAIN,
    HOLD,
    LINE,
    LOSS,
    PERCENT,
    RIVALS,
    chart,
    style_legend,
    ticks_at_round_values,
    without_tools,
)
from backtest.report.thinning import thin_out
from strategies.bars import FloatArray, IntArray

_BINS = 60
_STRETCHES = 500
"""Of which the means are drawn where a run has more than twice as many closes."""


def account_chart(material: Material) -> LayoutDOM:
    """Equity beside holding, drawdown below, exposure at the bottom; they zoom together."""
    start, end = int(material.times[0]), int(material.times[-1])
    span = Range1d(start, end, bounds=(start, end))
    rows = [_equity(material, span), _drawdown(material, span)]
    if len(material.exposure.times):
        rows.append(_exposure(material, span))
    for row in rows[:-1]:
        row.xaxis.visible = False
    return column(*rows, sizing_mode="stretch_width", spacing=0)


def rolling_chart(daily: DailyReturns, days_per_year: int) -> LayoutDOM | None:
    """The Sharpe ratio of the last days over time; ``None`` while there are too few."""
    times, ratio = rolling_sharpe(daily, days_per_year)
    known = np.isfinite(ratio)
    if not known.any():
        return None
    drawn = chart(260)
    line = drawn.line(times, ratio, color=LINE, line_width=1.5)
    drawn.add_layout(Span(location=0.0, dimension="width", line_color=HOLD, line_width=1))
    without_tools(drawn, _hover(line, ("Sharpe ratio", "@y{0.00}")))
    return drawn


def distribution_chart(daily: DailyReturns) -> LayoutDOM | None:
    """How often which daily return came, days without any change left out; ``None`` for fewer than two others."""
    moved = daily.returns[daily.returns != 0.0]
    if len(moved) < 2:
        return None
    edges = _bin_edges(moved)
    counts, _ = np.histogram(moved, bins=edges)
    source = ColumnDataSource(
        {
            "left": edges[:-1],
            "right": edges[1:],
            "count": counts,
            "colour": [GAIN if middle > 0.0 else LOSS for middle in 0.5 * (edges[:-1] + edges[1:])],
        }
    )
    drawn = chart(260, dates=False)
    bars = drawn.quad(
        left="left", right="right", bottom=0, top="count", color="colour", alpha=0.8, line_color=None, source=source
    )
    drawn.add_layout(
        Span(
            location=float(daily.returns.mean()),
            dimension="height",
            line_color=HOLD,
            line_dash="dashed",
            line_width=1.5,
        )
    )
    drawn.y_range.start = 0
    drawn.yaxis.ticker = BasicTicker(min_interval=1)
    drawn.xaxis.formatter = NumeralTickFormatter(format=PERCENT)
    tips = [("days", "@count"), ("from", "@left{0.00%}"), ("to", "@right{0.00%}")]
    without_tools(drawn, HoverTool(renderers=[bars], tooltips=tips))
    return drawn


def add_area(drawn: figure, times: IntArray, values: FloatArray, colour: str) -> None:
    """A line with the area between it and zero, and what it says under the pointer."""
    drawn.varea(times, 0.0, values, color=colour, alpha=0.22)
    line = drawn.line(times, values, color=colour, line_width=1.1)
    drawn.add_tools(_hover(line, ("", "@y{0.0%}")))
    drawn.yaxis.formatter = NumeralTickFormatter(format=PERCENT)


def _equity(material: Material, span: Range1d) -> figure:
    rivals = {} if material.walk is None else material.walk.rivals
    curves = [each for each in (material.equity, material.hold[1], *rivals.values()) if len(each)]
    lowest, highest = min(float(each.min()) for each in curves), max(float(each.max()) for each in curves)
    wide = lowest > 0.0 and highest / lowest > LOG_SCALE_FROM
    drawn = chart(300, x_range=span, y_axis_type="log" if wide else "linear")
    times, held = material.hold
    if len(held):
        shown = thin_out(held)
        drawn.line(times[shown], held[shown], color=HOLD, line_width=1.3, legend_label="holding")
    for (name, curve), colour in zip(rivals.items(), RIVALS, strict=False):
        shown = thin_out(curve)
        drawn.line(material.times[shown], curve[shown], color=colour, line_width=1.3, legend_label=name)
    shown = thin_out(material.equity)
    name = "this run" if material.walk is None else "this walk"
    line = drawn.line(material.times[shown], material.equity[shown], color=LINE, line_width=1.8, legend_label=name)
    for window in () if material.walk is None else material.walk.windows[1:]:
        drawn.add_layout(
            Span(location=window.start, dimension="height", line_color=HOLD, line_dash="dotted", line_width=1)
        )
    drawn.add_layout(
        Span(location=material.initial_cash, dimension="width", line_color=HOLD, line_dash="dotted", line_width=1)
    )
    drawn.add_tools(_hover(line, ("equity", "@y{0,0}")))
    drawn.yaxis.formatter = NumeralTickFormatter(format="0,0")
    drawn.yaxis.axis_label = "Equity, logarithmic" if wide else "Equity"
    if wide:
        ticks_at_round_values(drawn, lowest, highest)
    style_legend(drawn)
    return drawn


def _drawdown(material: Material, span: Range1d) -> figure:
    falls = drawdowns(material.equity, material.initial_cash)
    shown = thin_out(falls)
    drawn = chart(130, x_range=span)
    add_area(drawn, material.times[shown], falls[shown], LOSS)
    drawn.yaxis.axis_label = "Drawdown"
    drawn.yaxis.ticker.desired_num_ticks = 3
    drawn.toolbar_location = None
    return drawn


def _exposure(material: Material, span: Range1d) -> figure:
    """Net exposure, with the gross one as a line; of long runs the means of stretches, which thousands of turns would hide."""
    exposure = material.exposure
    times, net, gross = exposure.times, np.nan_to_num(exposure.net), np.nan_to_num(exposure.gross)
    if len(times) > 2 * _STRETCHES:
        starts = np.linspace(0, len(times), _STRETCHES, endpoint=False).astype(np.intp)
        lengths = np.diff(starts, append=len(times))
        times = times[np.append(starts[1:], len(times)) - 1]
        net, gross = (np.add.reduceat(values, starts) / lengths for values in (net, gross))
    drawn = chart(140, x_range=span)
    drawn.line(times, gross, color=HOLD, line_width=1.1)
    add_area(drawn, times, net, LINE)
    drawn.yaxis.axis_label = "Exposure"
    drawn.yaxis.ticker.desired_num_ticks = 3
    drawn.toolbar_location = None
    return drawn


def _hover(line: object, *values: tuple[str, str]) -> HoverTool:
    tips = [("", f"@x{{{DATE}}}"), *values]
    return HoverTool(renderers=[line], mode="vline", tooltips=tips, formatters={"@x": "datetime"})


def _bin_edges(returns: FloatArray) -> FloatArray:
    """Bins of equal width with one edge at zero, so that no bar mixes gains and losses."""
    low, high = float(returns.min()), float(returns.max())
    width = max(high - low, 1e-6) / _BINS
    return np.arange(np.floor(low / width), np.ceil(high / width) + 1) * width
