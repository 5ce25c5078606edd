"""``recall config``: check and show the configuration."""

from __future__ import annotations

from typing import Any

import click
from rich.table import Table
from rich.text import Text

from bot.cli.common import Context, standard_options
from bot.cli.help import ExampleCommand, ExampleGroup
from bot.cli.terminal import output
from bot.config import DEFAULT_FILE
from bot.refusals import known_keys


@click.group(cls=ExampleGroup, examples=("recall config show", "recall config check --config mine.toml"))
def config() -> None:
    """Check and show the configuration.

    Later layers win: defaults, config.toml of the working directory (or --config FILE), environment variables
    RECALL_SECTION__KEY, --set section.key=value.
    """


@config.command(
    cls=ExampleCommand,
    examples=(
        "recall config check",
        "recall config check --set risk.max_position=0.5",
        "RECALL_RISK__STOP_LOSS=0.02 recall config check",
    ),
)
@standard_options
def check(context: Context) -> None:
    """Read the configuration and say whether it is sound; exit code 2 if it is not."""
    settings = context.config
    if context.as_json:
        context.answer({"sound": True})
        return
    market = settings.market
    output.print(
        f"The configuration is sound: {', '.join(market.symbols)} on interval {market.interval}, "
        f"strategy {settings.strategy.name}, venue {settings.venue.name}.",
        soft_wrap=True,
    )


@config.command(cls=ExampleCommand, examples=("recall config show", "recall config show --json"))
@standard_options
def show(context: Context) -> None:
    """Show every key with its value and what it means; secrets are masked.

    A value that comes from the environment, from --set or from another file than config.toml says so.
    """
    values = context.config.masked()
    if context.as_json:
        context.answer(values)
        return
    meanings = known_keys()
    for section, keys in values.items():
        tables = {f"{section}.{symbol}": rules for symbol, rules in keys.items()} if section == "instruments" else {}
        for name, below in (tables or {section: keys}).items():
            if below:
                output.print(f"\\[{name}]", style="bold")
                output.print(_section_table(context, name, below, meanings))


def _section_table(context: Context, section: str, values: dict[str, Any], meanings: dict[str, str]) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(min_width=18, no_wrap=True)
    table.add_column(min_width=14, max_width=34, overflow="fold")
    table.add_column(style="dim", ratio=1)
    root = section.partition(".")[0]
    for name, value in values.items():
        source = context.layers.source_of(f"{section}.{name}")
        shown = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        meaning = meanings[f"{root}.SYMBOL.{name}" if root == "instruments" else f"{section}.{name}"]
        # The file of the working directory sets nearly everything, so that only stronger layers are worth a word.
        origin = "" if source in ("default", str(DEFAULT_FILE)) else f" (from {source})"
        table.add_row(name, Text(shown), Text(meaning + origin))
    return table
