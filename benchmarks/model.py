"""The memory transformer with a memory of 100,000 entries: replay against the naive loop, and one live decision."""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch

from backtest.metrics import performance
from backtest.replay import batches, replay
from benchmarks.harness import LATEST, BenchmarkError, Measurement, benchmark, median_ratio, spread, take_turns
from benchmarks.market import START, SYMBOL, configuration, stored_session, synthetic_bars
from benchmarks.naive import WINDOW, WindowModel, bare_loop, feature_frame, filled_memory, refuse_straw_man, signal_loop
from benchmarks.threads import one_thread
from bot.assembly import home_of
from bot.config import Config
from bot.engine import Step
from bot.journal import Journal, RunKind
from bot.market.batches import BarBatch
from bot.portfolio import ClosedTrade
from bot.run import Run
from bot.session import Session, open_session
from bot.trading import trade
from memory_store.second_thread import has_second_core
from strategies.bars import BarSeries, interval_ms
from strategies.features import FEATURE_NAMES
from strategies.memory_transformer.bundle import save_bundle
from strategies.memory_transformer.config import ModelConfig
from strategies.memory_transformer.training import TrainingConfig, train

ENTRIES: Final = 100_000
INTERVAL: Final = "60"
REPETITIONS: Final = 3
REPLAYED_BARS: Final = 50_000
"""Of one replay: a shorter one feels what its start costs."""
NAIVE_BARS: Final = 300
LIVE_BARS: Final = 600
UNCOUNTED_LIVE_BARS: Final = 50
TRAINED_BARS: Final = 6_000
HISTORY_BARS: Final = ENTRIES + 2_000


@benchmark("replay_model_vs_naive", seed=17)
def measure_replay(seed: int) -> Mapping[str, Measurement]:
    """Replays that go on from each other against stretches of the naive loop, in turns."""
    with one_thread(), workplace() as folder:
        stage = _Stage.build(folder, seed, REPLAYED_BARS * (REPETITIONS + 1))
        session = stage.session()
        session.warm()
        trades: list[ClosedTrade] = []
        engine = session.engine("replay", trades)
        stretches = iter(_stretches(stage.upcoming, REPLAYED_BARS))

        def ours() -> float:
            stretch = {SYMBOL: next(stretches)}
            started = time.perf_counter()
            replay(engine, stretch, trades=trades)
            return (time.perf_counter() - started) / REPLAYED_BARS

        torch.manual_seed(seed)
        model, memory = WindowModel().eval(), filled_memory(ENTRIES, seed)
        frame = feature_frame(stage.upcoming.close, stage.upcoming.volume)
        at = WINDOW

        def naive() -> float:
            nonlocal at
            started = time.perf_counter()
            signal_loop(model, memory, frame, at, NAIVE_BARS)
            at += NAIVE_BARS
            return (time.perf_counter() - started) / NAIVE_BARS

        def bare() -> float:
            started = time.perf_counter()
            bare_loop(model, memory, NAIVE_BARS)
            return (time.perf_counter() - started) / NAIVE_BARS

        times = take_turns({"ours": ours, "naive": naive, "bare": bare}, repetitions=REPETITIONS)
        _require_full(session)
    naive_ms, bare_ms = ([1e3 * each for each in times[name]] for name in ("naive", "bare"))
    refuse_straw_man(naive_ms, bare_ms)
    speeds = [1.0 / each for each in times["ours"]]
    note = (
        f"{ENTRIES:,} entries, {_cores()}: {statistics.median(speeds):,.0f} bars/s ({spread(speeds)}) in replays of "
        f"{REPLAYED_BARS:,} hourly synthetic bars, naive on one thread {statistics.median(naive_ms):.2f} ms per bar with its "
        f"add, {statistics.median(bare_ms):.2f} of it in three calls of libraries; {REPETITIONS} turns"
    )
    return {"replay_model_vs_naive": Measurement(median_ratio(times["naive"], times["ours"]), "x", note)}


