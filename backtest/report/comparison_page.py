"""Several runs as one HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from bokeh import __version__ as bokeh_version
from bokeh.layouts import column
from bokeh.models import HoverTool, LayoutDOM, NumeralTickFormatter, Range1d, Span

from backtest.metrics import drawdowns
from backtest.report.comparison import FIGURES, Comparison, shown_figure
from backtest.report.material import Material
from backtest.report.panels import LOG_SCALE_FROM
from backtest.report.rendering import page_of
from backtest.report.style import (
    DATE,
    GAIN,
    HOLD,
    LINE,
    LOSS,
    MEMORY,
    PERCENT,
    chart,
    style_legend,
    ticks_at_round_values,
)
from backtest.report.thinning import thin_out
from backtest.report.verdict import verdict_of

COLOURS: Final = (LINE, "#d08a2e", GAIN, MEMORY, LOSS, "#4aa3a8", HOLD)


def render_comparison(materials: Sequence[Material], comparison: Comparison) -> str:
    """The whole page, the same bytes for the same runs."""
    return page_of(
        "comparison.html",
        {"growth": growth_chart(materials)},
        title=" and ".join(comparison.runs),
        runs=[
            {
                "id": each.about.run_id,
                "kind": str(each.about.kind),
                "title": each.title,
                "colour": COLOURS[place % len(COLOURS)],
                "verdict": verdict_of(each.judgement, len(each.trades), each.recollection),
                "clean": each.judgement.certificate.is_clean,
            }
            for place, each in enumerate(materials)
        ],
        figures=[(words, [shown_figure(name, value) for value in comparison.figures[name]]) for name, words in FIGURES],
        differences=comparison.differences,
        first=comparison.runs[0],
        bokeh_version=bokeh_version,
    )


def growth_chart(materials: Sequence[Material]) -> LayoutDOM:
    """Growth of 1 of every run above their drawdowns."""
    start, end = min(int(each.times[0]) for each in materials), max(int(each.times[-1]) for each in materials)
    span = Range1d(start, end, bounds=(start, end))
    growths = [each.equity / each.initial_cash for each in materials]
    lowest, highest = min(float(each.min()) for each in growths), max(float(each.max()) for each in growths)
    wide = lowest > 0.0 and highest / lowest > LOG_SCALE_FROM
    upper, lower = chart(340, x_range=span, y_axis_type="log" if wide else "linear"), chart(170, x_range=span)
    for place, (each, growth) in enumerate(zip(materials, growths, strict=True)):
        colour = COLOURS[place % len(COLOURS)]
        kept, name = thin_out(growth), each.about.run_id
        line = upper.line(each.times[kept], growth[kept], color=colour, line_width=1.7, legend_label=name)
        tips = [(name, "@y{0.000}"), ("", f"@x{{{DATE}}}")]
        upper.add_tools(HoverTool(renderers=[line], mode="vline", tooltips=tips, formatters={"@x": "datetime"}))
        falls = drawdowns(each.equity, each.initial_cash)
        kept = thin_out(np.asarray(falls))
        lower.line(each.times[kept], falls[kept], color=colour, line_width=1.2)
    upper.add_layout(Span(location=1.0, dimension="width", line_color=HOLD, line_dash="dotted", line_width=1))
    upper.xaxis.visible = False
    upper.yaxis.formatter = NumeralTickFormatter(format="0.00")
    upper.yaxis.axis_label = "Growth of 1, logarithmic" if wide else "Growth of 1"
    lower.yaxis.axis_label = "Drawdown"
    lower.yaxis.formatter = NumeralTickFormatter(format=PERCENT)
    lower.toolbar_location = None
    if wide:
        ticks_at_round_values(upper, lowest, highest)
    style_legend(upper)
    for legend in upper.legend:
        legend.nrows = len(legend.items)
    return column(upper, lower, sizing_mode="stretch_width", spacing=0)
