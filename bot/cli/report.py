"""``recall report``: one page that shows a run and questions it."""

from __future__ import annotations

from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import click

from bot.cli.common import Context, standard_options
from bot.cli.help import ExampleCommand
from bot.cli.runs import open_journal
from bot.cli.terminal import console, output
from bot.errors import UsageError

_MODULES: Final = ("bokeh", "jinja2", "arch")
"""What the extra brings."""


@click.command(
    cls=ExampleCommand,
    examples=("recall report", "recall report RUN --out report.html", "recall report latest --json"),
)
@click.argument("run", default="latest")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="File to write [default: reports/RUN.html].")
@standard_options
def report(context: Context, run: str, out: Path | None) -> None:
    """Write one HTML page about RUN: result, trades, memory, and what may be wrong.

    RUN is a replay or a paper run; 'latest' is the paper run last started, else the newest replay. The page needs no network,
    and the same run gives the same bytes.
    """
    require_extra()
    from backtest.report.material import gather
    from backtest.report.page import render_run

    with closing(open_journal(context)) as journal, console.status("reading the run ..."):
        found = journal.find_run(run)
        page = render_run(gather(journal, found, context.config))
    path = out or context.config.reports_dir / f"{found.record.run_id}.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    if context.as_json:
        context.answer({"run_id": found.record.run_id, "report": str(path), "bytes": len(page.encode())})
    else:
        output.print(str(path), soft_wrap=True)


def require_extra() -> None:
    """
    Raises:
        UsageError: what draws pages is not installed.
    """
    missing = [name for name in _MODULES if find_spec(name) is None]
    if missing:
        raise UsageError(f"a report needs {', '.join(missing)}; install with pip install 'recall-bot[report]'")
