"""What an account can be asked: orders, fills, positions, the wallet, the key's rights and fees."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from bot.errors import VenueError
from bot.execution.bybit.decode import (
    SETTLE_COIN,
    VenueExecution,
    VenueOrder,
    VenuePosition,
    VenueWallet,
    decimal_of,
    decode_executions,
    decode_orders,
    decode_positions,
    decode_wallets,
)
from bot.execution.bybit.rate_limits import EndpointGroup
from bot.execution.bybit.rest_session import RestSession, rows_of
from bot.execution.instruments import Category

__all__ = ["SETTLE_COIN", "AccountQuestions"]


class AccountQuestions:
    """Questions about one account, repeated until they are answered.

    All raise ``VenueError`` with one sentence when the venue refuses or cannot be reached.

    Args:
        session: of the account.
        category: which market orders, fills and positions are asked of.
    """

    def __init__(self, session: RestSession, category: Category) -> None:
        self._session = session
        self.category: Category = category
        self.endpoint = session.endpoint

    async def find_order(self, symbol: str, client_order_id: str) -> VenueOrder | None:
        """An order by our id, among the open and recent ones, then in the history; ``None`` where the venue has none."""
        parameters = {"category": self.category, "symbol": symbol, "orderLinkId": client_order_id}
        questions = self._session.questions
        for call in (questions.get_open_orders, questions.get_order_history):
            reply = await self._session.ask(EndpointGroup.READ, call, parameters, f"order {client_order_id}")
            for order in decode_orders(rows_of(reply)):
                if order.client_order_id == client_order_id:
                    return order
        return None

    async def open_orders(self) -> list[VenueOrder]:
        """All open orders of the category, whoever sent them."""
        parameters = {"category": self.category, "openOnly": "0", "limit": "50"}
        if self.category == "linear":
            # Contracts have to be narrowed down; coins have nothing that they are settled in.
            parameters["settleCoin"] = SETTLE_COIN
        rows = await self._session.pages(self._session.questions.get_open_orders, parameters, "open orders")
        return [order for order in decode_orders(rows) if order.is_open]

    async def executions(self, since: int) -> list[VenueExecution]:
        """Fills and settlements from ``since`` on (milliseconds, at most 7 days ago), oldest first."""
        parameters = {"category": self.category, "startTime": str(since), "limit": "100"}
        rows = await self._session.pages(self._session.questions.get_executions, parameters, "executions")
        return sorted(decode_executions(rows), key=lambda fill: (fill.time, fill.sequence, fill.execution_id))

    async def positions(self) -> list[VenuePosition]:
        """Positions that are not flat."""
        parameters = {"category": self.category, "settleCoin": SETTLE_COIN, "limit": "200"}
        rows = await self._session.pages(self._session.questions.get_positions, parameters, "positions")
        return [position for position in decode_positions(rows) if position.quantity]

    async def position_rows(self, symbol: str) -> list[VenuePosition]:
        """The rows of one symbol, flat ones too: one in one-way mode, two in hedge mode."""
        parameters = {"category": self.category, "symbol": symbol}
        call = self._session.questions.get_positions
        reply = await self._session.ask(EndpointGroup.READ, call, parameters, f"the position of {symbol}")
        return decode_positions(rows_of(reply))

    async def wallet(self) -> VenueWallet:
        """What the unified account holds.

        Raises:
            VenueError: the venue has no such account, or cannot be reached.
        """
        parameters = {"accountType": "UNIFIED"}
        call = self._session.questions.get_wallet_balance
        reply = await self._session.ask(EndpointGroup.READ, call, parameters, "the wallet")
        found = decode_wallets(rows_of(reply))
        if not found:
            raise VenueError(f"{self.endpoint} has no unified account for this key; upgrade the account at Bybit")
        return found[0]

    async def key_information(self) -> Mapping[str, Any]:
        """What the key may do and until when, as ``/v5/user/query-api`` tells it."""
        call = self._session.questions.get_api_key_information
        reply = await self._session.ask(EndpointGroup.READ, call, {}, "the key's rights")
        result = reply.get("result")
        return result if isinstance(result, Mapping) else {}

    async def margin_mode(self) -> str:
        """The account's margin mode in the venue's word, such as ``REGULAR_MARGIN``; empty where it does not say."""
        call = self._session.questions.get_account_info
        reply = await self._session.ask(EndpointGroup.READ, call, {}, "the margin mode")
        result = reply.get("result")
        mode = result.get("marginMode") if isinstance(result, Mapping) else None
        return mode if isinstance(mode, str) else ""

    async def fee_rates(self, symbol: str) -> tuple[Decimal, Decimal] | None:
        """Taker and maker fee as fractions; ``None`` where the environment does not tell, as the demo one does not."""
        parameters = {"category": self.category, "symbol": symbol}
        call = self._session.questions.get_fee_rates
        try:
            reply = await self._session.ask(EndpointGroup.FEE_RATE, call, parameters, "fees")
        except VenueError:
            return None
        for row in rows_of(reply):
            taker, maker = decimal_of(row.get("takerFeeRate")), decimal_of(row.get("makerFeeRate"))
            if taker is not None and maker is not None:
                return taker, maker
        return None
