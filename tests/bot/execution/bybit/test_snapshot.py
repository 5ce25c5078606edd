"""Reconciliation against the sandbox: what was missed is found, what is foreign is left alone."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

from bot.execution.bybit.client import BybitAccount
from bot.execution.bybit.decode import VenueOrderStatus
from bot.execution.bybit.reconciliation import EndedOrder, JournalView, corrected, reconcile
from bot.execution.bybit.snapshot import look_at
from bot.orders import OrderType, Side
from tests.backtest.sandbox.client import trading_venue
from tests.bot.execution.bybit.test_account import account_at, market
from tests.bot.market.scenes import T0

NOTHING = JournalView(frozenset({"mine", "never"}), frozenset({"mine", "never"}), frozenset(), {})
WORKING = [("BTCUSDT", "mine"), ("BTCUSDT", "never")]


def views(*orders: Any) -> Any:
    async def run() -> Any:
        async with account_at(trading_venue()) as account:
            await account.synchronise()
            for order in orders:
                assert (await account.send(order)).is_accepted
            return await look_at(account, WORKING, T0 - 1000), await left(account)

    return asyncio.run(run())


async def left(account: BybitAccount) -> list[str]:
    return [order.client_order_id for order in await account.open_orders()]


def test_a_fill_that_was_missed_and_an_order_that_never_arrived_are_found_and_one_pass_is_enough() -> None:
    view, _ = views(market("mine"))
    found = reconcile(NOTHING, view)
    assert [missed.execution.client_order_id for missed in found.missed] == ["mine"]
    assert found.ended == (
        EndedOrder("mine", VenueOrderStatus.FILLED),
        EndedOrder("never", VenueOrderStatus.UNKNOWN),
    )
    assert not found.foreign_orders and not found.foreign_positions
    assert reconcile(corrected(NOTHING, found), view).is_equal


def test_orders_and_positions_of_somebody_else_are_told_and_stay() -> None:
    resting = market("theirs", Side.BUY, order_type=OrderType.LIMIT, limit_price=Decimal(90))
    view, still_open = views(market("mine"), market("a-human"), resting)
    found = reconcile(NOTHING, view)
    assert [foreign.order.client_order_id for foreign in found.foreign_orders] == ["theirs"]
    assert [(foreign.believed, foreign.held) for foreign in found.foreign_positions] == [(1, 2)]
    assert [foreign.symbol for foreign in found.foreign_positions] == ["BTCUSDT"]
    assert still_open == ["theirs"]
