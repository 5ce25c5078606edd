"""Margin: when the venue takes positions over, and at what price they are closed then.

Under cross margin all positions stand for each other with all that the account has: they are taken over when its equity, at the
worst prices of a bar, is no more than their maintenance margins together
(https://www.bybit.com/en/help-center/article/Liquidation-Process-under-Cross-Margin-Mode-Unified-Trading-Account). A stop loss
that is nearer than the worst price bounds it.

Under isolated margin each stands alone. Bybit's formulas for USDT contracts under isolated margin
(https://www.bybit.com/en/help-center/article/Liquidation-Price-Calculation-under-Isolated-Mode-Unified-Trading-Account):

    initial margin      = quantity × entry price / leverage
    maintenance margin  = quantity × entry price × rate - deduction
    liquidation price   = entry price ∓ (initial margin - maintenance margin) / quantity    (long: -, short: +)
    bankruptcy price    = entry price × (1 ∓ 1 / leverage)

Rate and deduction are those of the tier that the value of the position lies in
(https://bybit-exchange.github.io/docs/v5/market/risk-limit).
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from bot.execution.fills.book import BookSide
from bot.execution.fills.rules import FillRules
from bot.execution.instruments import Instrument, exact
from bot.orders import ZERO
from strategies.bars import Bar


def maintenance_margin(value: Decimal, instrument: Instrument, fallback_rate: Decimal) -> Decimal:
    """Margin below which a position of that value is liquidated, in quote units.

    Args:
        value: quantity times entry price, without sign.
        instrument: whose tiers count; the last one stands for all values beyond it.
        fallback_rate: of value, where the instrument has no tiers.
    """
    tiers = instrument.margin_tiers
    if not tiers:
        return value * fallback_rate
    tier = next((tier for tier in tiers if value <= tier.up_to_value), tiers[-1])
    return max(value * tier.maintenance_rate - tier.deduction, ZERO)


def isolated_prices(
    quantity: Decimal, cost: Decimal, leverage: Decimal, maintenance: Decimal, instrument: Instrument
) -> tuple[Decimal | None, Decimal | None]:
    """Liquidation and bankruptcy price of a position; ``None`` each where no price above zero is so bad.

    Both lie on the tick, rounded against the account: the position is never kept longer, nor loses less, than by the formula.

    Args:
        quantity: base units, negative when short; not 0.
        cost: signed cost of the position, quantity times average entry price.
        leverage: value over initial margin.
        maintenance: of the position, in quote units.
        instrument: its tick.
    """
    entry = cost / quantity
    margin = abs(cost) / leverage
    # A position whose margin is below maintenance from the start is taken over at once.
    room = max(margin - maintenance, ZERO) / abs(quantity)
    if quantity > 0:
        liquidation, bankruptcy = instrument.ceil_price(entry - room), instrument.floor_price(entry - entry / leverage)
    else:
        liquidation, bankruptcy = instrument.floor_price(entry + room), instrument.ceil_price(entry + entry / leverage)
    return (
        liquidation if liquidation > 0 else None,
        max(bankruptcy, instrument.tick_size),
    )


def hold(book: BookSide, change: Decimal, price: Decimal, rules: FillRules, instrument: Instrument) -> None:
    """Change the position of a book by a fill, and with it the prices at which its margin is gone."""
    held = book.quantity
    after = held + change
    if not after:
        book.cost = ZERO
    elif held * after <= 0:
        book.cost = after * price
    elif held * change > 0:
        book.cost += change * price
    else:
        book.cost = book.cost * after / held
    book.quantity = after
    book.liquidation = book.bankruptcy = None
    if after:
        maintenance = maintenance_margin(abs(book.cost), instrument, rules.maintenance_rate)
        leverage = max(rules.leverage, Decimal(1))
        book.liquidation, book.bankruptcy = isolated_prices(after, book.cost, leverage, maintenance, instrument)


def worst_price(book: BookSide, bar: Bar) -> Decimal:
    """The worst that a bar can do to the position of a book: its extreme, or the fill of a stop loss on the way there.

    A stop loss that was reached already, and could not close the position whole, bounds nothing.
    """
    opened, stop = exact(bar.open), book.stop_loss if book.leaving is None else None
    if book.quantity > 0:
        low = exact(bar.low)
        return low if stop is None else max(low, min(opened, stop))
    high = exact(bar.high)
    return high if stop is None else min(high, max(opened, stop))


def is_margin_gone(cash: Decimal, held: Iterable[tuple[Decimal, Decimal, Instrument]], fallback_rate: Decimal) -> bool:
    """Whether an account under cross margin has no more than its positions must keep.

    Args:
        cash: of the account once its positions are paid for, in quote units.
        held: quantity (negative when short), price and instrument, whose tiers count, of every position.
        fallback_rate: maintenance margin over value, where an instrument has no tiers.
    """
    equity, maintenance = cash, ZERO
    for quantity, price, instrument in held:
        equity += quantity * price
        maintenance += maintenance_margin(abs(quantity) * price, instrument, fallback_rate)
    return maintenance > 0 and equity <= maintenance
