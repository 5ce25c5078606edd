"""The risk layer: a signal and the account in, orders out, each with the verdicts that shaped it.

It alone turns a wish into an order. It is deterministic, keeps its own small state (halts, the equity that the day began
with, orders that are on their way) and treats what it does not know as a reason to do less.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Container, Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from math import trunc
from typing import Final

import msgspec

from bot.execution.instruments import Instrument, exact
from bot.orders import GUARD, ZERO, AccountStanding, OperatorAction, OperatorCommand, Order, Side, Verdict, written
from bot.portfolio import Portfolio
from strategies.bars import DAY_MS, Bar
from strategies.base import Signal

Verdicts = tuple[Verdict, ...]
Orders = tuple[Order, ...]

SPOT_EXPOSURE: Final = 0.95
"""Of equity, in coins at most: a market purchase has to be covered at whatever price it meets, and nothing is borrowed."""
_NO_DAY: Final = -math.inf
_NO_FLOOR: Final = -math.inf
_UNFIT: Final = re.compile(r"[^A-Za-z0-9_-]")
_LONGEST_NAME: Final = 18
_NO_ORDERS: Final[Orders] = ()
_NO_VERDICTS: Final[Verdicts] = ()
_ON_TARGET: Final[tuple[Orders, Verdicts]] = (_NO_ORDERS, (Verdict.ON_TARGET,))
_WITHIN_BAND: Final[tuple[Orders, Verdicts]] = (_NO_ORDERS, (Verdict.WITHIN_BAND,))
_UNKNOWN: Final[Verdicts] = (Verdict.UNKNOWN_HELD,)
_FOLLOWED: Final[Verdicts] = (Verdict.FOLLOWED,)
_FOREIGN: Final[Verdicts] = (Verdict.FOREIGN,)
_BUY: Final = Side.BUY
_SELL: Final = Side.SELL


class LossAction(StrEnum):
    """What happens to open positions when the daily loss limit is reached."""

    FLATTEN = "flatten"
    REDUCE_ONLY = "reduce_only"


@dataclass(frozen=True, slots=True)
class RiskLimits:
    """Limits of the account, as fractions of equity unless said otherwise.

    0 switches off the band, the daily loss limit, the stop loss and the take profit; the other two are always on.
    """

    max_position: float = 1.0
    max_leverage: float = 1.0
    no_trade_band: float = 0.25
    daily_loss_limit: float = 0.05
    on_daily_loss: LossAction = LossAction.FLATTEN
    stop_loss: float = 0.05
    """Distance from the decision's close as a fraction of price, used where the strategy names none."""
    take_profit: float = 0.0


def _no_lots() -> dict[str, int]:
    return {}


