"""Orders, executions and the other facts that enter or leave the decision core.

Everything here is immutable and can be written to the journal as it is. Prices and quantities are exact decimals.
"""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum
from typing import Final, TypeVar

import msgspec

from bot.execution.instruments import Instrument
from bot.market.batches import BarBatch as BarBatch
from memory_store.pruning import PruneRule
from strategies.base import Signal

ZERO: Final = Decimal(0)

Value = TypeVar("Value")


def written(default: Value) -> Value:
    """A default that is written to the journal all the same, in a struct that omits defaults.

    Structs of the first version wrote every field. The fields that came later are omitted where they say nothing new, and
    so journals of both versions hold the same text. msgspec omits what *is* the default, and knows no default of a factory.
    """
    return msgspec.field(default_factory=lambda: default)


class Side(StrEnum):
    """Direction of an order."""

    BUY = "buy"
    SELL = "sell"

    sign: int
    """+1 for a purchase, -1 for a sale."""

    def __init__(self, text: str) -> None:
        self.sign = 1 if text == "buy" else -1


class OrderType(StrEnum):
    """How an order is to be filled."""

    MARKET = "market"
    LIMIT = "limit"


class TimeInForce(StrEnum):
    """How long an order may wait, in Bybit's words (https://bybit-exchange.github.io/docs/v5/enum#timeinforce)."""

    GTC = "GTC"
    """Until it is filled or cancelled."""
    IOC = "IOC"
    """What cannot be filled at once is cancelled."""
    FOK = "FOK"
    """It is cancelled unless all of it can be filled at once."""
    POST_ONLY = "PostOnly"
    """A limit order that is cancelled if it could be filled at once: it never takes."""


class TriggerDirection(StrEnum):
    """From which side the price comes to a trigger."""

    RISE = "rise"
    """Triggered by a price at or above it."""
    FALL = "fall"
    """Triggered by a price at or below it."""


class ExecutionKind(StrEnum):
    """What made an execution happen."""

    MARKET = "market"
    LIMIT = "limit"
    """A limit order that waited: others took it, and it pays as maker."""
    TAKEN = "taken"
    """A limit order that could be filled at once: it took, and pays as taker."""
    STOP_LOSS = "stop_loss"
    TAKE_PROFIT = "take_profit"
    LIQUIDATION = "liquidation"
    """The venue closed the position, because its margin was gone."""
    DELEVERAGED = "deleveraged"
    """The venue reduced the position to cover the losses of others (https://www.bybit.com/en/help-center/article/ADL)."""
    ADOPTED = "adopted"
    """No fill: a position that was there when the run began, taken over at its average price."""


PROTECTIVE: Final = frozenset({ExecutionKind.STOP_LOSS, ExecutionKind.TAKE_PROFIT})
"""Kinds of fills at the levels of a position."""
GUARD: Final = "stop"
"""What the last part of the client order id of a guard begins with; that of any other order is a number in hexadecimal."""


def is_guard(client_order_id: str) -> bool:
    """Whether an order of a run guards coins of the spot market; see ``GuardOrder``."""
    return client_order_id.rpartition("-")[2].startswith(GUARD)


class Order(msgspec.Struct, frozen=True, omit_defaults=True):
    """An intention to trade, named by an id that follows from the decision and is therefore the same after a crash.

    ``stop_loss`` and ``take_profit`` are the protective levels of the position that this order leaves behind; ``None``
    on a reduce-only order keeps those in force.
    """

    client_order_id: str
    symbol: str
    side: Side
    quantity: Decimal
    decided_at: int
    """Close time of the bar that was decided on."""
    bar_open_time: int
    order_type: OrderType = written(OrderType.MARKET)
    limit_price: Decimal | None = written(None)
    reduce_only: bool = written(False)
    stop_loss: Decimal | None = written(None)
    take_profit: Decimal | None = written(None)
    time_in_force: TimeInForce = TimeInForce.GTC
    trigger_price: Decimal | None = None
    """The order waits outside the market until the price gets here; ``None`` for one that does not."""
    trigger_direction: TriggerDirection | None = None
    """From which side; needed with a trigger price."""
    close_on_trigger: bool = False
    """Once triggered it may only reduce; with a quantity of 0 it closes the whole position."""

    @property
    def signed_quantity(self) -> Decimal:
        """Change of position if filled whole."""
        return self.quantity if self.side.sign > 0 else -self.quantity

    @property
    def only_reduces(self) -> bool:
        """Whether it may never open or add to a position."""
        return self.reduce_only or self.close_on_trigger


