"""The part of ``docs/results.md`` about walking forward: what ``recall walk-forward --json`` said, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from backtest.walk_forward.listing import WALKS
from benchmarks.harness import BenchmarkError, commit
from benchmarks.tasks import PAGE
from benchmarks.walk_plot import PICTURE, plot_walk
from bot.config import stored_config
from bot.errors import UsageError
from strategies.bars import format_time

_BEGIN: Final = "<!-- from recall walk-forward: begin -->"
_END: Final = "<!-- from recall walk-forward: end -->"
_FIGURES: Final = (
    ("total_return", "total return", "{:+.2%}"),
    ("annual_return", "annual return", "{:+.2%}"),
    ("volatility", "volatility, annual", "{:.1%}"),
    ("sharpe_ratio", "Sharpe ratio", "{:+.2f}"),
    ("max_drawdown", "deepest drawdown", "{:.1%}"),
    ("trades", "round trips", "{:,}"),
    ("win_rate", "won, after costs", "{:.1%}"),
    ("profit_factor", "profit factor", "{:.2f}"),
    ("exposure_time", "time in the market", "{:.1%}"),
    ("annual_turnover", "turnover, times mean equity a year", "{:,.0f}"),
    ("fees_paid", "fees, of 10,000 at the beginning", "{:,.0f}"),
    ("slippage_paid", "slippage, likewise", "{:,.0f}"),
    ("funding_paid", "funding, likewise", "{:,.0f}"),
    ("beta", "beta against holding", "{:+.2f}"),
)


def write_walk(source: Path, *, page: Path = PAGE, code: str | None = None, picture: Path = PICTURE) -> None:
    """Put a walk into the page, in place of the one that it had, and draw its picture.

    Args:
        source: what ``recall walk-forward --json`` printed.
        page: the page.
        code: the commit that walked; the present one by default.
        picture: file to draw.

    Raises:
        BenchmarkError: the file is no such document, or the folder of the walk is not there any more.
    """
    try:
        document = json.loads(source.read_text(encoding="utf-8"))
        block = render(document, code or commit())
        config = stored_config(document["config"], document["walk_id"])
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise BenchmarkError(
            f"{source} is not what recall walk-forward --json prints ({problem!r}); give it the whole output"
        ) from None
    try:
        plot_walk(config.storage.data_dir / WALKS / document["walk_id"], config, picture)
    except (OSError, UsageError) as problem:
        raise BenchmarkError(f"the windows of {source} cannot be drawn: {problem}") from None
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    page.write_text(with_walk(text, f"{_BEGIN}\n\n{block}\n\n{_END}"), encoding="utf-8")


def walk_of(text: str) -> str:
    """What a page says of a walk, with its marks; empty where it says nothing."""
    inside = text.partition(_BEGIN)[2].partition(_END)[0]
    return f"{_BEGIN}{inside}{_END}" if inside else ""


def with_walk(text: str, block: str) -> str:
    """A page with this about a walk in place of what it had; before its second part where it had nothing."""
    known = walk_of(text)
    if known:
        return text.replace(known, block)
    if not block:
        return text
    head, mark, rest = text.partition("\n## ")
    return f"{head.rstrip()}\n\n{block}\n{mark}{rest}"


def render(document: Mapping[str, Any], code: str) -> str:
    """The part as text."""
    arms = document["arms"]
    significance = document["significance"]
    names = list(arms)
    rows = []
    for place, first in enumerate(arms[names[0]]["windows"]):
        span = f"{format_time(first['start'])[:10]} to {format_time(first['end'])[:10]}"
        cells = [f"{arms[name]['windows'][place]['total_return']:+.2%}" for name in names]
        rows.append([span, f"{first['hold_return']:+.2%}", *cells])
    figures = [
        [words, *(_cell(arms[name]["metrics"][figure], form) for name in names)] for figure, words, form in _FIGURES
    ]
    sentences = [*significance["sentences"], *document["certificate"]["sentences"]]
    return "\n\n".join(
        [
            "## Walking forward",
            f"{document['strategy']} on {', '.join(document['symbols'])}, interval {document['interval']}, trained at the "
            f"beginning of every window, {_settings(document)}, commit `{code}`. Every window begins flat with the same "
            "cash; how, and what the tests are: "
            "[backtesting](backtesting.md). What it said:",
            "\n".join(f"> {sentence}" + ("" if sentence is sentences[-1] else "  ") for sentence in sentences),
            "![Growth and drawdown of the walk](images/walk_forward.png)",
            _table(["window", "hold", *names], rows),
            _table(["all windows", *names], figures),
            f"With 95 % confidence: annual return {_interval(significance['annual_return'], '{:+.1%}')}, Sharpe ratio "
            f"{_interval(significance['sharpe_ratio'], '{:+.2f}')}"
            + (
                f", annual log return with the memory less that with shuffled outcomes "
                f"{_interval(significance['memory']['difference'], '{:+.2f}')}."
                if significance["memory"] is not None
                else "."
            ),
        ]
    )


def _settings(document: Mapping[str, Any]) -> str:
    """The settings that decide most of what a walk costs and learns."""
    config = document["config"]
    costs, fills = config["costs"], config["fills"]
    return (
        f"{config['training']['epochs']} epochs, forecasts held {config['signal']['holding_bars']} bars, taker "
        f"fee {float(costs['taker_fee']):.3%}, slippage {float(costs['slippage']):.2%}, impact {fills['impact']:g}, funding at "
        f"the stored rates, else {float(fills['funding_rate']):.2%} paid by both sides"
    )


def _interval(figure: Mapping[str, Any], form: str) -> str:
    if figure["value"] is None:
        return "not defined"
    return f"{form.format(figure['value'])} ({form.format(figure['low'])} to {form.format(figure['high'])})"


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _table(headings: list[str], rows: list[list[str]]) -> str:
    lines = [headings, ["---", *["---:"] * (len(headings) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
