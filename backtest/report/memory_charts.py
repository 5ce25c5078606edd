"""Charts of what the memory did: its share over time, how new the market looked to it, and what followed its advice."""

from __future__ import annotations

import numpy as np
from bokeh.layouts import column
from bokeh.models import ColumnDataSource, HoverTool, LayoutDOM, NumeralTickFormatter, Range1d, Span, Whisker
from bokeh.plotting import figure

from backtest.report.recollection import Recollection
from backtest.report.style import DATE, HOLD, LINE, MEMORY, PERCENT, chart, without_tools
from backtest.report.thinning import thin_out
from strategies.bars import FloatArray, IntArray

_SMOOTHED_SHARE = 100
"""Lines are means over one such part of the run."""


def attention_chart(recollection: Recollection) -> LayoutDOM | None:
    """Novelty, and where there is a model the memory's share in it, over time; ``None`` where neither is known."""
    outlooks = recollection.outlooks
    lines = [("Memory's share", outlooks.gate, LINE), ("Novelty", outlooks.novelty, MEMORY)]
    known = [(name, values, colour) for name, values, colour in lines if np.isfinite(values).any()]
    if not known:
        return None
    order = np.argsort(outlooks.open_time, kind="stable")
    times = outlooks.open_time[order]
    span = Range1d(int(times[0]), int(times[-1]), bounds=(int(times[0]), int(times[-1])))
    rows = [_smoothed(name, times, values[order], colour, span) for name, values, colour in known]
    for row in rows[:-1]:
        row.xaxis.visible = False
    return column(*rows, sizing_mode="stretch_width", spacing=0)


def advice_chart(recollection: Recollection) -> LayoutDOM | None:
    """What followed, against what the memory said, in groups of equal size; ``None`` where there were too few."""
    said, came, error = recollection.said, recollection.came, recollection.came_error
    if not len(said):
        return None
    source = ColumnDataSource({"said": said, "came": came, "low": came - 2.0 * error, "high": came + 2.0 * error})
    ends = [float(said.min()), float(said.max())]
    lowest, highest = min(*ends, float((came - 2.0 * error).min())), max(*ends, float((came + 2.0 * error).max()))
    margin = 0.04 * (highest - lowest)
    # Whiskers have no say in the range that a chart finds by itself.
    drawn = chart(260, dates=False, y_range=Range1d(lowest - margin, highest + margin))
    drawn.line(ends, ends, color=HOLD, line_dash="dashed", line_width=1.5)
    drawn.add_layout(Span(location=0.0, dimension="width", line_color=HOLD, line_width=1))
    whisker = Whisker(base="said", upper="high", lower="low", source=source, line_color=MEMORY, line_width=1.5)
    whisker.upper_head.size = whisker.lower_head.size = 8
    whisker.upper_head.line_color = whisker.lower_head.line_color = MEMORY
    drawn.add_layout(whisker)
    dots = drawn.scatter("said", "came", size=9, color=MEMORY, line_color="white", source=source)
    drawn.xaxis.axis_label, drawn.yaxis.axis_label = "what the memory said", "what followed"
    for axis in drawn.axis:
        axis.formatter = NumeralTickFormatter(format="0.00%")
    tips = [("said", "@said{0.00%}"), ("followed", "@came{0.00%}"), ("twice its error", "@low{0.00%} to @high{0.00%}")]
    without_tools(drawn, HoverTool(renderers=[dots], tooltips=tips))
    return drawn


def _smoothed(name: str, times: IntArray, values: FloatArray, colour: str, span: Range1d) -> figure:
    known = np.isfinite(values)
    times, values = times[known], values[known]
    drawn = chart(150, x_range=span)
    raw = thin_out(values, 1500)
    drawn.line(times[raw], values[raw], color=colour, alpha=0.28, line_width=1)
    window = max(1, len(values) // _SMOOTHED_SHARE)
    sums = np.concatenate(([0.0], np.cumsum(values)))
    # The mean of the last ones only: a centred one would show the market before it was there.
    starts = np.maximum(0, np.arange(1, len(values) + 1) - window)
    mean = (sums[1:] - sums[starts]) / np.minimum(np.arange(1, len(values) + 1), window)
    shown = thin_out(mean, 1500)
    line = drawn.line(times[shown], mean[shown], color=colour, line_width=2)
    tips = [("", f"@x{{{DATE}}}"), (f"mean of {window:,}", "@y{0.0%}")]
    drawn.add_tools(HoverTool(renderers=[line], mode="vline", tooltips=tips, formatters={"@x": "datetime"}))
    drawn.yaxis.axis_label = name
    drawn.yaxis.formatter = NumeralTickFormatter(format=PERCENT)
    drawn.yaxis.ticker.desired_num_ticks = 4
    drawn.toolbar_location = None
    return drawn
