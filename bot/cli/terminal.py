"""The two consoles, and the progress bar."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Column, Table
from rich.text import Text

_GLANCE_S: Final = 0.1
PIPE_WIDTH: Final = 120
"""Columns of a table that goes into a file or a pipe, where nobody knows how wide the reader's window is."""


def _known_width() -> int | None:
    """``None`` leaves it to rich, which asks the terminal or the variable COLUMNS."""
    return None if sys.stdout.isatty() or "COLUMNS" in os.environ else PIPE_WIDTH


console = Console(stderr=True, highlight=False)
"""Talk to people: on standard error, so that standard output stays for results."""
output = Console(highlight=False, width=_known_width())
"""Results for people."""


def listing(*columns: str, right: tuple[str, ...] = ()) -> Table:
    """A table without lines, one row per thing.

    Args:
        columns: headings; the first names the thing and is never cut.
        right: headings of columns with numbers.
    """
    table = Table(box=None, header_style="bold", pad_edge=False)
    for position, heading in enumerate(columns):
        table.add_column(
            heading, justify="right" if heading in right else "left", no_wrap=position == 0, overflow="fold"
        )
    return table


def facts() -> Table:
    """A table of names and values, to which rows are added."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    return table


class _Note(ProgressColumn):
    """What is said beside a bar: it alone is cut where the window is narrow."""

    def render(self, task: Task) -> Text:
        return Text(task.fields["note"], no_wrap=True, overflow="ellipsis")


@contextmanager
def progress_bar(label: str, total: float | None, *, unit: str = "bars") -> Iterator[Callable[..., None]]:
    """A progress bar on standard error; yields ``update(done, total=None, note="")``. Nothing is drawn off a terminal."""
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=24, table_column=Column(no_wrap=True)),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        TextColumn(unit),
        TimeRemainingColumn(table_column=Column(no_wrap=True)),
        _Note(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(label, total=total, note="")

        def update(done: float, total: float | None = None, note: str = "") -> None:
            progress.update(task, total=total, completed=done, note=note)

        yield update


@contextmanager
def watched_bar(label: str, *, unit: str = "bars") -> Iterator[Callable[[Callable[[], float], float], None]]:
    """A progress bar for work that does not tell how far it is; yields ``watch(done, total)``, where ``done`` is asked.

    It is asked from another thread, some times a second, until the context ends; so it must be as cheap as a ``len``.
    """
    over = Event()
    watchers: list[Thread] = []
    with progress_bar(label, None, unit=unit) as update:

        def follow(done: Callable[[], float], total: float) -> None:
            while not over.wait(_GLANCE_S):
                update(min(done(), total), total)

        def watch(done: Callable[[], float], total: float) -> None:
            if console.is_terminal:
                watchers.append(Thread(target=follow, args=(done, total), daemon=True))
                watchers[-1].start()

        try:
            yield watch
        finally:
            over.set()
            for each in watchers:
                each.join()
