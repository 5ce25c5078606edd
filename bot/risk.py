"""The risk layer: a signal and the account in, orders out, each with the verdicts that shaped it.

It alone turns a wish into an order. It is deterministic, keeps its own small state (halts, the day's first equity) and
treats what it does not know as a reason to do less.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Final

import msgspec

from bot.execution.instruments import Instrument, exact
from bot.orders import OperatorAction, OperatorCommand, Order, Side, Verdict
from bot.portfolio import Portfolio
from strategies.bars import DAY_MS, Bar
from strategies.base import Signal

Verdicts = tuple[Verdict, ...]
Orders = tuple[Order, ...]

_NO_ORDERS: Final[Orders] = ()
_ON_TARGET: Final[Verdicts] = (Verdict.ON_TARGET,)
_WITHIN_BAND: Final[Verdicts] = (Verdict.WITHIN_BAND,)
_UNKNOWN: Final[Verdicts] = (Verdict.UNKNOWN_HELD,)


class LossAction(StrEnum):
    """What happens to open positions when the daily loss limit is reached."""

    FLATTEN = "flatten"
    REDUCE_ONLY = "reduce_only"


@dataclass(frozen=True, slots=True)
class RiskLimits:
    """Limits of the account, as fractions of equity unless said otherwise; 0 switches a limit or level off."""

    max_position: float = 1.0
    max_leverage: float = 1.0
    no_trade_band: float = 0.1
    daily_loss_limit: float = 0.05
    on_daily_loss: LossAction = LossAction.FLATTEN
    stop_loss: float = 0.05
    """Distance from the decision's close as a fraction of price, used where the strategy names none."""
    take_profit: float = 0.0


