"""``recall fetch --margin-tiers``: how much margin positions of which value must keep."""

from __future__ import annotations

from bot.assembly import home_of
from bot.cli.common import Context
from bot.cli.funding import market_rest
from bot.cli.terminal import output
from bot.errors import UsageError


def fetch_tiers(context: Context, names: tuple[str, ...]) -> None:
    """Store the margin tiers of symbols, and say how many.

    Raises:
        UsageError: coins are not held on margin.
        VenueError: the venue does not answer, or knows no such symbol.
    """
    config = context.config
    if config.market.category == "spot":
        raise UsageError('the spot market has no margin; set market.category = "linear", or leave out --margin-tiers')
    rest = market_rest(config)
    try:
        tiers = {name: rest.margin_tiers_page(name) for name in names}
    finally:
        rest.close()
    home_of(config).margin_tiers.keep(tiers)
    if context.as_json:
        context.answer(
            [
                {
                    "symbol": name,
                    "tiers": [
                        {
                            "up_to_value": float(each.up_to_value),
                            "maintenance_rate": float(each.maintenance_rate),
                            "deduction": float(each.deduction),
                        }
                        for each in found
                    ],
                }
                for name, found in tiers.items()
            ]
        )
        return
    for name, found in tiers.items():
        rates = f"{float(found[0].maintenance_rate):.2%} to {float(found[-1].maintenance_rate):.2%}"
        output.print(f"[bold]{name}[/] margin: {len(found)} tiers, maintenance {rates}")
