"""What the venue tells of its market besides candles: tickers, best prices, price limits, funding."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Final

from backtest.sandbox.protocol import JsonObject, number_text
from backtest.sandbox.rows import plain, price_text
from backtest.sandbox.tape import Tape
from bot.execution.instruments import Instrument, exact
from bot.market.funding_rates import FundingRates
from bot.orders import ZERO
from strategies.bars import DAY_MS, HOUR_MS, MINUTE_MS, Calendar

DEFAULT_FUNDING: Final = Decimal("0.0001")
"""Bybit's rate where perpetual and index agree: the interest of 0.01 % in eight hours."""
TOP_SIZE: Final = Decimal(1000)
"""Lots that stand at the best prices; told only, since the fill model knows no book."""


class MarketData:
    """Figures of the moment.

    Args:
        tape: prices and time.
        instruments: rules by symbol.
        funding: rates by symbol, where they are known.
        rate: of every settlement that ``funding`` does not know.
    """

    def __init__(
        self,
        tape: Tape,
        instruments: Mapping[str, Instrument],
        funding: Mapping[str, FundingRates],
        rate: Decimal = DEFAULT_FUNDING,
    ) -> None:
        self._tape = tape
        self._instruments = instruments
        self._funding = funding
        self._rate = rate
        self._settled_until = tape.now()

    def price(self, symbol: str) -> Decimal:
        """Last, mark and index price: the venue knows one."""
        bar = self._tape.flat(symbol)
        return ZERO if bar is None else exact(bar.open)

    def best(self, symbol: str) -> tuple[Decimal, Decimal]:
        """Best bid and ask: the ticks around the last price."""
        tick, price = self._instruments[symbol].tick_size, self.price(symbol)
        return max(price - tick, tick), price + tick

    def limits(self, symbol: str) -> tuple[Decimal, Decimal]:
        """Highest price of a purchase and lowest of a sale."""
        instrument, price = self._instruments[symbol], self.price(symbol)
        highest, lowest = instrument.highest_bid(price), instrument.lowest_offer(price)
        tick = instrument.tick_size
        return (tick * 19_999_998 if highest is None else highest), (tick if lowest is None else lowest)

    def interval(self, symbol: str) -> int:
        """Time between settlements, milliseconds; 0 where there are none."""
        instrument = self._instruments[symbol]
        if instrument.calendar is not Calendar.CONTINUOUS:
            return 0
        return instrument.funding_interval_minutes * MINUTE_MS

    def funding_rate(self, symbol: str, time: int) -> Decimal:
        """What a long position pays of its value at the settlement of that time."""
        known = self._funding.get(symbol, FundingRates())
        place = known.following(time) - 1
        return known.rates[place] if place >= 0 and known.times[place] == time else self._rate

    def take_due(self) -> list[tuple[int, str, Decimal]]:
        """Settlements since this was last asked, up to now: time, symbol and rate."""
        begin, self._settled_until = self._settled_until, self._tape.now()
        due = []
        for symbol in self._instruments:
            step = self.interval(symbol)
            time = (begin // step + 1) * step if step else self._settled_until + 1
            while time <= self._settled_until:
                due.append((time, symbol, self.funding_rate(symbol, time)))
                time += step
        return sorted(due, key=lambda settlement: settlement[0])

    def funding_history(self, symbol: str, first: int | None, last: int | None, limit: int) -> JsonObject:
        """Result of ``/v5/market/funding/history``: settlements that have been, newest first."""
        step, now = self.interval(symbol), self._tape.now()
        until = now if last is None else min(last, now)
        rows: list[JsonObject] = []
        time = until - until % step if step else -1
        while len(rows) < limit and time > 0 and (first is None or time >= first):
            rate = plain(self.funding_rate(symbol, time))
            rows.append({"symbol": symbol, "fundingRate": rate, "fundingRateTimestamp": str(time)})
            time -= step
        return {"category": "linear", "list": rows}

    def price_limit(self, symbol: str) -> JsonObject:
        """Result of ``/v5/market/price-limit``."""
        instrument = self._instruments[symbol]
        highest, lowest = (price_text(price, instrument) for price in self.limits(symbol))
        return {"symbol": symbol, "buyLmt": highest, "sellLmt": lowest, "ts": str(self._tape.now())}

    def order_book(self, symbol: str) -> JsonObject:
        """Data of ``orderbook.1``: the best bid and ask."""
        instrument, now = self._instruments[symbol], self._tape.now()
        bid, ask = (price_text(price, instrument) for price in self.best(symbol))
        size = plain(TOP_SIZE * instrument.lot_size)
        number = self._tape.closes + 2
        return {"s": symbol, "b": [[bid, size]], "a": [[ask, size]], "u": number, "seq": now + number}

    def ticker(self, symbol: str) -> JsonObject:
        """Data of ``tickers`` for a perpetual contract."""
        instrument, now = self._instruments[symbol], self._tape.now()
        bars = self._tape.klines(symbol, now - DAY_MS, None, 1 + DAY_MS // MINUTE_MS)
        price = self.price(symbol)
        day_ago = exact(bars[0].open) if bars else price
        hour_ago = next((exact(bar.open) for bar in bars if bar.open_time >= now - HOUR_MS), price)
        step = self.interval(symbol)
        following = (now // step + 1) * step if step else 0
        bid, ask = self.best(symbol)
        size = plain(TOP_SIZE * instrument.lot_size)
        last = price_text(price, instrument)
        high = max((bar.high for bar in bars), default=float(price))
        low = min((bar.low for bar in bars), default=float(price))
        return {
            "symbol": symbol,
            "tickDirection": "PlusTick" if price >= day_ago else "MinusTick",
            "price24hPcnt": plain(((price - day_ago) / day_ago).quantize(Decimal("1e-6"))) if day_ago else "0",
            "lastPrice": last,
            "prevPrice24h": price_text(day_ago, instrument),
            "highPrice24h": number_text(high),
            "lowPrice24h": number_text(low),
            "prevPrice1h": price_text(hour_ago, instrument),
            "markPrice": last,
            "indexPrice": last,
            "openInterest": "0",
            "openInterestValue": "0",
            "turnover24h": number_text(round(sum(bar.volume * bar.close for bar in bars), 4)),
            "volume24h": number_text(round(sum(bar.volume for bar in bars), 8)),
            "fundingIntervalHour": str(step // HOUR_MS) if step else "",
            "fundingCap": "0.005",
            "nextFundingTime": str(following) if step else "",
            "fundingRate": plain(self.funding_rate(symbol, following)) if step else "",
            "bid1Price": price_text(bid, instrument),
            "bid1Size": size,
            "ask1Price": price_text(ask, instrument),
            "ask1Size": size,
            "preOpenPrice": "",
            "preQty": "",
            "curPreListingPhase": "",
        }

    def spot_ticker_row(self, symbol: str) -> JsonObject:
        """One row of ``/v5/market/tickers`` for a pair of the spot market."""
        ticker = self.ticker(symbol)
        names = [
            "symbol",
            "bid1Price",
            "bid1Size",
            "ask1Price",
            "ask1Size",
            "lastPrice",
            "prevPrice24h",
            "price24hPcnt",
        ]
        names += ["highPrice24h", "lowPrice24h", "turnover24h", "volume24h"]
        return {**{name: ticker[name] for name in names}, "usdIndexPrice": ticker["indexPrice"]}

    def ticker_row(self, symbol: str) -> JsonObject:
        """One row of ``/v5/market/tickers``."""
        row = self.ticker(symbol)
        del row["tickDirection"]
        nothing = ("predictedDeliveryPrice", "basisRate", "deliveryFeeRate", "basis", "basisRateYear")
        return {**row, **dict.fromkeys(nothing, ""), "deliveryTime": "0"}