@benchmark("replay_model_50k_s", seed=17)
def measure_end_to_end(seed: int) -> Mapping[str, Measurement]:
    """A whole backtest from stored candles and a stored model to its metrics."""
    with one_thread(), workplace() as folder:
        stage = _Stage.build(folder, seed, REPLAYED_BARS)
        home = home_of(stage.config)
        home.candles.append(stage.series, source="synthetic")
        first, calendar = int(stage.upcoming.open_time[0]), stage.series.calendar
        started = time.perf_counter()
        upcoming = {SYMBOL: home.candles.load(SYMBOL, INTERVAL, start=first)}
        session = open_session(stage.config, home, (SYMBOL,), INTERVAL, {SYMBOL: calendar}, first, hindsight=True)
        session.warm()
        warm = time.perf_counter() - started
        trades: list[ClosedTrade] = []
        engine = session.engine("replay", trades)
        result = replay(engine, upcoming, trades=trades)
        cash, portfolio = float(stage.config.account.initial_cash), engine.portfolio
        metrics = performance(
            result.close_times,
            result.equity,
            result.trades,
            initial_cash=cash,
            calendar=calendar,
            fees_paid=portfolio.fees_paid,
            turnover=portfolio.turnover,
        )
        seconds = time.perf_counter() - started
        _require_full(session)
        if result.bars != REPLAYED_BARS:
            raise BenchmarkError(f"{result.bars} bars were replayed, not {REPLAYED_BARS}; mend the stored candles")
    note = (
        f"{result.bars:,} hourly synthetic bars at {ENTRIES:,} entries: load, features, encode, retrieve, decide, fills, "
        f"metrics; {warm:.1f} s of it loading and warming the memory from the bars before; {metrics.trades} trades; "
        f"{_cores()}, one run"
    )
    return {"replay_model_50k_s": Measurement(seconds, "s", note)}


@benchmark("decision_ms_p50", seed=17)
def measure_decision(seed: int) -> Mapping[str, Measurement]:
    """From the bar's arrival to the durable commit of decision and order, through the paper driver."""
    with one_thread(), workplace() as folder:
        stage = _Stage.build(folder, seed, LIVE_BARS)
        live, replayed = stage.session(), stage.session()
        live.warm()
        journal = Journal(stage.config.journal_url, durable=True)
        trades: list[ClosedTrade] = []
        bank_id = journal.create_run(live.record("paper", RunKind.PAPER), bank=live.strategy.bank)
        run = Run(live.engine("same", trades), journal, "paper", bank_id=bank_id, closed_trades=trades)
        worked = time.process_time()
        seconds, orders = asyncio.run(_trade(run, stage.upcoming))
        worked_ms = 1e3 * (time.process_time() - worked) / len(seconds)
        journal.close()
        _require_full(live)
        replayed.warm()
        closed: list[ClosedTrade] = []
        result = replay(replayed.engine("same", closed), {SYMBOL: stage.upcoming}, trades=closed)
        if result.decisions_sha256 != run.engine.core.decisions_sha256:
            raise BenchmarkError("the paper run and the replay of the same bars decided differently; run recall audit")
        sync_us = sync_microseconds(folder)
    counted = 1e3 * np.array(seconds[UNCOUNTED_LIVE_BARS:])
    p50, p99 = np.percentile(counted, [50, 99])
    note = (
        f"{ENTRIES:,} entries, one thread, bar in to order out with decision, memory and account committed in SQLite (WAL, "
        f"synchronous=FULL; this disk syncs in {sync_us:.0f} us) through the paper driver; {len(counted)} hourly synthetic "
        f"bars with {orders} orders, p99 {p99:.2f} ms, {worked_ms:.2f} ms of processor time each; decisions equal to "
        "replay's to the last bit"
    )
    return {"decision_ms_p50": Measurement(float(p50), "ms", note)}


