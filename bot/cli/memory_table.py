"""Tables that keep their numbers whole: where the window is too narrow for all columns, some are left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rich.cells import cell_len
from rich.text import Text

from bot.cli.terminal import listing, output

_GAP: Final = 2

Cell = Text | str


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table."""

    heading: str
    right: bool = False
    """A number, which is never broken."""
    spare: int = 0
    """The column of the highest number is left out first; one of 0 never is."""


def show_table(columns: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> None:
    """Print a table without the columns that do not fit, and say which these are.

    Args:
        columns: the first names the thing.
        rows: as many cells each as there are columns.
    """
    kept = fitting(columns, rows, output.width)
    right = tuple([columns[place].heading for place in kept if columns[place].right])
    table = listing(*[columns[place].heading for place in kept], right=right)
    for column in table.columns:
        column.no_wrap = column.no_wrap or column.justify == "right"
    for row in rows:
        table.add_row(*[row[place] for place in kept])
    output.print(table)
    left_out = [column.heading for place, column in enumerate(columns) if place not in kept]
    if left_out:
        output.print(f"too narrow a window for: {', '.join(left_out)}", style="dim")


def fitting(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], width: int) -> list[int]:
    """Places of the columns that fit into a width, in their order.

    Args:
        columns: of the table.
        rows: its cells.
        width: in characters.
    """
    widths = [
        max(cell_len(column.heading), *[cell_len(_plain(row[place])) for row in rows], 0)
        for place, column in enumerate(columns)
    ]
    kept = list(range(len(columns)))
    for place in sorted(kept, key=lambda place: -columns[place].spare):
        if sum(widths[each] for each in kept) + _GAP * (len(kept) - 1) <= width or not columns[place].spare:
            break
        kept.remove(place)
    return kept


def _plain(cell: Cell) -> str:
    return cell.plain if isinstance(cell, Text) else cell
