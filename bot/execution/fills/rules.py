"""What trading costs, and how much of a market an account can have: the options of the fill model."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Final


@dataclass(frozen=True, slots=True)
class Costs:
    """Costs of trading as fractions of notional or price, whatever the size."""

    taker_fee: Decimal = Decimal("0.00055")
    maker_fee: Decimal = Decimal("0.0002")
    slippage: Decimal = Decimal("0.0001")
    spread: Decimal = Decimal(0)
    """Distance between the best bid and ask as a fraction of price; half of it is paid by every taker."""


class BandAction(StrEnum):
    """What the venue does with a limit price beyond its price band."""

    MOVE = "move"
    """It becomes the price at the edge of the band, as Bybit's perpetuals have it."""
    REJECT = "reject"
    """The order is cancelled, as Bybit's spot market has it."""


class MarginMode(StrEnum):
    """What a position stands for with."""

    NONE = "none"
    """No position is ever liquidated."""
    ISOLATED = "isolated"
    """Its own initial margin, and no more."""
    CROSS = "cross"
    """All that the account has."""


@dataclass(frozen=True, slots=True)
class FillRules:
    """How orders meet bars. The defaults are pessimistic; see docs/assumptions.md for the reason of each."""

    impact: float = 1.0
    """Factor of the square-root law of market impact; see ``Pricing``."""
    latency_ms: int = 100
    """Time from a decision to its order's arrival at the market, milliseconds; see ``Pricing``."""
    delay_bars: int = 0
    """Bars of its symbol that pass an order by before one meets it."""
    participation: float = 0.1
    """Share of a bar's volume that orders of the account may be filled with; 0: all they want."""
    share_exits: bool = True
    """Whether stops and targets share that volume too, and what is over leaves with the next bars; see ``LevelExits``."""
    queue: float = 0.1
    """Share of the volume of the bar in which a limit order begins to wait that stands before it; see ``Meetings``."""
    improve_limits: bool = False
    """Whether a limit order that can be filled at once gets a better price than its limit."""
    price_band: BandAction = BandAction.MOVE
    margin: MarginMode = MarginMode.ISOLATED
    leverage: Decimal = Decimal(0)
    """Of isolated positions: value over initial margin. 0: the least that ``risk.max_position`` allows for."""
    maintenance_rate: Decimal = Decimal("0.02")
    """Maintenance margin over position value, where the instrument has no tiers of its own."""


PLAIN: Final = FillRules(
    impact=0.0, latency_ms=0, participation=0.0, share_exits=False, queue=0.0, margin=MarginMode.NONE
)
"""Whole fills of any size at once, and no liquidation: what an engine assumes that is told nothing, and what the first
release assumed."""