@benchmark("stream_decision_ms_p50", seed=17)
def measure_stream(seed: int) -> Mapping[str, Measurement]:
    """What the strategy does at one bar, from settling to remembering, with nothing shown to it in advance."""
    with one_thread(), workplace() as folder:
        stage = _Stage.build(folder, seed, LIVE_BARS)
        session = stage.session()
        session.warm()
        strategy = session.strategy
        seconds = []
        for batch in batches({SYMBOL: stage.upcoming}):
            started = time.perf_counter()
            strategy.settle(batch.bars)
            for bar in batch.bars:
                strategy.on_bar(bar)
            strategy.remember(batch.bars)
            seconds.append(time.perf_counter() - started)
        _require_full(session)
    counted = 1e3 * np.array(seconds[UNCOUNTED_LIVE_BARS:])
    p50, p99 = np.percentile(counted, [50, 99])
    note = (
        f"{ENTRIES:,} entries, one thread: settle, features, encode, retrieve, gate, heads, calibrate, remember; "
        f"{len(counted)} hourly synthetic bars one by one, p99 {p99:.2f} ms"
    )
    return {"stream_decision_ms_p50": Measurement(float(p50), "ms", note)}


@dataclass(frozen=True, slots=True)
class _Stage:
    """A trained model, a past that fills the memory, and bars to decide on."""

    config: Config
    series: BarSeries
    upcoming: BarSeries

    @classmethod
    def build(cls, folder: Path, seed: int, bars: int) -> _Stage:
        config = configuration(
            folder,
            market={"symbols": [SYMBOL], "interval": INTERVAL},
            memory={"memory_size": ENTRIES},
            strategy={"name": "memory_transformer"},
        )
        series = synthetic_bars(seed, INTERVAL, HISTORY_BARS + bars)
        begin = START + HISTORY_BARS * interval_ms(INTERVAL)
        past = series.span(None, begin)
        shape = ModelConfig(n_features=len(FEATURE_NAMES), memory_size=ENTRIES)
        trained = train(
            {SYMBOL: past.slice(len(past) - TRAINED_BARS, len(past))}, shape, TrainingConfig(epochs=1, seed=seed)
        )
        save_bundle(home_of(config).models, trained)
        return cls(config, series, series.span(begin, None))

    def session(self) -> Session:
        return stored_session(self.config, self.series, int(self.upcoming.open_time[0]))


async def _trade(run: Run, upcoming: BarSeries) -> tuple[list[float], int]:
    """Seconds that the paper driver took for each bar, and how many orders it made."""
    seconds: list[float] = []
    orders = 0
    arrived = 0.0

    async def feed() -> AsyncIterator[BarBatch]:
        nonlocal arrived
        for batch in batches({SYMBOL: upcoming}):
            # As from a socket: the driver waits already when the bar arrives.
            await asyncio.sleep(0)
            arrived = time.perf_counter()
            yield batch

    def on_step(step: Step) -> None:
        nonlocal orders
        seconds.append(time.perf_counter() - arrived)
        orders += sum(len(decision.orders) for decision in step.decisions)

    with ThreadPoolExecutor(1) as thread:
        await trade(run, feed(), thread, stop=asyncio.Event(), on_step=on_step)
    return seconds, orders


def _cores() -> str:
    """What a replay works with here."""
    return "two threads, the second of which works ahead" if has_second_core() else "one thread"


def _stretches(series: BarSeries, length: int) -> Sequence[BarSeries]:
    return [series.slice(start, start + length) for start in range(0, len(series), length)]


def _require_full(session: Session) -> None:
    bank = session.strategy.bank
    if bank is None or len(bank) != ENTRIES:
        raise BenchmarkError(
            f"the memory holds {0 if bank is None else len(bank)} entries, not {ENTRIES}; mend the past"
        )


def sync_microseconds(folder: Path) -> float:
    """Median time of the disk for one small write and sync, without which a durable commit says nothing."""
    times = []
    with (folder / "sync").open("wb", buffering=0) as file:
        for _ in range(50):
            started = time.perf_counter()
            file.write(b"\0" * 4096)
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - started)
    return 1e6 * statistics.median(times)


@contextmanager
def workplace() -> Iterator[Path]:
    """A folder on the disk of the project: the system's temporary folder may be memory, where a sync costs nothing."""
    parent = LATEST.parent.parent / "build"
    parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix="bench-") as folder:
        yield Path(folder)
