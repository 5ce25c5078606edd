"""What the venue says of clock, key, account and positions, judged. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from bot.doctor.check import Check, check
from bot.execution.bybit.clock import ALARMING_OFFSET_MS
from bot.execution.bybit.decode import VenueOrder, VenuePosition, VenueWallet, time_of
from bot.execution.instruments import Category, Instrument
from bot.orders import is_guard

EXPIRY_WARNING: Final = timedelta(days=7)
MARGIN_MODES: Final = {"REGULAR_MARGIN": "cross", "ISOLATED_MARGIN": "isolated"}
"""Those that the risk limits are made for: https://bybit-exchange.github.io/docs/v5/enum#marginmode."""
_RIGHTS: Final[Mapping[Category, tuple[str, frozenset[str], str]]] = {
    "linear": ("ContractTrade", frozenset({"Order", "Position"}), "the rights Orders and Positions"),
    "spot": ("Spot", frozenset({"SpotTrade"}), "the right to trade spot"),
}
"""By market: the group of rights, those needed, and their names in words."""


def clock_check(offset_ms: int) -> Check:
    """How far the venue's clock is ahead of this machine's."""
    good = abs(offset_ms) <= ALARMING_OFFSET_MS
    fix = "set this machine's clock and keep it so, for example with chrony or systemd-timesyncd"
    return check("clock", good, f"the venue's is {offset_ms:+,} ms from this machine's", fix)


def key_checks(
    information: Mapping[str, Any], now: datetime, *, allow_withdrawal: bool, category: Category = "linear"
) -> list[Check]:
    """What the key may do, and until when: https://bybit-exchange.github.io/docs/v5/user/apikey-info."""
    permissions = information.get("permissions")
    rights = permissions if isinstance(permissions, Mapping) else {}
    group, needed, words = _RIGHTS[category]
    may_trade = information.get("readOnly") in (0, "0") and needed <= set(rights.get(group) or ())
    may_withdraw = "Withdraw" in (rights.get("Wallet") or ())
    until = _expiry(information.get("expiredAt"))
    lasts = until is None or until - now > EXPIRY_WARNING
    return [
        check(
            "key may trade",
            may_trade,
            "yes" if may_trade else "no",
            f"give the key {words} of Unified Trading, and read-write",
        ),
        check(
            "key may not withdraw",
            allow_withdrawal or not may_withdraw,
            "it may withdraw" if may_withdraw else "it may not",
            "make a key without the right to withdraw",
        ),
        check(
            "key expires",
            lasts,
            "never" if until is None else f"{until:%Y-%m-%d}",
            "bind the key to this machine's IP address, or renew it",
        ),
    ]


def margin_check(mode: str) -> Check:
    """Margin mode of the account, in the venue's word."""
    known = MARGIN_MODES.get(mode)
    return check("margin mode", known is not None, known or mode or "not told", "switch to cross or isolated margin")


def balance_check(wallet: VenueWallet) -> Check:
    """Whether there is anything to trade with."""
    held = wallet.coins.get("USDT")
    good = held is not None and held > 0
    return check("balance", good, f"{held or 0:f} USDT", "transfer USDT to the unified account")


def filters(instrument: Instrument) -> str:
    """Trading rules in words."""
    orders = (
        f"tick {instrument.tick_size:f}, lot {instrument.lot_size:f}, least {instrument.minimum_notional:f} USDT, "
        f"most {instrument.maximum_market_quantity:f} at market and {instrument.maximum_limit_quantity:f} with a limit"
    )
    if instrument.is_spot:
        return orders
    hours = instrument.funding_interval_minutes / 60
    return f"{orders}, leverage up to {instrument.maximum_leverage:f}, funding every {hours:g} h"


def position_checks(symbol: str, rows: Sequence[VenuePosition], most_leverage: float) -> list[Check]:
    """Position mode, leverage, and what is held already."""
    one_way = all(row.index == 0 for row in rows) and len(rows) == 1
    mode = check(
        f"position mode of {symbol}",
        one_way,
        "one-way" if one_way else "hedge",
        "switch the position mode to one-way at Bybit, with no open orders and positions",
    )
    if not one_way:
        return [mode]
    (row,) = rows
    held = f"{row.quantity:f}" + (f", stop {row.stop_loss:f}" if row.stop_loss is not None else "")
    return [
        mode,
        check(
            f"leverage of {symbol}",
            row.leverage is None or float(row.leverage) >= most_leverage,
            "not told" if row.leverage is None else f"{row.leverage:f}",
            f"set the leverage to {most_leverage:g} or more, or lower risk.max_leverage",
        ),
        check(
            f"position of {symbol}",
            not row.quantity or row.stop_loss is not None,
            held,
            "give the open position a stop loss, or close it",
        ),
    ]


def orders_check(symbol: str, orders: Sequence[VenueOrder]) -> Check:
    """Open orders of a pair of the spot market: stop losses of a run, and others, which a run must not share it with."""
    own = [order for order in orders if order.symbol == symbol]
    stops = [order for order in own if is_guard(order.client_order_id) and order.trigger_price is not None]
    told = [f"a stop loss of {order.quantity:f} at {order.trigger_price:f}" for order in stops]
    others = len(own) - len(stops)
    told += [f"{others} open of somebody else"] if others else []
    fix = "cancel them, or take the symbol out of market.symbols"
    return check(f"orders of {symbol}", not others, ", ".join(told) or "none", fix)


def _expiry(value: object) -> datetime | None:
    """When a key expires; ``None`` where it does not, or the venue does not say."""
    text = value if isinstance(value, str) else ""
    if text.isdecimal():
        milliseconds = time_of(text)
        return datetime.fromtimestamp(milliseconds / 1000, UTC) if milliseconds else None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return moment if moment.year > 1970 else None
