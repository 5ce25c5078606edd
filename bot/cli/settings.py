"""``recall config``: check and show the configuration."""

from __future__ import annotations

import click
from rich.table import Table

from bot.cli.common import Context, output, standard_options
from bot.config import known_keys


@click.group()
def config() -> None:
    """Check or show the configuration."""


@config.command(epilog="Example: recall config check --set risk.max_position=0.5")
@standard_options
def check(context: Context) -> None:
    """Read the configuration and say whether it is sound."""
    market = context.config.market
    if context.as_json:
        context.answer({"sound": True})
        return
    output.print(
        f"The configuration is sound: {', '.join(market.symbols)} on interval {market.interval}, "
        f"strategy {context.config.strategy.name}, venue {context.config.venue.name}."
    )


@config.command(epilog="Example: recall config show --json")
@standard_options
def show(context: Context) -> None:
    """Show every key with its value and meaning; secrets are masked."""
    values = context.config.masked()
    if context.as_json:
        context.answer(values)
        return
    table = Table("key", "value", "meaning", box=None, header_style="bold")
    for key, meaning in known_keys().items():
        section, _, name = key.partition(".")
        if ".SYMBOL" not in f"{section}.{name}" and name in values[section]:
            value = values[section][name]
            table.add_row(key, ",".join(map(str, value)) if isinstance(value, list) else str(value), meaning)
    for symbol, rules in values["instruments"].items():
        for name, value in rules.items():
            table.add_row(f"instruments.{symbol}.{name}", str(value), "")
    output.print(table)
