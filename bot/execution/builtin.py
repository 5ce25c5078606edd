"""Trading rules for symbols that no venue was asked about, so that replays need no connection."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from bot.execution.instruments import Instrument
from strategies.bars import Calendar

# Tick, lot, price band and leverage of the most traded perpetuals are Bybit's of August 2026
# (https://bybit-exchange.github.io/docs/v5/market/instrument).
_RULES: Final = {
    "BTCUSDT": ("0.1", "0.001", "0.01", "100"),
    "ETHUSDT": ("0.01", "0.01", "0.02", "100"),
    "SOLUSDT": ("0.01", "0.1", "0.05", "100"),
    "BNBUSDT": ("0.1", "0.01", "0.05", "50"),
    "XRPUSDT": ("0.0001", "0.1", "0.05", "100"),
    "DOGEUSDT": ("0.00001", "1", "0.05", "75"),
}
_UNKNOWN: Final = ("0.00000001", "0.000001", "0", "10")


def builtin_instrument(symbol: str, calendar: Calendar) -> Instrument:
    """Rules of a symbol: of stocks one cent and one share, of crypto the venue's where known, else a fine grid."""
    if calendar is Calendar.SESSIONS:
        tick, lot, band, leverage, notional = "0.01", "1", "0", "1", "1"
    else:
        tick, lot, band, leverage = _RULES.get(symbol, _UNKNOWN)
        notional = "5"
    return Instrument(
        symbol,
        tick_size=Decimal(tick),
        lot_size=Decimal(lot),
        minimum_quantity=Decimal(lot),
        minimum_notional=Decimal(notional),
        price_limit=Decimal(band),
        maximum_leverage=Decimal(leverage),
        calendar=calendar,
    )
