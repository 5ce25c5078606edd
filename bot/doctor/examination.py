"""Everything that can be looked at without changing anything."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from bot.assembly import Home
from bot.config import Config
from bot.doctor.account import (
    balance_check,
    clock_check,
    filters,
    key_checks,
    margin_check,
    orders_check,
    position_checks,
)
from bot.doctor.check import Check
from bot.doctor.stored import stored_checks
from bot.errors import VenueError
from bot.execution.bybit.client import BybitAccount
from bot.market.bybit_rest import BybitRest

KEY_FIX: Final = "set RECALL_LIVE__API_KEY and RECALL_LIVE__API_SECRET in the environment"


async def examine(
    config: Config,
    home: Home,
    rest: BybitRest,
    account: BybitAccount,
    now: datetime,
    *,
    stored: bool = True,
    has_key: bool = True,
) -> list[Check]:
    """Look at everything that can be looked at without changing anything.

    Where the venue does not answer one question, that check fails with its words, and the others go on.

    Args:
        config: the settings.
        home: the market's folders.
        rest: the venue's public data.
        account: the account.
        now: the present.
        stored: look at what lies on this machine, too.
        has_key: whether the account has a key; the lack of one is bad, and what needs none is looked at.
    """
    checks: list[Check] = []
    if stored:
        # A sandbox has a time of its own.
        present = None if config.venue.name == "sandbox" else int(now.timestamp() * 1000)
        checks += stored_checks(config, home, present)
    try:
        checks.append(clock_check(await account.synchronise()))
    except VenueError as problem:
        # Nothing else will answer either.
        return [*checks, Check("clock", False, str(problem), "check venue.name, venue.sandbox_url and the network")]
    symbols = await _symbol_checks(rest, config.market.symbols)
    if not has_key:
        return [*checks, Check("key", False, "there is none", KEY_FIX), *symbols]
    try:
        rights, category = await account.key_information(), config.market.category
        checks += key_checks(rights, now, allow_withdrawal=config.live.allow_withdrawal_key, category=category)
        checks.append(margin_check(await account.margin_mode()))
        checks.append(balance_check(await account.wallet()))
    except VenueError as problem:
        checks.append(Check("key", False, str(problem), "put in a key of this venue that may trade"))
        return [*checks, *symbols]
    for symbol, known in zip(config.market.symbols, symbols, strict=True):
        checks.append(known)
        if not known.good:
            continue
        # Coins have no leverage and no position mode, and those in the wallet are left alone.
        is_spot = config.market.category == "spot"
        try:
            if is_spot:
                checks.append(orders_check(symbol, await account.open_orders()))
            else:
                checks += position_checks(symbol, await account.position_rows(symbol), config.risk.max_leverage)
        except VenueError as problem:
            name = f"{'orders' if is_spot else 'position'} of {symbol}"
            checks.append(Check(name, False, str(problem), "try again later"))
    return checks


async def _symbol_checks(rest: BybitRest, symbols: Sequence[str]) -> list[Check]:
    """One for each symbol, in order: its rules, or why it cannot be traded."""
    fix = "take it out of market.symbols, or mend its name"
    try:
        found, refused = await rest.tradable(symbols)
    except VenueError as problem:
        return [Check(f"symbol {symbol}", False, str(problem), "try again later") for symbol in symbols]
    return [
        Check(f"symbol {symbol}", False, refused[symbol], fix)
        if symbol in refused
        else Check(f"symbol {symbol}", True, filters(found[symbol]))
        for symbol in symbols
    ]
