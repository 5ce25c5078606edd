"""Instruments: the grid on which prices and quantities live, and rounding onto it in the safe direction."""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Literal

import msgspec

from strategies.bars import Calendar

Category = Literal["linear", "spot"]
"""Bybit's word for a market: perpetuals settled in USDT, or the coins themselves."""


class MarginTier(msgspec.Struct, frozen=True):
    """Maintenance margin of positions up to some value (https://bybit-exchange.github.io/docs/v5/market/risk-limit)."""

    up_to_value: Decimal
    """Largest value of a position in this tier, in quote units."""
    maintenance_rate: Decimal
    """Maintenance margin over value, before the deduction."""
    deduction: Decimal = Decimal(0)
    """What makes the margin go on smoothly from the tier below, in quote units."""


class Instrument(msgspec.Struct, frozen=True):
    """Trading rules of one symbol. Prices in quote units, quantities in base units."""

    symbol: str
    tick_size: Decimal = Decimal("0.01")
    lot_size: Decimal = Decimal("0.001")
    minimum_quantity: Decimal = Decimal("0.001")
    minimum_notional: Decimal = Decimal("5")
    maximum_market_quantity: Decimal = Decimal("1000000000")
    maximum_limit_quantity: Decimal = Decimal("1000000000")
    price_limit: Decimal = Decimal(0)
    """How far above the market a limit order may buy and below it sell, as a fraction of price; 0: as far as it likes."""
    margin_tiers: tuple[MarginTier, ...] = ()
    """By increasing value; none where nobody has told."""
    maximum_leverage: Decimal = Decimal("1")
    """Largest value of a position, as a multiple of the account's equity."""
    funding_interval_minutes: int = 480
    calendar: Calendar = Calendar.CONTINUOUS
    is_spot: bool = False
    """The coin itself is traded: no shorts, no leverage, no funding, and no levels that the venue keeps for a position."""

    def lots(self, quantity: Decimal) -> int:
        """A quantity that lies on the grid, counted in lots."""
        return int(quantity / self.lot_size)

    def whole_lots(self, quantity: Decimal) -> Decimal:
        """The part of a quantity that lies on the grid."""
        return self.lots(quantity) * self.lot_size

    def floor_price(self, price: Decimal) -> Decimal:
        """The tick at or below ``price``."""
        return (price / self.tick_size).to_integral_value(ROUND_FLOOR) * self.tick_size

    def ceil_price(self, price: Decimal) -> Decimal:
        """The tick at or above ``price``."""
        return (price / self.tick_size).to_integral_value(ROUND_CEILING) * self.tick_size

    def highest_bid(self, market: Decimal) -> Decimal | None:
        """The highest price that a limit order may buy at where the market is at ``market``; ``None``: any."""
        return self.floor_price(market * (1 + self.price_limit)) if self.price_limit else None

    def lowest_offer(self, market: Decimal) -> Decimal | None:
        """The lowest price that a limit order may sell at where the market is at ``market``; ``None``: any."""
        return self.ceil_price(market * (1 - self.price_limit)) if self.price_limit else None


def exact(value: float) -> Decimal:
    """The shortest decimal that reads back as ``value``: how a price from a candle becomes money."""
    return Decimal(repr(value))
