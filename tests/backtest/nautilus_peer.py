"""A cross of averages in NautilusTrader, run by its own interpreter: reads bars as JSON, prints fills and equity as JSON.

It imports nothing of this project: the peer needs versions of packages of its own.
"""

from __future__ import annotations

import json
import sys
from decimal import Decimal

import numpy as np
import pandas as pd
from nautilus_trader.backtest.config import BacktestEngineConfig
from nautilus_trader.backtest.engine import BacktestEngine
from nautilus_trader.config import LoggingConfig, StrategyConfig
from nautilus_trader.model.currencies import USDT
from nautilus_trader.model.data import BarType
from nautilus_trader.model.enums import AccountType, OmsType, OrderSide
from nautilus_trader.model.identifiers import InstrumentId, Symbol, Venue
from nautilus_trader.model.instruments import CryptoPerpetual
from nautilus_trader.model.objects import Currency, Money, Price, Quantity
from nautilus_trader.persistence.wranglers import BarDataWrangler
from nautilus_trader.trading.strategy import Strategy

SIM = Venue("SIM")
FAST, SLOW = 20, 50


class CrossConfig(StrategyConfig, frozen=True):
    """What the strategy is told."""

    instrument_id: InstrumentId
    bar_type: BarType


class Cross(Strategy):
    """Long above, short below; whole units, as many as the equity at the close buys."""

    def __init__(self, config: CrossConfig) -> None:
        super().__init__(config)
        self.ticks: list[int] = []
        self.side = 0
        self.fills: list[list[object]] = []
        self.equity: list[float] = []

    def on_start(self) -> None:
        self.instrument = self.cache.instrument(self.config.instrument_id)
        self.subscribe_bars(self.config.bar_type)

    def on_bar(self, bar) -> None:
        close = bar.close.as_decimal()
        equity = self.worth(close)
        self.equity.append(float(equity))
        self.ticks.append(int(close * 100))
        if len(self.ticks) < SLOW:
            return
        recent = self.ticks[-SLOW:]
        lead = sum(recent[-FAST:]) * SLOW - sum(recent) * FAST
        side = (lead > 0) - (lead < 0)
        if side == self.side:
            return
        self.side = side
        held = self.portfolio.net_position(self.instrument.id)
        change = side * Decimal(int(equity / close)) - held
        if change:
            order = self.order_factory.market(
                self.instrument.id,
                OrderSide.BUY if change > 0 else OrderSide.SELL,
                Quantity.from_int(int(abs(change))),
            )
            self.submit_order(order)

    def worth(self, close: Decimal) -> Decimal:
        """Balance, and what the position has gained at ``close``."""
        balance = self.portfolio.account(SIM).balance_total(USDT).as_decimal()
        gains = [
            position.signed_decimal_qty() * (close - Decimal(str(position.avg_px_open)))
            for position in self.cache.positions_open()
        ]
        return balance + sum(gains, Decimal(0))

    def on_order_filled(self, event) -> None:
        side = "buy" if event.order_side == OrderSide.BUY else "sell"
        fee = float(event.commission.as_decimal())
        self.fills.append([event.ts_event // 1_000_000, side, float(event.last_qty), float(event.last_px), fee])


def main(text: str) -> str:
    given = json.loads(text)
    quote = USDT
    base = Currency.from_str("BTC")
    instrument = CryptoPerpetual(
        instrument_id=InstrumentId(Symbol("AAA"), SIM),
        raw_symbol=Symbol("AAA"),
        base_currency=base,
        quote_currency=quote,
        settlement_currency=quote,
        is_inverse=False,
        price_precision=2,
        size_precision=0,
        price_increment=Price.from_str("0.01"),
        size_increment=Quantity.from_int(1),
        ts_event=0,
        ts_init=0,
        margin_init=Decimal("0.01"),
        margin_maint=Decimal("0.005"),
        maker_fee=Decimal(given["fee"]),
        taker_fee=Decimal(given["fee"]),
    )
    engine = BacktestEngine(config=BacktestEngineConfig(logging=LoggingConfig(bypass_logging=True)))
    engine.add_venue(
        venue=SIM,
        oms_type=OmsType.NETTING,
        account_type=AccountType.MARGIN,
        base_currency=None,
        starting_balances=[Money(given["cash"], quote)],
        default_leverage=Decimal(10),
    )
    engine.add_instrument(instrument)
    bar_type = BarType.from_str("AAA.SIM-1-HOUR-LAST-EXTERNAL")
    frame = pd.DataFrame(
        {name: np.array(given[name]) for name in ("open", "high", "low", "close")} | {"volume": 1e9},
        index=pd.to_datetime(given["close_time"], unit="ms", utc=True),
    )
    engine.add_data(BarDataWrangler(bar_type, instrument).process(frame))
    strategy = Cross(CrossConfig(instrument_id=instrument.id, bar_type=bar_type))
    engine.add_strategy(strategy)
    engine.run()
    return json.dumps({"fills": strategy.fills, "equity": strategy.equity})


if __name__ == "__main__":
    sys.stdout.write("\n" + main(sys.stdin.read()) + "\n")
