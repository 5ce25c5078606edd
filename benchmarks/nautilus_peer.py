"""The cross of averages in NautilusTrader, for its own interpreter: ``python nautilus_peer.py BARS.npz SETTINGS``.

It imports nothing of this project, as the peer needs versions of packages of its own. For every line on its standard input it
runs once and answers with a line of JSON. Averages are the peer's own indicators, compiled; the strategy asks for the account
only when the side changes, and sends one market order then. Only the engine's run is timed: data, engine and strategy are
there before, and nothing is computed from the result.
"""

from __future__ import annotations

import json
import sys
import time
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
from nautilus_trader.backtest.config import BacktestEngineConfig
from nautilus_trader.backtest.engine import BacktestEngine
from nautilus_trader.config import LoggingConfig, RiskEngineConfig, StrategyConfig
from nautilus_trader.indicators import SimpleMovingAverage
from nautilus_trader.model.currencies import USDT
from nautilus_trader.model.data import BarType
from nautilus_trader.model.enums import AccountType, OmsType, OrderSide
from nautilus_trader.model.identifiers import InstrumentId, Symbol, Venue
from nautilus_trader.model.instruments import CryptoPerpetual
from nautilus_trader.model.objects import Currency, Money, Price, Quantity
from nautilus_trader.persistence.wranglers import BarDataWrangler
from nautilus_trader.trading.strategy import Strategy

VENUE = Venue("SIM")


class CrossConfig(StrategyConfig, frozen=True):  # type: ignore[misc, call-arg]  # the package has no types here
    """What the strategy is told."""

    instrument_id: InstrumentId
    bar_type: BarType
    fast: int
    slow: int


class Cross(Strategy):  # type: ignore[misc]
    """Long above, short below, with as much as the account is worth."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.fast = SimpleMovingAverage(config.fast)
        self.slow = SimpleMovingAverage(config.slow)
        self.side = 0
        self.fills = 0

    def on_start(self) -> None:
        self.instrument = self.cache.instrument(self.config.instrument_id)
        self.register_indicator_for_bars(self.config.bar_type, self.fast)
        self.register_indicator_for_bars(self.config.bar_type, self.slow)
        self.subscribe_bars(self.config.bar_type)

    def on_bar(self, bar: Any) -> None:
        if not self.slow.initialized:
            return
        lead = self.fast.value - self.slow.value
        side = 1 if lead > 0 else -1
        if side == self.side or lead == 0:
            return
        self.side = side
        close = bar.close.as_double()
        held = float(self.portfolio.net_position(self.instrument.id))
        change = side * self.worth(close) / close - held
        self.submit_order(
            self.order_factory.market(
                self.instrument.id,
                OrderSide.BUY if change > 0 else OrderSide.SELL,
                Quantity(abs(change), self.instrument.size_precision),
            )
        )

    def worth(self, close: float) -> float:
        """Balance, and what the open position has gained at ``close``."""
        worth: float = self.portfolio.account(VENUE).balance_total(USDT).as_double()
        for position in self.cache.positions_open():
            worth += position.signed_qty * (close - position.avg_px_open)
        return worth

    def on_order_filled(self, event: Any) -> None:
        self.fills += 1


def run(bars: Any, instrument: Any, bar_type: Any, settings: dict[str, Any], last: float) -> dict[str, float]:
    engine = BacktestEngine(
        config=BacktestEngineConfig(
            logging=LoggingConfig(bypass_logging=True), risk_engine=RiskEngineConfig(bypass=False), run_analysis=False
        )
    )
    engine.add_venue(
        venue=VENUE,
        oms_type=OmsType.NETTING,
        account_type=AccountType.MARGIN,
        base_currency=None,
        starting_balances=[Money(settings["cash"], USDT)],
        default_leverage=Decimal(10),
    )
    engine.add_instrument(instrument)
    engine.add_data(bars)
    config = CrossConfig(instrument_id=instrument.id, bar_type=bar_type, fast=settings["fast"], slow=settings["slow"])
    strategy = Cross(config)
    engine.add_strategy(strategy)
    started = time.perf_counter()
    engine.run()
    seconds = time.perf_counter() - started
    worth = strategy.worth(last)
    engine.dispose()
    # An order that turns the position is told as two fills, and ends a round trip; the first only opens.
    return {"seconds": seconds, "trades": (strategy.fills - 1) // 2, "total_return": worth / settings["cash"] - 1.0}


def main(path: str, text: str) -> None:
    settings = json.loads(text)
    instrument = CryptoPerpetual(
        instrument_id=InstrumentId(Symbol("BTCUSDT"), VENUE),
        raw_symbol=Symbol("BTCUSDT"),
        base_currency=Currency.from_str("BTC"),
        quote_currency=USDT,
        settlement_currency=USDT,
        is_inverse=False,
        price_precision=settings["price_precision"],
        size_precision=settings["size_precision"],
        price_increment=Price(10.0 ** -settings["price_precision"], settings["price_precision"]),
        size_increment=Quantity(10.0 ** -settings["size_precision"], settings["size_precision"]),
        ts_event=0,
        ts_init=0,
        # Without margin to lock: the peer checks total - locked = free in floats, which fails for accounts that grow so large.
        margin_init=Decimal(0),
        margin_maint=Decimal(0),
        maker_fee=Decimal(str(settings["fee"])),
        taker_fee=Decimal(str(settings["fee"])),
    )
    columns = np.load(path)
    names = ("open", "high", "low", "close", "volume")
    frame = pd.DataFrame(
        {name: columns[name] for name in names}, index=pd.to_datetime(columns["close_time"], unit="ms", utc=True)
    )
    bar_type = BarType.from_str("BTCUSDT.SIM-1-MINUTE-LAST-EXTERNAL")
    bars = BarDataWrangler(bar_type, instrument).process(frame)
    for _ in sys.stdin:
        answer = run(bars, instrument, bar_type, settings, float(columns["close"][-1]))
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