class OrderStatus(StrEnum):
    """What has become of an order besides its fills."""

    RESTING = "resting"
    """A limit order that has come to the market and waits there."""
    TRIGGERED = "triggered"
    """A conditional order whose price was reached: from now on it is what its type says."""
    AMENDED = "amended"
    CANCELLED = "cancelled"
    """It will not be filled further; it may have been filled in part."""
    REJECTED = "rejected"
    """It never came to the market."""
    REFUSED = "refused"
    """A change of it that the venue does not take: it stays as it was."""


class OrderReason(StrEnum):
    """Why an order was cancelled or rejected."""

    CLIENT = "client"
    """Whoever sent it cancelled it."""
    POST_ONLY = "post_only"
    """It could have been filled at once, and was never to take."""
    IMMEDIATE_OR_CANCEL = "immediate_or_cancel"
    """What could not be filled at once."""
    FILL_OR_KILL = "fill_or_kill"
    """Not all of it could be filled at once."""
    REDUCE_ONLY = "reduce_only"
    """There is no position that it could reduce."""
    PRICE_BAND = "price_band"
    """Its price is farther from the market than the venue allows."""
    OFF_GRID = "off_grid"
    """Its price is not on the tick, or its quantity not on the lot."""
    BELOW_MINIMUM = "below_minimum"
    """It is smaller than the venue takes."""
    ABOVE_MAXIMUM = "above_maximum"
    """It is larger than the venue takes."""
    LIQUIDATION = "liquidation"
    """The account's margin was gone."""
    INCOMPLETE = "incomplete"
    """A limit order without a price, or a trigger price without its direction."""
    VENUE = "venue"
    """The venue did not want it, or ended it by itself."""
    LOST = "lost"
    """It was written down, and the venue has never heard of it."""


class OrderUpdate(msgspec.Struct, frozen=True, omit_defaults=True):
    """What happened to an order, but for its fills: those are told by its executions."""

    client_order_id: str
    symbol: str
    status: OrderStatus
    time: int
    """The market's time, milliseconds."""
    reason: OrderReason | None = None
    filled: Decimal = ZERO
    """Filled so far, in base units."""
    average_price: Decimal | None = None
    """Of what is filled."""
    note: str = ""
    """The venue's words, where it has any."""

    @property
    def is_final(self) -> bool:
        """Whether nothing more can happen to the order."""
        return self.status in (OrderStatus.CANCELLED, OrderStatus.REJECTED)


class Execution(msgspec.Struct, frozen=True, omit_defaults=True):
    """A fill. ``fee`` is in quote units and positive when paid; ``time`` is the market's time of the fill."""

    execution_id: str
    client_order_id: str
    symbol: str
    side: Side
    quantity: Decimal
    price: Decimal
    fee: Decimal
    kind: ExecutionKind
    time: int
    withheld: Decimal = ZERO
    """What the venue kept of a purchase as its fee, in base units: ``fee`` is the value of that at ``price``."""

    @property
    def signed_quantity(self) -> Decimal:
        """Change of position."""
        return self.quantity - self.withheld if self.side.sign > 0 else -self.quantity

    @property
    def is_maker(self) -> bool:
        """Whether others took it."""
        return self.kind is ExecutionKind.LIMIT

    @property
    def names_its_order(self) -> bool:
        """Whether its client order id is that of the order that was filled: at a level of a position it is the order that
        has set the level."""
        return self.kind not in PROTECTIVE or is_guard(self.client_order_id)


