"""The look of the charts. Colours of axes, grids and words come from the page's style sheet, so that they suit light and
dark pages alike (https://docs.bokeh.org/en/latest/docs/user_guide/styling/visuals.html); those of data are here and suit
both."""

from __future__ import annotations

from typing import Any, Final

from bokeh.models import DatetimeTickFormatter, FixedTicker, NoOverlap, Range1d, Tool
from bokeh.plotting import figure

from backtest.report.panels import round_values

LINE: Final = "#2f74b5"
HOLD: Final = "#98a3ad"
GAIN: Final = "#2a9d6b"
LOSS: Final = "#cf4f43"
MEMORY: Final = "#8a63c7"
RIVALS: Final = ("#d08a2e", MEMORY)
"""Of the other arms of a walk."""

FONT: Final = "Inter, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif"
LABEL_SIZE: Final = "12px"
WORDS: Final = "#7a8793"
"""Of legends, which the page's style sheet does not reach."""
PERCENT: Final = "0.[0]%"
DATE: Final = "%d %b %Y"
DATE_AND_TIME: Final = "%d %b %Y %H:%M"


def chart(height: int, *, x_range: Range1d | None = None, dates: bool = True, **options: Any) -> figure:
    """An empty chart that is as wide as the page lets it, with tools to zoom along the horizontal axis.

    Args:
        height: pixels.
        x_range: shared with other charts, so that they move together.
        dates: the horizontal axis is time.
        options: of ``bokeh.plotting.figure``.
    """
    drawn = figure(
        height=height,
        sizing_mode="stretch_width",
        tools="xpan,xbox_zoom,xwheel_zoom,reset" if dates else "",
        active_drag="xbox_zoom" if dates else None,
        toolbar_location="above" if dates else None,
        x_axis_type="datetime" if dates else "auto",
        background_fill_color=None,
        border_fill_color=None,
        outline_line_color=None,
        min_border_left=58,
        min_border_right=14,
        **({"x_range": x_range} if x_range is not None else {}),
        **options,
    )
    drawn.toolbar.logo = None
    drawn.toolbar.autohide = True
    drawn.xgrid.visible = False
    for axis in drawn.axis:
        axis.axis_line_color = None
        axis.major_tick_line_color = None
        axis.minor_tick_line_color = None
        axis.major_label_text_font = FONT
        axis.major_label_text_font_size = LABEL_SIZE
        axis.axis_label_text_font = FONT
        axis.axis_label_text_font_size = LABEL_SIZE
        axis.axis_label_text_font_style = "normal"
    if dates:
        # On a telephone there is room for half of them.
        drawn.xaxis.major_label_policy = NoOverlap(min_distance=30)
        drawn.xaxis.formatter = DatetimeTickFormatter(
            hours="%d %b %H:%M", days="%d %b", months="%b %Y", years="%Y", minutes="%H:%M", hourmin="%H:%M"
        )
    return drawn


def style_legend(drawn: figure) -> None:
    """A legend without a box, above the chart and off its lines."""
    for legend in list(drawn.legend):
        drawn.add_layout(legend, "above")
        legend.orientation = "horizontal"
        legend.location = "top_left"
        # Two short lines are narrower than one: a telephone shows them too.
        legend.nrows = 1 if len(legend.items) <= 2 else 2
        legend.label_text_color = WORDS
        legend.background_fill_color = None
        legend.border_line_color = None
        legend.label_text_font = FONT
        legend.label_text_font_size = LABEL_SIZE
        legend.padding = 0
        legend.margin = 4
        legend.glyph_height = 12
        legend.click_policy = "mute"


def ticks_at_round_values(drawn: figure, low: float, high: float) -> None:
    """For a logarithmic axis: labels at round values.

    Args:
        drawn: the chart.
        low: least value that is shown, above 0.
        high: largest value that is shown.
    """
    drawn.yaxis.ticker = drawn.ygrid.ticker = FixedTicker(ticks=list(round_values(low, high)))


def without_tools(drawn: figure, *tools: Tool) -> None:
    """Only these tools, and no bar for them."""
    drawn.tools = list(tools)
    drawn.toolbar_location = None
