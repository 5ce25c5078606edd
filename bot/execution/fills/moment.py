"""One bar as the book of one symbol meets it: what it gives, and what has come of it so far."""

from __future__ import annotations

from decimal import Decimal

from bot.execution.fills.book import BookSide
from bot.execution.fills.margin import hold
from bot.execution.fills.pricing import Pricing
from bot.execution.fills.rules import FillRules, MarginMode
from bot.execution.instruments import Instrument, exact
from bot.orders import Execution
from strategies.bars import Bar


class Moment:
    """What orders and levels share while a bar goes through their book.

    Args:
        pricing: of the symbol.
        rules: how orders meet bars.
        instrument: trading rules of the symbol.
        book: what waits and is held; changed by every bar.
    """

    __slots__ = ("bar", "book", "budget", "executions", "instrument", "opened", "pricing", "rules")

    bar: Bar
    opened: Decimal
    """The bar's open, in quote units."""

    def __init__(self, pricing: Pricing, rules: FillRules, instrument: Instrument, book: BookSide) -> None:
        self.pricing = pricing
        self.rules = rules
        self.instrument = instrument
        self.book = book
        self.budget: Decimal | None = None
        """Base units that the account may still be filled with in this bar; ``None``: as many as it wants."""
        self.executions: list[Execution] = []
        """Of this bar, in the order in which they are assumed to have happened."""

    def begin(self, bar: Bar) -> None:
        """Turn to the next bar."""
        self.bar = bar
        self.opened = exact(bar.open)
        if self.rules.participation:
            self.budget = self.pricing.budget(bar)
        self.executions = []

    def hold(self, change: Decimal, price: Decimal) -> None:
        """Change the position, and the prices at which its margin is gone."""
        book = self.book
        if self.rules.margin is not MarginMode.ISOLATED:
            book.quantity += change
            return
        hold(book, change, price, self.rules, self.instrument)


def is_beyond(price: Decimal, level: Decimal, downwards: bool) -> bool:
    """Whether a price is at a level or past it, going down or up."""
    return price <= level if downwards else price >= level
