"""Comparing a run's account with the venue: what is asked, what two comparisons have to agree on, and what follows.

What the venue's view means for the journal is decided in ``AccountBook``; here is when it is believed.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, Protocol

from bot.errors import VenueError
from bot.execution.bybit.account_book import AccountBook, Compared
from bot.execution.bybit.client import SETTLE_COIN, BybitAccount, Refused
from bot.execution.bybit.reconciliation import VenueView
from bot.execution.bybit.snapshot import look_at
from bot.live_guards import Desk, Guards
from bot.orders import AccountEvent, AccountStanding, RuleChange

_AGAIN_S: Final = 0.2
"""Until the account is looked at again, where a fill has come in while it was."""
_CLOCK_EVERY: Final = 10
"""Comparisons between two measurements of the venue's clock."""


@dataclass(frozen=True, slots=True)
class AccountLimits:
    """How long the account waits, in seconds of real time."""

    every_s: float = 30.0
    """Between two comparisons with the venue."""
    retry_s: float = 2.0
    """Between two while something is not clear."""
    verify_s: float = 1.0
    """After a fill, until it is looked whether the position is protected."""
    lost_after_s: float = 10.0
    """An order that the venue does not know for so long never arrived: twice the time that a request is good for."""
    patience_s: float = 3.0
    """A batch waits so long for a comparison that is under way, and for orders of its symbols that are being sent."""
    grace_s: float = 0.25
    """And so long for the fill of a market order that was sent."""


class ComparedDesk(Desk, Protocol):
    """What a comparison needs of the account that it belongs to."""

    @property
    def standing(self) -> AccountStanding:
        """How far the account is known."""

    @property
    def is_connected(self) -> bool:
        """Whether the account's stream is."""

    def stand(self, known: bool, reason: str = "", *, foreign: tuple[str, ...] | None = None) -> None:
        """Tell how far the account is known, where that has changed."""


class Comparison:
    """The comparisons of one run, and what they remember of one another.

    Args:
        client: for requests.
        book: what the run believes.
        guards: of the run's coins.
        desk: of the account.
        limits: how long to wait.
        whole_wallet: money that comes and goes is the run's; else it trades a part of the wallet only.
        rule_changes: asked every time for what has changed in the symbols' trading rules.
    """

    def __init__(
        self,
        client: BybitAccount,
        book: AccountBook,
        guards: Guards,
        desk: ComparedDesk,
        *,
        limits: AccountLimits,
        whole_wallet: bool,
        rule_changes: Callable[[], Awaitable[Sequence[AccountEvent]]] | None,
    ) -> None:
        self._client = client
        self._book = book
        self._guards = guards
        self._desk = desk
        self._limits = limits
        self._whole_wallet = whole_wallet
        self._rule_changes = rule_changes
        self._unseen: dict[str, float] = {}
        self._suspects: frozenset[tuple[str, str]] = frozenset()
        self._odd_wallet: Decimal | None = None
        self._failures = 0
        self.comparisons = 0
        """Since the start."""

    async def compare(self) -> float:
        """Compare once; returns after how many seconds to do so again."""
        limits, book = self._limits, self._book
        asked = {
            name: order
            for name, order in book.waiting.items()
            if not self._desk.is_sending(name) and self._guards.is_durable(name)
        }
        asked_at = book.newest
        try:
            if self.comparisons % _CLOCK_EVERY == 0:
                await self._client.synchronise()
            working = [(order.symbol, name) for name, order in asked.items()]
            view = await look_at(self._client, working, book.since, book.coins)
            wallet = (await self._client.wallet()).coins.get(SETTLE_COIN)
        except VenueError as problem:
            self._desk.stand(False, str(problem))
            self._failures += 1
            return min(limits.retry_s * 2.0 ** (self._failures - 1), limits.every_s)
        self._failures = 0
        self.comparisons += 1
        if self._rule_changes is not None:
            self._obey(await self._rule_changes())
        found = book.compare(view, asked, asked_at)
        self._desk.tell(found.events)
        unclear = self._judge_unseen(found)
        if found.foreign and book.is_newer_than(view):
            return _AGAIN_S
        if self._judge_foreign(found):
            return limits.retry_s
        if wallet is not None and not book.working and not found.events:
            unclear |= self._judge_wallet(wallet, view)
        if book.coins is not None:
            self._guards.verify(found.naked, found.astray, self._desk.standing.foreign)
        else:
            for symbol in found.naked:
                await self._protect(symbol)
        unclear |= bool(found.naked or found.astray or book.missing_fills)
        return limits.retry_s if unclear else limits.every_s

    def _obey(self, events: Sequence[AccountEvent]) -> None:
        for event in events:
            if isinstance(event, RuleChange):
                self._book.obey(event.instrument)
        self._desk.tell(events)

    def _judge_unseen(self, found: Compared) -> bool:
        """End orders that the venue has not known for long enough; whether there are others that it does not know."""
        now = time.monotonic()
        self._unseen = {name: self._unseen.get(name, now) for name in found.unseen}
        for name, since in list(self._unseen.items()):
            if now - since >= self._limits.lost_after_s:
                self._desk.tell(self._book.lost(name))
                del self._unseen[name]
        return bool(self._unseen)

    def _judge_foreign(self, found: Compared) -> bool:
        """Stand down from what is not ours, once two comparisons agree on it; whether another has to be made for that."""
        ours = {symbol: text for symbol, text in found.foreign.items() if symbol in self._book.portfolio.positions}
        suspects = frozenset(found.foreign.items())
        again = suspects != self._suspects
        self._suspects = suspects
        if suspects and again:
            self._desk.stand(False, "; ".join(f"{symbol}: {text}" for symbol, text in sorted(suspects)))
            return True
        if not self._desk.is_connected:
            self._desk.stand(False, "the account's stream is not connected")
            return False
        for symbol, text in sorted(ours.items()):
            if symbol not in self._desk.standing.foreign:
                self._desk.alarm(
                    symbol, f"somebody else trades {symbol} on this account: {text}; nothing of it is touched"
                )
        self._desk.stand(True, foreign=tuple(sorted(ours)))
        return False

    def _judge_wallet(self, wallet: Decimal, view: VenueView) -> bool:
        """Book what trading does not explain, once two comparisons agree on it; whether another has to be made for that."""
        book = self._book
        if book.explains(wallet, view):
            self._odd_wallet = None
            return False
        if wallet != self._odd_wallet:
            self._odd_wallet = wallet
            return True
        self._odd_wallet = None
        self._desk.tell(book.transferred(wallet, view, outside=not self._whole_wallet))
        return False

    async def _protect(self, symbol: str) -> None:
        """Give a position its stop loss back; where the venue does not take it, close the position."""
        held = self._book.venue.books[symbol]
        self._desk.alarm(
            symbol, f"the position of {held.quantity:f} has no stop loss at the venue; {held.stop_loss} is set again"
        )
        try:
            await self._client.set_stops(symbol, held.stop_loss, held.take_profit)
            return
        except Refused as problem:
            if problem.is_ambiguous:
                return
            reason = str(problem)
        self._desk.close_out(symbol, reason)
