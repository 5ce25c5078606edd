"""What the venue keeps of its account: orders, executions and closed profits, as they stand."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from decimal import Decimal
from enum import IntEnum, StrEnum
from typing import Final
from uuid import UUID

from bot.execution.instruments import Instrument
from bot.orders import ZERO, OrderType, Side, TimeInForce


class Category(StrEnum):
    """Of an instrument (https://bybit-exchange.github.io/docs/v5/enum#category)."""

    LINEAR = "linear"
    SPOT = "spot"
    INVERSE = "inverse"
    """Exists, and has no instruments here."""
    OPTION = "option"
    """Exists, and has no instruments here."""


class PositionMode(IntEnum):
    """One position per symbol, or one for each side."""

    ONE_WAY = 0
    HEDGE = 3


class Status(StrEnum):
    """Of an order (https://bybit-exchange.github.io/docs/v5/enum#orderstatus)."""

    NEW = "New"
    PARTIALLY_FILLED = "PartiallyFilled"
    UNTRIGGERED = "Untriggered"
    TRIGGERED = "Triggered"
    FILLED = "Filled"
    CANCELLED = "Cancelled"
    PARTIALLY_FILLED_CANCELLED = "PartiallyFilledCanceled"
    REJECTED = "Rejected"
    DEACTIVATED = "Deactivated"


OPEN: Final = frozenset({Status.NEW, Status.PARTIALLY_FILLED, Status.UNTRIGGERED, Status.TRIGGERED})
SHORT_LIVED: Final = frozenset({Status.CANCELLED, Status.REJECTED, Status.DEACTIVATED})
"""What the history keeps for a day only."""

SIDE_TEXT: Final = {Side.BUY: "Buy", Side.SELL: "Sell"}
TYPE_TEXT: Final = {OrderType.MARKET: "Market", OrderType.LIMIT: "Limit"}


@dataclass(frozen=True, slots=True)
class BookKey:
    """Which of the account's books: one per symbol, and in hedge mode one per side."""

    category: Category
    symbol: str
    index: int = 0
    """0 in one-way mode; in hedge mode 1 for long and 2 for short."""

    @property
    def base_coin(self) -> str:
        """What is bought and sold."""
        return self.symbol.removesuffix("USDT")

    @property
    def name(self) -> str:
        """What the matching calls it."""
        return f"{self.symbol}#{self.index}" if self.index else self.symbol


@dataclass(slots=True)
class VenueOrder:
    """One order, from its creation on."""

    order_id: str
    link_id: str
    book: BookKey
    instrument: Instrument
    side: Side
    order_type: OrderType
    quantity: Decimal
    price: Decimal | None
    time_in_force: TimeInForce
    created: int
    updated: int
    status: Status
    reduce_only: bool = False
    close_on_trigger: bool = False
    trigger_price: Decimal | None = None
    trigger_direction: int = 0
    trigger_by: str = ""
    stop_loss: Decimal | None = None
    take_profit: Decimal | None = None
    stop_order_type: str = ""
    create_type: str = "CreateByUser"
    last_price: Decimal = ZERO
    """Of the market when it was created."""
    cancel_type: str = "UNKNOWN"
    reject_reason: str = "EC_NoError"
    filled: Decimal = ZERO
    value: Decimal = ZERO
    """Price times quantity of what is filled."""
    fee: Decimal = ZERO
    closed_profit: Decimal = ZERO
    market_unit: str = ""
    quote_quantity: Decimal | None = None
    """What a purchase on the spot market was to spend, where its size was given so."""

    @property
    def is_open(self) -> bool:
        """Whether something may still become of it."""
        return self.status in OPEN

    def is_of(self, order_filter: str) -> bool:
        """Whether it is of the sort that ``orderFilter`` names; of the spot market each has its own, else there are two."""
        if not order_filter:
            return True
        if self.book.category is Category.SPOT:
            return (self.stop_order_type or "Order") == order_filter
        return (order_filter == "Order") != bool(self.stop_order_type)

    @property
    def is_conditional(self) -> bool:
        """Whether it waits for its trigger."""
        return self.status is Status.UNTRIGGERED

    @property
    def remaining(self) -> Decimal:
        """Base units still to be filled; 0 once it is closed."""
        return self.quantity - self.filled if self.is_open else ZERO


@dataclass(frozen=True, slots=True)
class VenueExecution:
    """One fill, or one settlement of funding."""

    execution_id: str
    order_id: str
    link_id: str
    book: BookKey
    instrument: Instrument
    side: Side
    quantity: Decimal
    price: Decimal
    fee: Decimal
    fee_rate: Decimal
    time: int
    sequence: int
    mark_price: Decimal
    is_maker: bool = False
    order_price: Decimal = ZERO
    order_quantity: Decimal = ZERO
    remaining: Decimal = ZERO
    order_type: str = "Market"
    stop_order_type: str = ""
    create_type: str = "CreateByUser"
    kind: str = "Trade"
    closed_size: Decimal = ZERO
    profit: Decimal = ZERO
    fee_coin: str = ""
    market_unit: str = ""


@dataclass(frozen=True, slots=True)
class ClosedProfit:
    """What the fills of one order took out of a position."""

    order: VenueOrder
    quantity: Decimal
    entry_value: Decimal
    exit_value: Decimal
    profit: Decimal
    """Net of the fees of opening and of closing."""
    leverage: Decimal
    time: int
    fills: int
    kind: str = "Trade"


@dataclass(slots=True)
class Numbers:
    """Ids that look like the venue's and are the same in every run."""

    seed: str = "sandbox"
    _count: dict[str, int] = field(default_factory=dict)

    def count(self, kind: str) -> int:
        """1, 2, 3 and so on for each kind."""
        number = self._count[kind] = self._count.get(kind, 0) + 1
        return number

    def identity(self, kind: str) -> str:
        """A UUID that follows from the seed and how many there were before."""
        digest = hashlib.sha256(f"{self.seed}/{kind}/{self.count(kind)}".encode()).digest()
        return str(UUID(bytes=digest[:16], version=4))