class Verdict(StrEnum):
    """Why the risk layer shaped an order as it did. Every decision carries at least one."""

    FOLLOWED = "followed"
    """The order brings the position to the target."""
    ON_TARGET = "on_target"
    """The position is on target already."""
    WITHIN_BAND = "within_band"
    """The change is smaller than the no-trade band."""
    UNKNOWN_HELD = "unknown_held"
    """The strategy does not know: the position is held, nothing is opened."""
    CLIPPED_POSITION = "clipped_position"
    """The target exceeded the largest position allowed."""
    CLIPPED_SYMBOL_LEVERAGE = "clipped_symbol_leverage"
    """The target, or the position held, exceeded the largest leverage of the symbol."""
    CLIPPED_LEVERAGE = "clipped_leverage"
    """The target exceeded the leverage allowed over all symbols."""
    CLIPPED_QUANTITY = "clipped_quantity"
    """The order exceeded the venue's largest market order."""
    BELOW_MINIMUM = "below_minimum"
    """After rounding to the lot the order is below the venue's minimum."""
    LATE_BAR = "late_bar"
    """The bar arrived late: it may reduce a position, never open one."""
    SYMBOL_UNAVAILABLE = "symbol_unavailable"
    """The symbol's data has a hole that could not be repaired: exits only."""
    HALTED_BY_LOSS = "halted_by_loss"
    """The daily loss limit was reached."""
    HALTED_BY_OPERATOR = "halted_by_operator"
    """The operator halted the run: exits only."""
    FLATTENED_BY_OPERATOR = "flattened_by_operator"
    """The operator asked for a flat book."""
    ORDER_WORKING = "order_working"
    """An earlier order of this symbol is still working."""
    BANKRUPT = "bankrupt"
    """Equity is gone: nothing can be opened."""
    ACCOUNT_UNKNOWN = "account_unknown"
    """The venue cannot be asked whether the account is what the journal says: exits only."""
    FOREIGN = "foreign"
    """Somebody else trades the symbol on this account: it is left alone."""
    LONG_ONLY = "long_only"
    """A coin cannot be sold short: the target became flat."""


class Decision(msgspec.Struct, frozen=True):
    """The answer to one bar: what the strategy wanted, what the risk layer made of it, and what was held."""

    number: int
    """Position in the run's sequence of decisions, from 0."""
    signal: Signal
    verdicts: tuple[Verdict, ...]
    orders: tuple[Order, ...]
    position: Decimal
    """Position in base units when deciding."""
    equity: float
    """Equity in quote units, marked at the closes of this batch."""
    close_time: int


class OperatorAction(StrEnum):
    """What a person can tell a running bot."""

    HALT = "halt"
    """Open nothing; keep managing what is open."""
    RESUME = "resume"
    """Take away every halt."""
    FLATTEN = "flatten"
    """Close every position at the next bar and halt."""
    PRUNE = "prune"
    """Evict from the memory what a rule names."""
    SWAP = "swap"
    """Decide with another model, once its memory is made: then a ``ModelSwap`` follows."""


class Pruning(msgspec.Struct, frozen=True):
    """What to evict from the memory; see ``memory_store.pruning.PruneRule``."""

    unused_for_ms: int | None = None
    credit_below: float | None = None
    as_of: int | None = None
    """The present on the clock of the bars, milliseconds: known once the command has become an event."""

    @property
    def rule(self) -> PruneRule:
        """As the memory takes it.

        Raises:
            MemoryBankError: a value is out of range, or there is none.
        """
        return PruneRule(self.unused_for_ms, self.credit_below)


class OperatorCommand(msgspec.Struct, frozen=True, omit_defaults=True):
    """One command of a person, applied between two batches."""

    action: OperatorAction
    reason: str = ""
    pruning: Pruning | None = None
    """What to prune, of that command alone."""
    model_id: str = ""
    """Which model to swap to, of that command alone."""


class Funding(msgspec.Struct, frozen=True, omit_defaults=True):
    """A funding settlement: long positions pay ``rate`` times position value when it is positive."""

    symbol: str
    rate: Decimal
    mark_price: Decimal
    time: int
    paid: Decimal | None = None
    """What the venue took (negative: gave), in quote units; ``None``: what follows from the rate."""
    settlement_id: str = ""
    """The venue's id of the settlement."""


