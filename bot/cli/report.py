"""``recall report`` and ``recall compare``: one page that shows a run and questions it, and one that holds runs together."""

from __future__ import annotations

from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from bot.cli.common import Context, standard_options
from bot.cli.help import ExampleCommand
from bot.cli.runs import open_journal
from bot.cli.terminal import console, listing, output
from bot.cli.walks import missing_judges
from bot.errors import UsageError

if TYPE_CHECKING:
    from backtest.report.comparison import Comparison

_MODULES: Final = ("bokeh", "jinja2")
"""What draws pages; what judges a result comes with the same extra."""


@click.command(
    cls=ExampleCommand,
    examples=(
        "recall report",
        "recall report RUN --out report.html",
        "recall report WALK",
        "recall report latest --json",
    ),
)
@click.argument("run", default="latest")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="File to write [default: reports/RUN.html]."
)
@standard_options
def report(context: Context, run: str, out: Path | None) -> None:
    """Write one HTML page about RUN: result, trades, memory, and what may be wrong.

    RUN is a replay, a paper or live run, or a walk; 'latest' is the paper or live run last started, else the newest replay.
    The page needs no network, and the same run gives the same bytes. Beside it lies a PNG with its four panels.
    """
    require_extra()
    from backtest.report.page import render_run
    from backtest.report.panels import plot_panels
    from backtest.report.walk_material import find_material

    with closing(open_journal(context)) as journal, console.status("reading the run ..."):
        material = find_material(journal, run, context.config)
        page = render_run(material)
    path = out or context.config.reports_dir / f"{material.about.run_id}.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    picture = path.with_suffix(".png")
    plot_panels(
        picture,
        material.times,
        material.equity,
        material.title,
        initial_cash=material.initial_cash,
        calendar=material.calendar,
    )
    if context.as_json:
        written = {
            "run_id": material.about.run_id,
            "report": str(path),
            "picture": str(picture),
            "bytes": len(page.encode()),
        }
        context.answer(written | material.judgement.to_json())
    else:
        output.print(str(path), soft_wrap=True)


@click.command(
    cls=ExampleCommand,
    examples=(
        "recall compare RUN OTHER",
        "recall compare RUN OTHER THIRD --out comparison.html",
        "recall compare RUN OTHER --json",
    ),
)
@click.argument("runs", nargs=-1, required=True, metavar="RUN OTHER...")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Also write an HTML page to this file.")
@standard_options
def compare(context: Context, runs: tuple[str, ...], out: Path | None) -> None:
    """Hold runs or walks against the first of them: figures, verdicts, and differences.

    The difference of returns is that of the days that both runs have, with an interval that holds 95 % of the resamples of a
    block bootstrap. Where it holds zero, the runs cannot be told apart.
    """
    require_extra()
    from backtest.report.comparison import compare as hold_together
    from backtest.report.comparison import require_different
    from backtest.report.walk_material import find_material

    require_different(runs)
    with closing(open_journal(context)) as journal, console.status("reading the runs ..."):
        materials = [find_material(journal, run, context.config) for run in runs]
        found = hold_together(materials)
    document = found.to_json()
    if out is not None:
        from backtest.report.comparison_page import render_comparison

        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(render_comparison(materials, found), encoding="utf-8")
        document["report"] = str(out)
    if context.as_json:
        context.answer(document)
        return
    _show(found)
    if out is not None:
        output.print(f"\n{out}", soft_wrap=True)


def _show(found: Comparison) -> None:
    from backtest.report.comparison import FIGURES, shown_figure

    table = listing("", *found.runs, right=found.runs)
    for name, words in FIGURES:
        table.add_row(words, *(shown_figure(name, value) for value in found.figures[name]))
    table.add_row("Verdict", *(str(each.significance["outcome"]) for each in found.judgements))
    output.print(table)
    for each in found.differences:
        output.print(f"\n{': '.join(each.told(found.runs[0]))}", soft_wrap=True)


def require_extra() -> None:
    """
    Raises:
        UsageError: what draws pages is not installed.
    """
    missing = [name for name in _MODULES if find_spec(name) is None] + missing_judges()
    if missing:
        raise UsageError(f"a report needs {', '.join(missing)}; install with pip install 'recall-bot[report]'")
