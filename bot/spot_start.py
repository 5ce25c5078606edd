"""How a live run begins on the spot market: what it refuses, and which coins of the wallet are not its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal

from bot.config import Config
from bot.errors import UsageError
from bot.execution.bybit.decode import VenueWallet
from bot.execution.bybit.spot import base_coin, coins_of
from bot.execution.instruments import Instrument
from bot.orders import ZERO, Event, Transfer


def require_spot_settings(config: Config) -> None:
    """
    Raises:
        UsageError: the spot market is chosen, and something is asked for that it has not.
    """
    if config.market.category != "spot":
        return
    if config.live.positions == "adopt":
        raise UsageError(
            "coins that are in the wallet when a run begins cannot be taken over, since nobody knows what they cost; set "
            'live.positions = "refuse", which leaves them alone'
        )
    for symbol in config.market.symbols:
        if not base_coin(symbol):
            raise UsageError(f"{symbol} is not paid for in USDT; take a pair of the spot market such as BTCUSDT")


def coins_there(wallet: VenueWallet, symbols: Sequence[str]) -> list[Transfer]:
    """What the journal must say of coins that were in the wallet before the run: they are not its own, and stay."""
    found = coins_of(wallet, symbols)
    text = "coins that were there before the run, and are left alone"
    return [Transfer(amount, True, text, symbol) for symbol, amount in found.items() if amount]


def coins_outside(instruments: Mapping[str, Instrument], events: Sequence[Event]) -> dict[str, Decimal] | None:
    """By symbol, what of the wallet's coins is not the run's, from its journal; ``None`` for contracts."""
    if not any(instrument.is_spot for instrument in instruments.values()):
        return None
    outside = dict.fromkeys(instruments, ZERO)
    for event in events:
        if isinstance(event, Transfer) and event.symbol in outside:
            outside[event.symbol] += event.amount
    return outside
