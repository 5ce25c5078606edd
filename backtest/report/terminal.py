"""What a person sees in the terminal at the end of a run: a table of figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich import box
from rich.columns import Columns
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from strategies.bars import IntArray, format_time

Row = tuple[str, Text | str]

SECTION_WIDTH: Final = 38
"""Two sections side by side fit a terminal of 80 columns."""
UNDEFINED: Final = "–"


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
        document: the figures of ``PerformanceMetrics.to_json`` and, of the run itself, any of ``run_id, model_id, fills, bars,
            bars_per_second, decisions_sha256, trades_sha256, plot``; further keys are not shown.
    """
    console.print(Text(title, style="bold"))
    console.print(Columns([_section_table(name, rows) for name, rows in _sections(document)], padding=(0, 2)))
    facts = _facts(document)
    if facts:
        console.print(_section_table("Run", facts, justify="left", width=None))


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
