"""How the venue's account is set up when the venue is made."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum

from backtest.sandbox.keys import ApiKey
from backtest.sandbox.records import PositionMode
from bot.execution.fills import PLAIN, Costs, FillRules


class MarginSetting(StrEnum):
    """Of the whole account, as ``/v5/account/info`` tells it."""

    ISOLATED = "ISOLATED_MARGIN"
    CROSS = "REGULAR_MARGIN"
    PORTFOLIO = "PORTFOLIO_MARGIN"


@dataclass(frozen=True, slots=True)
class AccountSetting:
    """One unified account, and the keys to it.

    Args:
        keys: whoever signs with one of them trades this account; several are several hands on it.
        balance: USDT at the start.
        coins: other coins at the start, for the spot market.
        costs: fees and slippage of linear contracts.
        spot_fee: of the spot market, as a fraction of what is received.
        rules: how orders meet bars; see ``bot.execution.fills``.
        leverage: of every symbol until ``/v5/position/set-leverage``, and no more than the symbol's own maximum.
        mode: one position per symbol or one for each side.
        margin: of the account.
    """

    keys: tuple[ApiKey, ...]
    balance: Decimal = Decimal(10_000)
    coins: dict[str, Decimal] = field(default_factory=dict)
    costs: Costs = field(default_factory=Costs)
    spot_fee: Decimal = Decimal("0.001")
    rules: FillRules = PLAIN
    leverage: Decimal = Decimal(10)
    mode: PositionMode = PositionMode.ONE_WAY
    margin: MarginSetting = MarginSetting.CROSS
