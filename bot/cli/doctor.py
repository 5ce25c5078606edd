"""``recall doctor``: whether everything is well before real money is traded."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import click
from rich.markup import escape

from bot.assembly import home_of
from bot.cli.common import Context, at_venue, market_options, standard_options, venue_option
from bot.cli.help import ExampleCommand
from bot.cli.terminal import console, listing, output
from bot.cli.venues import account_at, connect
from bot.config import Config
from bot.doctor import Check, examine
from bot.errors import CheckFailed, UsageError


@click.command(
    cls=ExampleCommand,
    examples=("recall doctor --venue testnet", "recall doctor --venue bybit --symbols BTCUSDT --json"),
)
@market_options
@venue_option
@standard_options
def doctor(context: Context, symbols: str | None, interval: str | None, venue: str | None) -> None:
    """Look at key, clock, account, symbols and stored data before trading.

    Nothing is changed. Every line that is not well names its fix; then the exit code is 1.
    """
    config = at_venue(context.config, symbols, interval, venue)
    if config.venue.name == "sandbox" and not config.venue.sandbox_url:
        raise UsageError(
            "the sandbox that starts inside recall paper and recall live has no account to look at; give --venue testnet, "
            "demo or bybit, or start recall sandbox and set venue.sandbox_url to its URL"
        )
    with console.status("asking the venue ..."):
        checks = asyncio.run(_examined(config))
    bad = [check for check in checks if not check.good]
    if context.as_json:
        context.answer({"good": not bad, "checks": [check.to_json() for check in checks]})
    else:
        table = listing("check", "", "found", "fix")
        for check in checks:
            mark = "[green]good[/]" if check.good else "[red]bad[/]"
            table.add_row(escape(check.name), mark, escape(check.found), escape(check.fix))
        output.print(table)
    if bad:
        raise CheckFailed(f"{len(bad)} of {len(checks)} checks are not well; mend {', '.join(c.name for c in bad)}")


async def _examined(config: Config) -> list[Check]:
    has_key = bool(config.live.api_key.get_secret_value() and config.live.api_secret.get_secret_value())
    account = account_at(config, needs_key=has_key)
    rest = connect(config, None).rest
    try:
        home = home_of(config, venue=config.venue.name)
        return await examine(config, home, rest, account, datetime.now(UTC), has_key=has_key)
    finally:
        rest.close()
        account.close()
