"""What is different on Bybit's spot market: coins in the wallet instead of positions, and fees in the coin that is bought.

Pure. https://bybit-exchange.github.io/docs/v5/enum#spot-fee-currency-instruction
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Final

from bot.execution.bybit.decode import SETTLE_COIN, VenueExecution, VenueWallet
from bot.orders import ZERO, Side

GUARD_FILTER: Final = "tpslOrder"
"""``orderFilter`` of a TP/SL order, which holds its coins before it is triggered."""


def base_coin(symbol: str) -> str:
    """The coin that a pair such as ``BTCUSDT`` trades; empty where it is not paid for in USDT."""
    return symbol.removesuffix(SETTLE_COIN) if symbol.endswith(SETTLE_COIN) else ""


def coins_of(wallet: VenueWallet, symbols: Iterable[str]) -> dict[str, Decimal]:
    """How much of its base coin the wallet holds, by symbol, in base units."""
    return {symbol: wallet.coins.get(base_coin(symbol), ZERO) for symbol in symbols}


def coins_held(wallet: VenueWallet, outside: Mapping[str, Decimal]) -> dict[str, Decimal]:
    """What of the wallet's coins is the run's, by symbol, in base units.

    Args:
        wallet: of the account.
        outside: by every symbol of the run, what is not the run's.
    """
    return {symbol: amount - outside[symbol] for symbol, amount in coins_of(wallet, outside).items()}


def fee_of(fill: VenueExecution) -> tuple[Decimal, Decimal]:
    """The fee of a fill: its value in quote units, and what of it was withheld from the coins bought, in base units.

    A purchase pays in the coin that it buys and a sale in USDT, unless the venue names another. A fee in a third coin, as
    with Bybit's discount for paying in MNT, touches neither cash nor position of the run, and counts as nothing.
    """
    usual = base_coin(fill.symbol) if fill.side is Side.BUY else SETTLE_COIN
    coin = fill.fee_coin or usual
    if coin == SETTLE_COIN:
        return fill.fee, ZERO
    if coin == base_coin(fill.symbol) and fill.side is Side.BUY:
        return fill.fee * fill.price, fill.fee
    return ZERO, ZERO