class SymbolAvailability(msgspec.Struct, frozen=True):
    """Whether a symbol's data can be trusted from now on."""

    symbol: str
    available: bool
    reason: str = ""


class ModelSwap(msgspec.Struct, frozen=True):
    """From here on the run decides with another model and with a memory whose keys that model made.

    The memory is what this model remembers of exactly the bars that the run had seen: its warm-up and its batches up to
    event ``encoded_until`` at once, those after it one by one.
    """

    model_id: str
    bank: str
    """Name of the memory."""
    digest: str
    """Of the memory after event ``encoded_until``; see ``MemoryBank.digest``."""
    encoded_until: int
    """Sequence number of the event up to which the past was encoded at once; 0 for the warm-up alone."""
    as_of: int
    """Close of the newest bar that the run had decided on or was warmed from, milliseconds."""


class RetrainingTrigger(StrEnum):
    """Why a model is trained while the run goes on."""

    SCHEDULE = "schedule"
    """``retraining.every_bars`` bars have passed."""
    DRIFT = "drift"
    """The drift alarm went off."""


class RetrainingVerdict(StrEnum):
    """What became of a retraining."""

    SWAPPED = "swapped"
    """The candidate was not worse: its swap follows."""
    KEPT = "kept"
    """The running model stays, because the candidate was worse or the two could not be compared."""
    FAILED = "failed"
    """No candidate came of it."""


class Retraining(msgspec.Struct, frozen=True):
    """A retraining that has ended. It changes nothing by itself: where the candidate takes over, a ``ModelSwap`` does."""

    due: int
    """Bars per symbol that the run had decided on when it fell due."""
    trigger: RetrainingTrigger
    verdict: RetrainingVerdict
    running: str
    """Model that decides."""
    candidate: str = ""
    """Model that was trained; empty where none was."""
    running_loss: float | None = None
    """Mean loss on the bars that both were judged on; smaller is better."""
    candidate_loss: float | None = None
    standard_error: float | None = None
    """Of the difference of the two, over stretches of time that do not overlap."""
    bars: int = 0
    """Forecasts that each was judged on."""
    reason: str = ""
    """Why, in a clause."""


class AccountStanding(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far the account at the venue is known to be what the journal says, from now on."""

    known: bool
    """False while the venue cannot be asked, or its answers do not agree: exits only."""
    foreign: tuple[str, ...] = ()
    """Symbols that somebody else trades on this account: they are left alone."""
    reason: str = ""


class Transfer(msgspec.Struct, frozen=True, omit_defaults=True):
    """Money that came into the account or left it other than by trading."""

    amount: Decimal
    """Quote units; negative: it left."""
    outside: bool = False
    """It is not this run's to trade with: its account stays as it is."""
    reason: str = ""
    symbol: str = ""
    """Of its base coin, in base units, and always outside; empty for money."""


class EmergencyOrder(msgspec.Struct, frozen=True):
    """An order that no decision asked for: it closes a position that cannot be protected."""

    order: Order
    reason: str


class GuardOrder(msgspec.Struct, frozen=True):
    """A conditional sale that is the stop loss of coins of the spot market, where nothing else at the venue can be one."""

    order: Order


class NoticeKind(StrEnum):
    """What a notice is about."""

    CORRECTION = "correction"
    """The journal was not what the venue says; what follows in the journal makes it so."""
    ALARM = "alarm"
    """A person should look."""


class Notice(msgspec.Struct, frozen=True):
    """Something that a person wants to read in the journal. It changes nothing."""

    kind: NoticeKind
    symbol: str
    text: str


class RuleChange(msgspec.Struct, frozen=True):
    """The venue has changed the trading rules of a symbol: the next decision obeys these."""

    instrument: Instrument


AccountEvent = (
    Execution | OrderUpdate | Funding | AccountStanding | Transfer | EmergencyOrder | GuardOrder | Notice | RuleChange
)
"""What a venue tells besides bars."""

Event = BarBatch | OperatorCommand | SymbolAvailability | ModelSwap | Retraining | AccountEvent
