"""Trades on candles, fast whatever the number of bars: a page holds some thousand candles of a run, shows some hundred of
them, and joins as many as it takes when one looks at a wider span. Trades are all kept."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from typing import Final

import numpy as np
from bokeh.layouts import column
from bokeh.models import ColumnDataSource, CustomJS, HoverTool, LayoutDOM, NumeralTickFormatter, Range1d, RangeTool
from bokeh.plotting import figure

from backtest.report.style import DATE_AND_TIME, GAIN, LINE, LOSS, MEMORY, chart
from backtest.report.thinning import thin_out
from bot.portfolio import ClosedTrade
from strategies.bars import BarSeries, FloatArray, IntArray

CANDLES_HELD: Final = 12_000
"""Candles of all symbols together that a page holds."""
CANDLES_SHOWN: Final = 360
TRADES_AT_FIRST: Final = 25
"""The last ones, which the chart opens on."""
ON_OPENING: Final = "on-opening"
"""Name of callbacks that the page runs once when its charts are there."""
Columns = dict[str, IntArray | FloatArray]


def joined_candles(series: BarSeries, most: int) -> Columns:
    """At most ``most`` candles over the same span: each joins as many neighbouring bars as it takes.

    Returns:
        Columns ``time`` (open time, milliseconds), ``open``, ``high``, ``low`` and ``close``, ``[n]`` each.
    """
    count = len(series)
    starts = np.arange(0, count, -(-count // most)) if count else np.empty(0, dtype=np.intp)
    ends = np.append(starts[1:], count) - 1 if count else starts
    return {
        "time": series.open_time[starts],
        "open": series.open[starts],
        "high": np.maximum.reduceat(series.high, starts) if count else series.high,
        "low": np.minimum.reduceat(series.low, starts) if count else series.low,
        "close": series.close[ends],
    }


def candle_chart(series: BarSeries, trades: Sequence[ClosedTrade], held: int) -> LayoutDOM:
    """Candles of one symbol with its trades, above the whole span in small, in which the part that is shown can be moved.

    Args:
        series: the bars of the run, at least one.
        trades: round trips of this symbol.
        held: candles that the page may hold of it.
    """
    base = joined_candles(series, held)
    whole = (int(series.open_time[0]), int(series.close_time[-1]))
    span = Range1d(*_first_view(trades, whole), bounds=whole)
    heights = Range1d(float(series.low.min()), float(series.high.max()))
    drawn = chart(400, x_range=span, y_range=heights)
    shown = _add_candles(drawn)
    callback = CustomJS(
        name=ON_OPENING,
        args={
            "base": ColumnDataSource({name: _narrow(values) for name, values in base.items()}),
            "shown": shown,
            "span": span,
            "heights": heights,
            "most": CANDLES_SHOWN,
            "gain": GAIN,
            "loss": LOSS,
        },
        code=resources.files("backtest.report").joinpath("templates/candles.js").read_text(encoding="utf-8"),
    )
    for name in ("start", "end"):
        span.js_on_change(name, callback)
    _add_trades(drawn, trades)
    drawn.yaxis.formatter = NumeralTickFormatter(format="0,0.[00000]")
    return column(drawn, _overview(base, span, whole), sizing_mode="stretch_width", spacing=0)


def _first_view(trades: Sequence[ClosedTrade], whole: tuple[int, int]) -> tuple[int, int]:
    last = trades[-TRADES_AT_FIRST:]
    if not last:
        return whole
    first, end = min(trade.opened_at for trade in last), max(trade.closed_at for trade in last)
    margin = max((end - first) // 20, (whole[1] - whole[0]) // 2000)
    return max(whole[0], first - margin), min(whole[1], end + margin)


def _narrow(values: IntArray | FloatArray) -> FloatArray | np.ndarray[tuple[int], np.dtype[np.float32]]:
    """Times as float64, as JavaScript has no others that are wide enough; prices in half the room."""
    return values.astype(np.float64) if values.dtype == np.int64 else values.astype(np.float32)


def _add_candles(drawn: figure) -> ColumnDataSource:
    names = ("time", "open", "high", "low", "close", "width", "colour")
    source = ColumnDataSource({name: [] for name in names})
    drawn.segment("time", "low", "time", "high", color="colour", line_width=1, source=source)
    bodies = drawn.vbar("time", "width", "open", "close", color="colour", line_color="colour", source=source)
    tips = [("", f"@time{{{DATE_AND_TIME}}}"), ("open", "@open{0,0.[00000]}"), ("high", "@high{0,0.[00000]}")]
    tips += [("low", "@low{0,0.[00000]}"), ("close", "@close{0,0.[00000]}")]
    drawn.add_tools(HoverTool(renderers=[bodies], tooltips=tips, formatters={"@time": "datetime"}))
    return source


def _add_trades(drawn: figure, trades: Sequence[ClosedTrade]) -> None:
    if not trades:
        return
    long = np.array([trade.side == "long" for trade in trades])
    source = ColumnDataSource(
        {
            "opened": np.array([trade.opened_at for trade in trades], dtype=np.float64),
            "closed": np.array([trade.closed_at for trade in trades], dtype=np.float64),
            "entry": np.array([float(trade.entry_price) for trade in trades]),
            "exit": np.array([float(trade.exit_price) for trade in trades]),
            "profit": np.array([float(trade.profit) for trade in trades], dtype=np.float32),
            "side": [trade.side for trade in trades],
            "marker": ["triangle" if each else "inverted_triangle" for each in long],
            "colour": [LINE if each else MEMORY for each in long],
            "outcome": [GAIN if trade.profit > 0 else LOSS for trade in trades],
        }
    )
    drawn.segment("opened", "entry", "closed", "exit", color="outcome", line_width=2, alpha=0.85, source=source)
    entries = drawn.scatter(
        "opened", "entry", marker="marker", size=10, color="colour", line_color="white", line_width=0.6, source=source
    )
    exits = drawn.scatter(
        "closed", "exit", marker="circle", size=7, color="outcome", line_color="white", line_width=0.6, source=source
    )
    tips = [
        ("", "@side, profit @profit{+0,0.00}"),
        ("in", f"@entry{{0,0.[00000]}}, @opened{{{DATE_AND_TIME}}}"),
        ("out", f"@exit{{0,0.[00000]}}, @closed{{{DATE_AND_TIME}}}"),
    ]
    drawn.add_tools(
        HoverTool(renderers=[entries, exits], tooltips=tips, formatters={"@opened": "datetime", "@closed": "datetime"})
    )


def _overview(base: Columns, span: Range1d, whole: tuple[int, int]) -> figure:
    drawn = chart(84, x_range=Range1d(*whole, bounds=whole))
    kept = thin_out(np.asarray(base["close"], dtype=np.float64), 1000)
    drawn.line(base["time"][kept].astype(np.float64), base["close"][kept].astype(np.float32), color=LINE, line_width=1)
    drawn.yaxis.visible = False
    drawn.ygrid.visible = False
    drawn.toolbar_location = None
    tool = RangeTool(x_range=span, start_gesture="pan")
    tool.overlay.fill_color = LINE
    tool.overlay.fill_alpha = 0.15
    drawn.tools = [tool]
    return drawn
