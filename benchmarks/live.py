"""Wire to wire: from the frame that closes a candle to the order request that is written, at a venue in another process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np

from backtest.sandbox.market import SyntheticMarket
from benchmarks.harness import BenchmarkError, Measurement, benchmark
from benchmarks.market import START, configuration
from benchmarks.model import ENTRIES, sync_microseconds, workplace
from benchmarks.threads import one_thread
from bot.account_feed import with_account
from bot.assembly import home_of
from bot.config import Config
from bot.engine import Step
from bot.execution.builtin import builtin_instrument
from bot.execution.bybit.client import BybitAccount, Credentials
from bot.execution.bybit.order_entry import Operation
from bot.execution.bybit.rate_limits import RateLimits
from bot.execution.bybit.trade_stream import TradeStream
from bot.journal import Journal, RunKind
from bot.live_account import LiveAccount
from bot.live_comparison import AccountLimits
from bot.live_start import book_of
from bot.market.bybit_private_stream import PrivateStream
from bot.market.bybit_rest import BybitRest
from bot.market.bybit_stream import KlineStream
from bot.market.feed import MarketFeed
from bot.portfolio import ClosedTrade
from bot.risk import run_token
from bot.run import Run
from bot.session import Session, open_session
from bot.trading import trade
from strategies.bars import Calendar, format_time, interval_ms
from strategies.features import FEATURE_NAMES
from strategies.memory_transformer.bundle import save_bundle
from strategies.memory_transformer.config import ModelConfig
from strategies.memory_transformer.training import TrainingConfig, train

KEY: Final = "sandbox"
SYMBOL: Final = "BTCUSDT"
HOUR: Final = "60"
MINUTE: Final = "1"
TWENTY: Final = tuple(f"COIN{number:02d}USDT" for number in range(20))
TRAINED_BARS: Final = 6_000
MEASURED_BARS: Final = 400
UNCOUNTED_BARS: Final = 50
MINUTES: Final = 40
UNCOUNTED_MINUTES: Final = 5
_UNTHROTTLED: Final = 1_000.0
_EAGER: Final[Mapping[str, Mapping[str, Any]]] = {
    # An order at nearly every bar, so that nearly every bar is measured.
    "strategy": {"name": "memory_transformer"},
    "signal": {"entry_threshold": 0.0, "holding_bars": 1, "abstain": False},
    "risk": {"no_trade_band": 0.0, "daily_loss_limit": 0.0},
}


class Stamps:
    """When candles closed, and when the requests that followed from them were written; seconds of the monotonic clock."""

    def __init__(self) -> None:
        self.first_frame = 0.0
        self.written: list[float] = []
        """Of the orders of the batch in hand."""


class StampedStream(KlineStream):
    """Notes when the first frame of a batch arrived."""

    stamps: Stamps

    def _take(self, data: str | bytes) -> None:
        arrived = time.perf_counter()
        waiting = self._events.qsize()
        super()._take(data)
        if self._events.qsize() > waiting and not self.stamps.first_frame:
            self.stamps.first_frame = arrived


class StampedEntry:
    """The trade socket, noting when an order's request has been written."""

    def __init__(self, inner: TradeStream, stamps: Stamps) -> None:
        self._inner = inner
        self._stamps = stamps

    async def operate(self, operation: Operation, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        """See ``OrderEntry``. The socket's own write happens before its first wait."""
        request = asyncio.ensure_future(self._inner.operate(operation, parameters))
        await asyncio.sleep(0)
        self._stamps.written.append(time.perf_counter())
        return await request


@benchmark("wire_to_wire_ms_p50", "wire_to_wire_ms_p99", seed=17)
def measure_wire(seed: int) -> Mapping[str, Measurement]:
    """One symbol, hourly candles, a memory of 100,000 entries, every decision committed before its order leaves."""
    with one_thread(), workplace() as folder:
        market = _Market(folder, (SYMBOL,), HOUR, seed, MEASURED_BARS)
        seconds, orders = asyncio.run(_measured(market, _wire))
        sync_ms = sync_microseconds(folder) / 1e3
    counted = 1e3 * np.array(seconds[UNCOUNTED_BARS:]) - sync_ms
    if len(counted) < MEASURED_BARS // 4:
        raise BenchmarkError(f"only {len(counted)} bars of {MEASURED_BARS} brought an order; mend the settings")
    p50, p99 = np.percentile(counted, [50, 99])
    note = (
        f"loopback, sandbox in a process of its own, {ENTRIES:,} entries, one thread: closing frame received to order request "
        f"written, with decision, memory, intent and account committed in SQLite (WAL, synchronous=FULL) between; the disk's "
        f"own sync of {sync_ms:.2f} ms is subtracted; {len(counted)} of {orders} orders"
    )
    return {
        "wire_to_wire_ms_p50": Measurement(float(p50), "ms", note),
        "wire_to_wire_ms_p99": Measurement(float(p99), "ms", note),
    }


@benchmark("minute_close_20_symbols_s", seed=19)
def measure_minute_close(seed: int) -> Mapping[str, Measurement]:
    """Twenty symbols that close together: from the first frame until every decision is durable and every order written."""
    with one_thread(), workplace() as folder:
        market = _Market(folder, TWENTY, MINUTE, seed, MINUTES)
        seconds, orders = asyncio.run(_measured(market, _batch))
    counted = np.array(seconds[UNCOUNTED_MINUTES:])
    note = (
        f"{len(TWENTY)} symbols at one-minute bars, {ENTRIES:,} entries, one thread, sandbox in a process of its own: first "
        f"closing frame received to the last decision durable and the last order written; {len(counted)} minutes with "
        f"{orders} orders, longest {counted.max():.3f} s; the venue's limit of orders a second is not enforced"
    )
    return {"minute_close_20_symbols_s": Measurement(float(np.median(counted)), "s", note)}


def _wire(stamps: Stamps, step: Step) -> float | None:
    """From the frame to the order of a batch of one; nothing where there was none."""
    return stamps.written[0] - stamps.first_frame if stamps.written else None


def _batch(stamps: Stamps, step: Step) -> float | None:
    return max([time.perf_counter() if not stamps.written else 0.0, *stamps.written]) - stamps.first_frame


class _Market:
    """Candles of a synthetic market in a store, a model trained on its past, and a session warmed by it."""

    def __init__(self, folder: Path, symbols: tuple[str, ...], interval: str, seed: int, bars: int) -> None:
        self.folder, self.symbols, self.interval, self.bars = folder, symbols, interval, bars
        history = ENTRIES // len(symbols) + 2_000
        step = interval_ms(interval)
        self.begin = START + history * step
        self.config: Config = configuration(
            folder,
            market={"symbols": list(symbols), "interval": interval},
            memory={"memory_size": ENTRIES},
            risk={**_EAGER["risk"], "max_position": 1.0 / len(symbols)},
            **{name: _EAGER[name] for name in ("strategy", "signal")},
        )
        home = home_of(self.config)
        past = {}
        for symbol in symbols:
            instrument = builtin_instrument(symbol, Calendar.CONTINUOUS)
            market = SyntheticMarket(seed, symbol, interval, instrument=instrument, base_price=30_000.0)
            series = market.series(START, self.begin + (bars + 2) * step)
            home.candles.append(series, source="synthetic")
            share = max(2_000, TRAINED_BARS // len(symbols))
            past[symbol] = series.span(self.begin - share * step, self.begin)
        shape = ModelConfig(n_features=len(FEATURE_NAMES), memory_size=ENTRIES)
        save_bundle(home.models, train(past, shape, TrainingConfig(epochs=1, seed=seed)))

    def session(self) -> Session:
        calendars = dict.fromkeys(self.symbols, Calendar.CONTINUOUS)
        return open_session(
            self.config, home_of(self.config), self.symbols, self.interval, calendars, self.begin, hindsight=True
        )


async def _measured(market: _Market, measure: Callable[[Stamps, Step], float | None]) -> tuple[list[float], int]:
    """Seconds of every batch that counts, and how many orders there were, of a live run at a sandbox."""
    session = market.session()
    session.warm(stored=True)
    bank = session.strategy.bank
    if bank is None or len(bank) != ENTRIES:
        raise BenchmarkError(
            f"the memory holds {0 if bank is None else len(bank)} entries, not {ENTRIES}; mend the past"
        )
    journal = Journal(market.config.journal_url, durable=True)
    bank_id = journal.create_run(session.record("live", RunKind.LIVE), bank=bank)
    trades: list[ClosedTrade] = []
    run = Run(session.live_engine("live", trades), journal, "live", bank_id=bank_id, closed_trades=trades)
    stamps, seconds, orders = Stamps(), [], 0
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(journal.close)
        url = stack.enter_context(_sandbox(market))
        host = url.partition("://")[2]
        # Bars come in one after the other here, not a minute apart, and a stepped sandbox counts no requests.
        limits = RateLimits(time.monotonic(), share=_UNTHROTTLED)
        client = BybitAccount(Credentials(KEY, KEY), url, limits=limits)
        stack.callback(client.close)
        rest = BybitRest(url)
        stack.callback(rest.close)
        await client.synchronise()
        entry = await stack.enter_async_context(
            TradeStream(f"ws://{host}/v5/trade", Credentials(KEY, KEY), client.stamp)
        )
        await entry.logged_in()
        client.entry = StampedEntry(entry, stamps)
        private = await stack.enter_async_context(PrivateStream(f"ws://{host}/v5/private", KEY, KEY))
        # Comparing with the venue is for between the bars: here they follow on each other without a pause.
        waits = AccountLimits(every_s=3600.0, verify_s=3600.0, patience_s=1.0)
        account = await stack.enter_async_context(
            LiveAccount(client, private, book_of(run, journal), token=run_token("live"), limits=waits)
        )
        stream = StampedStream(f"ws://{host}/v5/public/linear", market.symbols, market.interval)
        stream.stamps = stamps
        await stack.enter_async_context(stream)
        last = {symbol: market.begin - interval_ms(market.interval) for symbol in market.symbols}
        feed = MarketFeed(stream, rest, market.symbols, market.interval, last, calendars=session.calendars)
        bars = await stack.enter_async_context(contextlib.aclosing(feed.events()))
        events = await stack.enter_async_context(contextlib.aclosing(with_account(bars, account)))
        thread = stack.enter_context(ThreadPoolExecutor(1))
        stepped: list[Step] = []

        async def advance(decided: int) -> bool:
            nonlocal orders
            await feed.caught_up()
            await account.idle()
            if stepped:
                took = measure(stamps, stepped.pop())
                if took is not None:
                    seconds.append(took)
            orders += len(stamps.written)
            stamps.first_frame = 0.0
            stamps.written.clear()
            await asyncio.to_thread(_step, url)
            return True

        await trade(
            run,
            events,
            thread,
            stop=asyncio.Event(),
            max_bars=market.bars * len(market.symbols),
            advance=_once_per_batch(advance, stepped),
            entry=account,
            on_step=stepped.append,
        )
    return seconds, orders


def _once_per_batch(advance: Callable[[int], Any], stepped: list[Step]) -> Callable[[int], Any]:
    """Let the market go on after a batch, not after every piece of news."""
    begun = False

    async def guarded(decided: int) -> bool:
        nonlocal begun
        if begun and not stepped:
            return True
        begun = True
        return bool(await advance(decided))

    return guarded


@contextlib.contextmanager
def _sandbox(market: _Market) -> Iterator[str]:
    """A venue that plays the store in a process of its own; gives its URL."""
    command = [
        sys.executable, "-c", "from bot.cli import main; main()", "sandbox", "--symbols", ",".join(market.symbols),
        "--interval", market.interval, "--start", format_time(market.begin), "--stepped", "--port", "0", "--json",
        "--set", f"storage.data_dir={market.folder}", "--balance", str(market.config.account.initial_cash),
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=market.folder)
    try:
        assert process.stdout is not None
        told = b""
        while not told.rstrip().endswith(b"}"):
            line = process.stdout.readline()
            if not line:
                raise BenchmarkError("the sandbox did not start; run recall sandbox to see why")
            told += line
        yield str(json.loads(told)["rest_url"])
    finally:
        process.kill()
        process.wait()


def _step(url: str) -> None:
    request = urllib.request.Request(f"{url}/control/step", data=b"", method="POST")
    urllib.request.urlopen(request, timeout=30).close()