class RiskState(msgspec.Struct, frozen=True):
    """What the risk layer must remember over a crash."""

    halted_by_operator: bool = False
    flatten: bool = False
    halted_by_loss: bool = False
    day: int = -1
    day_open_equity: float = 0.0
    unavailable: tuple[str, ...] = ()


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
        self._lot_sizes = {symbol: float(instrument.lot_size) for symbol, instrument in instruments.items()}
        self.state = RiskState()
        self._restricted = False

    def restore(self, state: RiskState) -> None:
        """Go on from ``state``."""
        self.state = state
        self._note_restrictions()

    def command(self, command: OperatorCommand) -> None:
        """Obey a person."""
        changes = {
            OperatorAction.HALT: {"halted_by_operator": True},
            OperatorAction.RESUME: {"halted_by_operator": False, "flatten": False, "halted_by_loss": False},
            OperatorAction.FLATTEN: {"halted_by_operator": True, "flatten": True},
        }
        self.state = msgspec.structs.replace(self.state, **changes[command.action])
        if command.action is OperatorAction.RESUME:
            # The loss so far is forgiven, or the very next bar would halt again.
            self.state = msgspec.structs.replace(self.state, day=-1)
        self._note_restrictions()

    def set_available(self, symbol: str, available: bool) -> None:
        """Note whether a symbol's data can be trusted."""
        unavailable = set(self.state.unavailable) - {symbol} if available else {*self.state.unavailable, symbol}
        self.state = msgspec.structs.replace(self.state, unavailable=tuple(sorted(unavailable)))
        self._note_restrictions()

    def observe_equity(self, close_time: int, equity: float) -> None:
        """Watch the daily loss: called once per batch, after marking and before any review.

        The day is the UTC day of the batch's close; a halt by loss ends with it.
        """
        day = (close_time - 1) // DAY_MS
        state = self.state
        if day != state.day:
            self.state = msgspec.structs.replace(state, day=day, day_open_equity=equity, halted_by_loss=False)
            self._note_restrictions()
            return
        limit = self.limits.daily_loss_limit
        if limit and not state.halted_by_loss and equity <= state.day_open_equity * (1.0 - limit):
            self.state = msgspec.structs.replace(state, halted_by_loss=True)
            self._note_restrictions()

    def review(
        self, signal: Signal, bar: Bar, portfolio: Portfolio, equity: float, *, late: bool, working: bool
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
        target = signal.target_exposure
        if target is None and not self._restricted:
            return _NO_ORDERS, _UNKNOWN
        symbol = bar.symbol
        close = bar.close
        lot_size = self._lot_sizes[symbol]
        held_lots = portfolio.lots[symbol]
        if equity <= 0.0:
            return self._order_for(signal, bar, 0, held_lots, [Verdict.BANKRUPT])
        verdicts: list[Verdict] = []
        reduce_only = late
        if late:
            verdicts.append(Verdict.LATE_BAR)
        if self._restricted:
            target, reduce_only = self._restrict(symbol, target, reduce_only, verdicts)
        if working:
            return _NO_ORDERS, (*verdicts, Verdict.ORDER_WORKING)
        if target is None:
            return _NO_ORDERS, (*verdicts, Verdict.UNKNOWN_HELD)
        notional = self._clip(symbol, target, equity, portfolio, verdicts)
        lots = int(abs(notional) / (close * lot_size))
        target_lots = lots if notional > 0 else -lots
        if reduce_only:
            target_lots = _towards_flat(target_lots, held_lots)
        if target_lots == held_lots:
            return _NO_ORDERS, (*verdicts, Verdict.ON_TARGET) if verdicts else _ON_TARGET
        same_side = target_lots * held_lots > 0
        if same_side and abs(target_lots - held_lots) * lot_size * close < self.limits.no_trade_band * equity:
            return _NO_ORDERS, (*verdicts, Verdict.WITHIN_BAND) if verdicts else _WITHIN_BAND
        return self._order_for(signal, bar, target_lots, held_lots, verdicts)

    def _restrict(
        self, symbol: str, target: float | None, reduce_only: bool, verdicts: list[Verdict]
    ) -> tuple[float | None, bool]:
        state = self.state
        if symbol in state.unavailable:
            verdicts.append(Verdict.SYMBOL_UNAVAILABLE)
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

    def _clip(self, symbol: str, target: float, equity: float, portfolio: Portfolio, verdicts: list[Verdict]) -> float:
        limits = self.limits
        largest = limits.max_position
        if target > largest or -target > largest:
            verdicts.append(Verdict.CLIPPED_POSITION)
            target = largest if target > 0 else -largest
        notional = target * equity
        room = limits.max_leverage * equity - portfolio.gross_notional_except(symbol)
        if abs(notional) > room:
            verdicts.append(Verdict.CLIPPED_LEVERAGE)
            notional = max(room, 0.0) if notional > 0 else -max(room, 0.0)
        return notional

    def _order_for(
        self, signal: Signal, bar: Bar, target_lots: int, held_lots: int, verdicts: list[Verdict]
    ) -> tuple[Orders, Verdicts]:
        instrument = self.instruments[bar.symbol]
        change = target_lots - held_lots
        if change == 0:
            return _NO_ORDERS, (*verdicts, Verdict.ON_TARGET)
        side = Side.BUY if change > 0 else Side.SELL
        quantity = abs(change) * instrument.lot_size
        if quantity > instrument.maximum_market_quantity:
            quantity = instrument.floor_quantity(instrument.maximum_market_quantity)
            verdicts.append(Verdict.CLIPPED_QUANTITY)
        reducing = target_lots * held_lots >= 0 and abs(target_lots) < abs(held_lots)
        # A position that is closed whole may be smaller than the minimum: the venue lets reduce-only orders through.
        too_small = quantity < instrument.minimum_quantity or quantity * exact(bar.close) < instrument.minimum_notional
        if too_small and not (reducing and target_lots == 0):
            return _NO_ORDERS, (*verdicts, Verdict.BELOW_MINIMUM)
        stop_loss, take_profit = (None, None) if reducing else self._levels(signal, bar, side, instrument)
        order = Order(
            client_order_id=client_order_id(self._run_token, bar.symbol, bar.open_time),
            symbol=bar.symbol,
            side=side,
            quantity=quantity,
            decided_at=bar.close_time,
            bar_open_time=bar.open_time,
            reduce_only=reducing,
            stop_loss=stop_loss,
            take_profit=take_profit,
        )
        verdicts.append(Verdict.FOLLOWED)
        return (order,), tuple(verdicts)

    def _levels(
        self, signal: Signal, bar: Bar, side: Side, instrument: Instrument
    ) -> tuple[Decimal | None, Decimal | None]:
        """Protective levels, rounded towards the entry so that neither risks more than was asked for."""
        stop_distance = signal.stop_distance if signal.stop_distance is not None else self.limits.stop_loss
        target_distance = signal.target_distance if signal.target_distance is not None else self.limits.take_profit
        stop_loss: Decimal | None = None
        take_profit: Decimal | None = None
        if side is Side.BUY:
            if stop_distance:
                stop_loss = instrument.ceil_price(exact(bar.close * (1.0 - stop_distance)))
            if target_distance:
                take_profit = instrument.floor_price(exact(bar.close * (1.0 + target_distance)))
        else:
            if stop_distance:
                stop_loss = instrument.floor_price(exact(bar.close * (1.0 + stop_distance)))
            if target_distance:
                take_profit = instrument.ceil_price(exact(bar.close * (1.0 - target_distance)))
        return (
            stop_loss if stop_loss is not None and stop_loss > 0 else None,
            take_profit if take_profit is not None and take_profit > 0 else None,
        )

    def _note_restrictions(self) -> None:
        state = self.state
        self._restricted = bool(state.halted_by_operator or state.halted_by_loss or state.unavailable)


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
    """The id of the order decided on one bar: the same after a crash, and unique, as one bar has at most one order.

    Bybit allows 36 characters of ``[A-Za-z0-9_-]`` (https://bybit-exchange.github.io/docs/v5/order/create-order).
    """
    name = "".join(character for character in symbol if character.isalnum())[:16]
    return f"{token}-{name}-{bar_open_time // 1000:x}"
