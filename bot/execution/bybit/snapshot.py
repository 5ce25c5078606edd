"""The account as the venue has it, asked for so that its parts belong together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Final

from bot.errors import VenueError
from bot.execution.bybit.client import BybitAccount
from bot.execution.bybit.decode import VenueOrder
from bot.execution.bybit.reconciliation import VenueView
from bot.execution.bybit.spot import coins_held
from bot.orders import ZERO

_LOOKS: Final = 5


async def look_at(
    account: BybitAccount,
    working: Iterable[tuple[str, str]],
    since: int,
    coins: Mapping[str, Decimal] | None = None,
) -> VenueView:
    """What the venue says of orders, fills and positions.

    Positions are read between two readings of the fills; where a fill has come in between, all is read again.

    Args:
        account: whose.
        working: symbol and client order id of each order that may still be working: those that are no longer open are looked
            up, since lists of closed orders are cut short.
        since: fills from here on (milliseconds), at most 7 days ago.
        coins: on the spot market, by symbol: what the wallet holds of its coin that is not the run's, in base units.

    Raises:
        VenueError: the venue does not answer, or fills come faster than they can be read.
    """
    asked = sorted(working)
    before = await account.executions(since)
    for _ in range(_LOOKS):
        orders = {order.order_id: order for order in await account.open_orders()}
        known = {order.client_order_id for order in orders.values()}
        for symbol, name in asked:
            found: VenueOrder | None = None if name in known else await account.find_order(symbol, name)
            if found is not None:
                orders[found.order_id] = found
        held, stops, costs = await _positions(account, coins)
        after = await account.executions(since)
        if [fill.execution_id for fill in before] == [fill.execution_id for fill in after]:
            return VenueView(tuple(orders.values()), tuple(after), held, stops, costs)
        before = after
    raise VenueError(
        f"{account.endpoint} fills orders faster than they can be read; the next reconciliation tries again"
    )


async def _positions(
    account: BybitAccount, coins: Mapping[str, Decimal] | None
) -> tuple[dict[str, Decimal], dict[str, Decimal | None], dict[str, Decimal]]:
    """What is held, where the venue closes it, and at what cost its wallet reckons it, by symbol."""
    if coins is not None:
        return coins_held(await account.wallet(), coins), {}, {}
    positions = await account.positions()
    held = {position.symbol: ZERO for position in positions}
    costs = dict(held)
    for position in positions:
        held[position.symbol] += position.quantity
        costs[position.symbol] += position.quantity * position.average_price
    return held, {position.symbol: position.stop_loss for position in positions}, costs