class RiskState(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the risk layer must remember over a crash."""

    halted_by_operator: bool = written(False)
    flatten: bool = written(False)
    halted_by_loss: bool = written(False)
    day: int | None = written(None)
    """Number of the UTC day that is watched; ``None`` lets the next batch begin one."""
    day_open_equity: float = written(0.0)
    last_equity: float | None = written(None)
    """Equity at the last batch: what the next day begins with."""
    unavailable: tuple[str, ...] = written(())
    ordered_lots: dict[str, int] = msgspec.field(default_factory=_no_lots)
    """Where orders that have not filled yet will bring their symbols."""
    foreign: tuple[str, ...] = ()
    """Symbols that somebody else trades on this account."""
    unknown_because: str = ""
    """Why the account is not known to be what the journal says; empty while it is."""


class RiskLayer:
    """Reviews signals for one account."""

    def __init__(self, limits: RiskLimits, instruments: Mapping[str, Instrument], *, run_token: str) -> None:
        """
        Args:
            limits: the account's limits.
            instruments: trading rules by symbol.
            run_token: short text that makes client order ids unique to a run.
        """
        self.limits = limits
        self.instruments = dict(instruments)
        self._run_token = run_token
        self._no_trade_band = limits.no_trade_band
        self._stop_distance = exact(limits.stop_loss)
        self._target_distance = exact(limits.take_profit)
        self._state = RiskState()
        self.last_equity: float | None = None
        """Equity at the last batch."""
        self.day_end = _NO_DAY
        """A batch that closes later begins a new day."""
        self.loss_floor = _NO_FLOOR
        """Equity at which the daily loss limit is reached."""
        self.ordered_lots: dict[str, int] = {}
        """Lots that each symbol's order on the way is to lead to."""
        self._learn()

    def obey(self, instrument: Instrument) -> None:
        """Go by new trading rules of a symbol from now on."""
        symbol, before = instrument.symbol, self.instruments[instrument.symbol]
        self.instruments[symbol] = instrument
        if symbol in self.ordered_lots:
            self.ordered_lots[symbol] = instrument.lots(self.ordered_lots[symbol] * before.lot_size)
        self._learn()

    def _learn(self) -> None:
        """Keep what every bar asks of the instruments at hand."""
        instruments, limits = self.instruments, self.limits
        self._lot_sizes = {symbol: float(instrument.lot_size) for symbol, instrument in instruments.items()}
        self._is_alone = len(self.instruments) == 1
        self._maximum_leverage = {
            symbol: float(instrument.maximum_leverage) for symbol, instrument in instruments.items()
        }
        # Up to here nothing limits the target of a symbol that has the leverage to itself.
        alone = min(limits.max_position, limits.max_leverage, *self._maximum_leverage.values())
        self._unlimited = alone if self._is_alone else -math.inf
        self._is_long_only = any(instrument.is_spot for instrument in instruments.values())
        self._most_lots = {
            symbol: instrument.lots(instrument.maximum_market_quantity) for symbol, instrument in instruments.items()
        }
        self._become(self._state)

    @property
    def state(self) -> RiskState:
        """What must survive a crash, as it is now."""
        return msgspec.structs.replace(self._state, last_equity=self.last_equity, ordered_lots=dict(self.ordered_lots))

    def restore(self, state: RiskState) -> None:
        """Go on from ``state``."""
        self.last_equity = state.last_equity
        self.ordered_lots = dict(state.ordered_lots)
        self._become(state)

    def command(self, command: OperatorCommand) -> None:
        """Obey a person."""
        changes = {
            OperatorAction.HALT: {"halted_by_operator": True},
            OperatorAction.RESUME: {"halted_by_operator": False, "flatten": False, "halted_by_loss": False},
            OperatorAction.FLATTEN: {"halted_by_operator": True, "flatten": True},
        }
        state = msgspec.structs.replace(self._state, **changes[command.action])
        if command.action is OperatorAction.RESUME:
            # The loss so far is forgiven, or the very next bar would halt again.
            state = msgspec.structs.replace(state, day=None)
        self._become(state)

    def set_available(self, symbol: str, available: bool) -> None:
        """Note whether a symbol's data can be trusted."""
        unavailable = set(self._state.unavailable) - {symbol} if available else {*self._state.unavailable, symbol}
        self._become(msgspec.structs.replace(self._state, unavailable=tuple(sorted(unavailable))))

    def set_standing(self, standing: AccountStanding) -> None:
        """Note how far the account at the venue is known."""
        because = "" if standing.known else standing.reason or "nobody has said why"
        self._become(msgspec.structs.replace(self._state, foreign=standing.foreign, unknown_because=because))

    def observe_transfer(self, amount: float) -> None:
        """Take money that came or went, in quote units, out of what the day has made or lost."""
        if self.last_equity is not None:
            self.last_equity += amount
        self._become(msgspec.structs.replace(self._state, day_open_equity=self._state.day_open_equity + amount))

    def observe_equity(self, close_time: int, equity: float) -> None:
        """Watch the daily loss: called once per batch, after marking and before any review.

        Before ``day_end`` and above ``loss_floor`` all that it does is to note ``last_equity``, which a loop may do itself.

        The day is the UTC day of the batch's close and begins with the equity of the batch before it, so that a loss in
        its first bar counts, even where one bar is a whole day. A halt by loss ends with its day; a late batch of an
        earlier day does not begin one.
        """
        if close_time > self.day_end:
            opened = equity if self.last_equity is None else self.last_equity
            day = (close_time - 1) // DAY_MS
            self._become(msgspec.structs.replace(self._state, day=day, day_open_equity=opened, halted_by_loss=False))
        self.last_equity = equity
        if equity <= self.loss_floor and not self._state.halted_by_loss:
            self._become(msgspec.structs.replace(self._state, halted_by_loss=True))

    def forget_filled(self, working: Container[str]) -> None:
        """Drop the notes on orders that do not work any more: called once per batch, before any review."""
        self.ordered_lots = {symbol: lots for symbol, lots in self.ordered_lots.items() if symbol in working}

    def review(
        self, signal: Signal, bar: Bar, portfolio: Portfolio, equity: float, late: bool, working: bool
    ) -> tuple[Orders, Verdicts]:
        """Orders that bring the position towards the signal's target, and why they are as they are.

        Args:
            signal: what the strategy wants.
            bar: the bar that was decided on.
            portfolio: the account, marked at this batch's closes.
            equity: its equity, in quote units.
            late: the bar arrived late, so that it may only reduce.
            working: an earlier order of this symbol is still working.
        """
        symbol = bar.symbol
        lot_value = bar.close * self._lot_sizes[symbol]
        held_lots = portfolio.lots[symbol]
        target = signal.target_exposure
        # Single comparisons, as chains take twice as long; and negated, as what is not a number lies within nothing.
        if (
            target is None
            or not target <= self._highest
            or not target >= self._lowest
            or late
            or working
            or equity <= 0.0
        ):
            notional, reduce_only, verdicts = self._limit(symbol, target, portfolio, equity, late, working)
            if notional is None:
                return _NO_ORDERS, verdicts
            target_lots = trunc(notional / lot_value)
            if reduce_only:
                target_lots = _towards_flat(target_lots, held_lots)
        else:
            verdicts = _NO_VERDICTS
            target_lots = trunc(target * equity / lot_value)
        change = target_lots - held_lots
        if not change:
            return (_NO_ORDERS, (*verdicts, Verdict.ON_TARGET)) if verdicts else _ON_TARGET
        if (held_lots > 0 and target_lots > 0) or (held_lots < 0 and target_lots < 0):
            value, band = change * lot_value, self._no_trade_band * equity
            if value < band and value > -band:
                return (_NO_ORDERS, (*verdicts, Verdict.WITHIN_BAND)) if verdicts else _WITHIN_BAND
        return self._order_for(signal, bar, target_lots, held_lots, verdicts)

    def _limit(
        self, symbol: str, target: float | None, portfolio: Portfolio, equity: float, late: bool, working: bool
    ) -> tuple[float | None, bool, Verdicts]:
        """What limits and halts leave of a target.

        Returns the value to hold in quote units (``None``: no order), whether it may only reduce, and why.
        """
        if symbol in self._state.foreign:
            return None, False, _FOREIGN
        if target is not None and target != target:
            target = None  # Not a number is not an answer.
        outgrown = target is None and not working and self._has_outgrown(symbol, portfolio, equity)
        if outgrown:
            maximum = self._maximum_leverage[symbol]
            target = maximum if portfolio.lots[symbol] > 0 else -maximum
        if target is None and not self._restricted and equity > 0.0:
            return None, False, _UNKNOWN
        verdicts = [Verdict.LATE_BAR] if late else []
        target, reduce_only = self._restrict(symbol, target, late, verdicts)
        if equity <= 0.0:
            verdicts.append(Verdict.BANKRUPT)
            target = 0.0
        if working or target is None:
            return None, False, (*verdicts, Verdict.ORDER_WORKING if working else Verdict.UNKNOWN_HELD)
        if target < 0 and self.instruments[symbol].is_spot:
            verdicts.append(Verdict.LONG_ONLY)
            target = 0.0
        largest = self.limits.max_position
        if target > largest or -target > largest:
            verdicts.append(Verdict.CLIPPED_POSITION)
            target = largest if target > 0 else -largest
        largest = self._maximum_leverage[symbol]
        if target > largest or -target > largest or (outgrown and target):
            verdicts.append(Verdict.CLIPPED_SYMBOL_LEVERAGE)
            target = max(-largest, min(target, largest))
        notional = target * equity
        room = self.limits.max_leverage * equity
        if not self._is_alone:
            room -= self._committed_elsewhere(symbol, portfolio)
        if notional > room or -notional > room:
            if target:
                verdicts.append(Verdict.CLIPPED_LEVERAGE)
            room = max(room, 0.0)
            notional = room if target > 0 else -room
        return notional, reduce_only, tuple(verdicts)

    def _has_outgrown(self, symbol: str, portfolio: Portfolio, equity: float) -> bool:
        """Whether a position is larger than its symbol's maximum leverage allows, by more than the no-trade band."""
        held = abs(portfolio.lots[symbol])
        if not held or equity <= 0.0:
            return False
        largest = (self._maximum_leverage[symbol] + self._no_trade_band) * equity
        return held * self._lot_sizes[symbol] * portfolio.marks[symbol] > largest

    def _restrict(
        self, symbol: str, target: float | None, reduce_only: bool, verdicts: list[Verdict]
    ) -> tuple[float | None, bool]:
        state = self._state
        if symbol in state.unavailable:
            verdicts.append(Verdict.SYMBOL_UNAVAILABLE)
            reduce_only = True
        if state.unknown_because:
            verdicts.append(Verdict.ACCOUNT_UNKNOWN)
            reduce_only = True
        if state.halted_by_operator:
            verdicts.append(Verdict.FLATTENED_BY_OPERATOR if state.flatten else Verdict.HALTED_BY_OPERATOR)
            reduce_only = True
            if state.flatten:
                target = 0.0
        if state.halted_by_loss:
            verdicts.append(Verdict.HALTED_BY_LOSS)
            reduce_only = True
            if self.limits.on_daily_loss is LossAction.FLATTEN:
                target = 0.0
        return target, reduce_only

    def _committed_elsewhere(self, symbol: str, portfolio: Portfolio) -> float:
        """Value of all other positions, each as large as its order on the way can make it.

        Symbols that decide in one batch thereby share the leverage in their order. An order that reduces counts only
        once it has filled.
        """
        committed = portfolio.gross_notional_except(symbol)
        for other, lots in self.ordered_lots.items():
            growth = abs(lots) - abs(portfolio.lots[other])
            if other != symbol and growth > 0:
                committed += growth * self._lot_sizes[other] * portfolio.marks[other]
        return committed

    def _order_for(
        self, signal: Signal, bar: Bar, target_lots: int, held_lots: int, verdicts: Verdicts
    ) -> tuple[Orders, Verdicts]:
        symbol = bar.symbol
        instrument = self.instruments[symbol]
        most = self._most_lots[symbol]
        if abs(target_lots - held_lots) > most:
            target_lots = held_lots + most if target_lots > held_lots else held_lots - most
            verdicts = (*verdicts, Verdict.CLIPPED_QUANTITY)
        change = target_lots - held_lots
        quantity = abs(change) * instrument.lot_size
        reducing = target_lots * held_lots >= 0 and abs(target_lots) < abs(held_lots)
        # A position that is closed whole may be smaller than the minimum: the venue lets reduce-only orders through, which
        # the spot market has not.
        close = exact(bar.close)
        too_small = quantity < instrument.minimum_quantity or quantity * close < instrument.minimum_notional
        if too_small and (instrument.is_spot or not (reducing and target_lots == 0)):
            return _NO_ORDERS, (*verdicts, Verdict.BELOW_MINIMUM)
        side = _BUY if change > 0 else _SELL
        stop_loss, take_profit = (None, None) if reducing else self._levels(signal, close, side, instrument)
        if instrument.is_spot:
            # The stop loss holds the coins at the venue, so that nothing is left for a target to sell.
            take_profit = None
        name = client_order_id(self._run_token, symbol, bar.open_time)
        order = Order(
            name,
            symbol,
            side,
            quantity,
            bar.close_time,
            bar.open_time,
            reduce_only=reducing,
            stop_loss=stop_loss,
            take_profit=take_profit,
        )
        self.ordered_lots[symbol] = target_lots
        return (order,), (*verdicts, Verdict.FOLLOWED) if verdicts else _FOLLOWED

    def _levels(
        self, signal: Signal, close: Decimal, side: Side, instrument: Instrument
    ) -> tuple[Decimal | None, Decimal | None]:
        """Protective levels, rounded towards the entry so that neither risks more than was asked for."""
        stop_distance = _distance(signal.stop_distance, self._stop_distance)
        target_distance = _distance(signal.target_distance, self._target_distance)
        round_up, round_down, sign = instrument.ceil_price, instrument.floor_price, side.sign
        if side is _SELL:
            round_up, round_down = round_down, round_up
        stop_loss = round_up(close * (1 - sign * stop_distance)) if stop_distance else ZERO
        take_profit = round_down(close * (1 + sign * target_distance)) if target_distance else ZERO
        return stop_loss if stop_loss > 0 else None, take_profit if take_profit > 0 else None

    def _become(self, state: RiskState) -> None:
        """Take on a state, and keep what every bar asks for at hand."""
        self._state = state
        self._restricted = bool(
            state.halted_by_operator
            or state.halted_by_loss
            or state.unavailable
            or state.foreign
            or state.unknown_because
        )
        self._highest = -math.inf if self._restricted else self._unlimited
        self._lowest = 0.0 if self._is_long_only else -self._highest
        self.day_end = _NO_DAY if state.day is None else (state.day + 1) * DAY_MS
        limit = self.limits.daily_loss_limit
        self.loss_floor = state.day_open_equity * (1.0 - limit) if limit and state.day is not None else _NO_FLOOR


def _distance(asked: float | None, default: Decimal) -> Decimal:
    """The distance that a strategy asks for; what cannot be one (negative, not finite) counts as not asked for."""
    return exact(asked) if asked is not None and 0.0 <= asked < math.inf else default


def _towards_flat(target_lots: int, held_lots: int) -> int:
    """The part of a target that does not go beyond what is held."""
    if held_lots > 0:
        return min(max(target_lots, 0), held_lots)
    if held_lots < 0:
        return max(min(target_lots, 0), held_lots)
    return 0


def run_token(run_id: str) -> str:
    """Six characters that stand for a run in client order ids."""
    return hashlib.sha256(run_id.encode()).hexdigest()[:6]


def client_order_id(token: str, symbol: str, bar_open_time: int) -> str:
    """The id of the order decided on one bar: the same after a crash, and unique, as one bar has at most one order."""
    return _order_name(token, symbol, f"{bar_open_time // 1000:x}")


def guard_order_id(token: str, symbol: str, number: int) -> str:
    """The id of the guard of coins that is the so-manieth of its symbol: the same after a crash, and unique."""
    return _order_name(token, symbol, f"{GUARD}{number:x}")


def _order_name(token: str, symbol: str, last: str) -> str:
    """Of the run, the symbol and what tells its orders apart.

    Bybit allows 36 characters of ``[A-Za-z0-9_-]`` (https://bybit-exchange.github.io/docs/v5/order/create-order). A
    symbol that does not fit is cut and told apart by a hash.
    """
    name = _UNFIT.sub("", symbol)
    if name != symbol or len(name) > _LONGEST_NAME:
        name = name[: _LONGEST_NAME - 8] + hashlib.sha256(symbol.encode()).hexdigest()[:8]
    return f"{token}-{name}-{last}"
