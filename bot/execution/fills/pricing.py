"""What a taker pays, and how much of a bar an account can have.

A taker's price is the price of the moment made worse by half the spread, the slippage, the impact of its own size and, for
an order that was sent over the network, by what the price does on the way:

    impact  = factor × sigma × sqrt(quantity / volume)
    drift   = sigma × sqrt(latency / length of the bar)
    sigma   = (high / low - 1) / (2 sqrt(ln 2))

The square-root law with a factor near 1 holds over many markets and sizes: B. Tóth et al., *Anomalous price impact and the
critical nature of liquidity in financial markets*, Phys. Rev. X 1, 021006 (2011), https://arxiv.org/abs/1105.2585, and for
Bitcoin J. Donier and J. Bonart, *A million metaorder analysis of market impact on the Bitcoin* (2015),
https://arxiv.org/abs/1412.4503. Volatility and volume there are a day's; their ratio sigma / sqrt(volume) is the same for a
bar, as both grow with time. ``sigma`` is Parkinson's estimate from the range (*The extreme value method for estimating the
variance of the rate of return*, J. Business 53, 1980), with high / low - 1 for its logarithm, which is never less.
"""

from __future__ import annotations

import math
from decimal import ROUND_FLOOR, Decimal
from typing import Final

from bot.execution.fills.rules import Costs, FillRules
from bot.execution.instruments import Instrument, exact
from bot.orders import Side
from strategies.bars import Bar

_PARKINSON: Final = 1.0 / (2.0 * math.sqrt(math.log(2.0)))
_BUY: Final = Side.BUY


class Pricing:
    """Prices and quantities that the bars of one symbol give to an account."""

    __slots__ = ("_bought", "_instrument", "_rules", "_sold", "_worsens", "maker_fee", "taker_fee")

    def __init__(self, costs: Costs, rules: FillRules, instrument: Instrument) -> None:
        self._instrument = instrument
        self._rules = rules
        self._bought = 1 + costs.slippage + costs.spread / 2
        self._sold = 1 - costs.slippage - costs.spread / 2
        self._worsens = bool(rules.impact or rules.latency_ms)
        self.taker_fee = costs.taker_fee
        self.maker_fee = costs.maker_fee

    def taken(self, price: Decimal, side: Side, quantity: Decimal, bar: Bar, *, sent: bool) -> Decimal:
        """The price that a taker gets, on the tick, away from the account's favour.

        Args:
            price: of the moment, in quote units.
            side: of the taker.
            quantity: that it takes, in base units.
            bar: in which it does.
            sent: whether the order comes over the network now; else it lay at the venue already.
        """
        bought, sold = self._bought, self._sold
        if self._worsens:
            worse = exact(self._worsening(quantity, bar, sent))
            bought, sold = bought + worse, sold - worse
        instrument = self._instrument
        if side is _BUY:
            return instrument.ceil_price(price * bought)
        return max(instrument.floor_price(price * sold), instrument.tick_size)

    def budget(self, bar: Bar) -> Decimal | None:
        """Base units that orders of the account may be filled with in this bar; ``None``: as many as they want."""
        share = self._rules.participation
        return self.lots(share * bar.volume) if share else None

    def lots(self, quantity: float) -> Decimal:
        """Whole lots in a quantity of base units."""
        lot = self._instrument.lot_size
        return (exact(quantity) / lot).to_integral_value(ROUND_FLOOR) * lot

    def _worsening(self, quantity: Decimal, bar: Bar, sent: bool) -> float:
        sigma = (bar.high / bar.low - 1.0) * _PARKINSON if bar.low > 0.0 else 0.0
        rules = self._rules
        # In a bar without volume whoever trades is the market.
        share = float(quantity) / bar.volume if bar.volume > 0.0 else 1.0
        worse = rules.impact * sigma * math.sqrt(share)
        if sent and rules.latency_ms:
            worse += sigma * math.sqrt(min(1.0, rules.latency_ms / max(1, bar.close_time - bar.open_time)))
        return worse
