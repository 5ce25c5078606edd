"""The memory against what its specification asks: appends, queries, recall, batches, warming, size and opening.

Everything runs on one thread. The opponent is the specification's bank written naively (``benchmarks/naive.py``): a flat
index that every addition builds anew. Contestants take turns on the same keys in the same run.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.banks import NEIGHBOURS, RunningBank, recall
from benchmarks.footprint import measure_footprint
from benchmarks.harness import Measurement, benchmark, median_ratio, spread, take_turns
from benchmarks.keys import Keys, KeyStream, stored_keys, synthetic_keys, synthetic_model
from benchmarks.market import SYMBOL, synthetic_bars
from benchmarks.memory_plots import plot_appends, plot_churn, plot_queries
from benchmarks.naive import RebuiltMemory
from benchmarks.threads import frozen_objects, one_thread
from memory_store.records import IndexKind, IntArray
from strategies.memory_transformer.settings import MemoryTransformerSettings
from strategies.memory_transformer.strategy import MemoryTransformerStrategy

SIZE: Final = 262_144
LARGE: Final = 1_000_000
CURVE: Final = (10_000, 30_000, 100_000, SIZE, LARGE)
CHURN: Final = (0.0, 0.125, 0.25, 0.5, 0.75, 1.0)
STORED_CHURN: Final = (0.0, 0.25, 0.5)
SEED: Final = 29
STREAM: Final = LARGE + 20_000
"""Keys that one run of all figures needs."""
WARMED: Final = 100_000
REPETITIONS: Final = 7
APPENDS: Final = 500
QUERIES: Final = 40
RECALL_QUERIES: Final = 1_000
GROWN_RECALL_QUERIES: Final = 300
BATCH: Final = 1_024
READS: Final = 10


@benchmark("append_us_262144", "append_vs_naive", "exact_query_ms_262144", "exact_vs_bandwidth", seed=SEED)
def measure_exact(seed: int) -> Mapping[str, Measurement]:
    """The trading default at its largest: a full bank, exact."""
    return exact_figures(synthetic_keys(seed, STREAM))


@benchmark("query_ms_262144", "recall_262144", "recall_262144_after_churn", "batch_queries_per_s_262144", seed=SEED)
def measure_approximate(seed: int) -> Mapping[str, Measurement]:
    """The approximate index over the same ring, when full and while everything in it is replaced."""
    return approximate_figures(synthetic_keys(seed, STREAM), CHURN, plot=plot_churn)


@benchmark("query_ms_1000000", seed=SEED)
def measure_growth(seed: int) -> Mapping[str, Measurement]:
    """From ten thousand entries to a million, exact, approximate and naive on the same keys."""
    stream = synthetic_keys(seed, STREAM)
    with one_thread(), frozen_objects():
        queries: dict[str, list[float]] = {}
        appends: dict[str, list[float]] = {}
        for size in CURVE:
            banks = {index: RunningBank.filled(stream, LARGE, size, index) for index in IndexKind}
            # At capacity, where its index keeps its size: one that grows by a row at a time is moved in memory as well.
            naive = _filled_naive(stream, size)
            times = take_turns(_at_one_size(banks, naive, stream), repetitions=REPETITIONS)
            for name, seconds in times.items():
                kind, _, contestant = name.partition(" ")
                (queries if kind == "query" else appends).setdefault(contestant, []).append(statistics.median(seconds))
        found = _recall(banks[IndexKind.APPROXIMATE], banks[IndexKind.EXACT], GROWN_RECALL_QUERIES)
    plot_queries(CURVE, queries)
    plot_appends(CURVE, appends)
    slope = np.polyfit(np.log(CURVE), np.log(queries["approximate"]), 1)[0]
    note = (
        f"k {NEIGHBOURS}, {stream.description}, one thread; recall {found:.4f} at {LARGE:,}; query time grows as size to "
        f"the power {slope:.2f}; at {', '.join(f'{size:,}' for size in CURVE)} entries: "
        + "; ".join(f"{name} {_listed(values, 1e3)} ms per query" for name, values in queries.items())
        + "; "
        + "; ".join(f"{name} {_listed(values, 1e6)} us per append" for name, values in appends.items())
        + f"; medians of {REPETITIONS} turns"
    )
    return {"query_ms_1000000": Measurement(1e3 * queries["approximate"][-1], "ms", note)}


@benchmark("warm_100k_s", seed=SEED)
def measure_warming(seed: int) -> Mapping[str, Measurement]:
    """Features, encoder and appends of a hundred thousand bars, from bars in memory to a memory ready to be asked."""
    with one_thread():
        model = synthetic_model(seed)
        series = synthetic_bars(seed, "60", WARMED + model.config.warmup - 1)
        settings = MemoryTransformerSettings(memory_size=WARMED)

        remembered: list[int] = []

        def warm() -> None:
            strategy = MemoryTransformerStrategy(model, (SYMBOL,), settings)
            strategy.warm({SYMBOL: series})
            remembered.append(len(strategy.bank))

        seconds = take_turns({"warm": warm}, repetitions=3)["warm"]
    note = (
        f"{WARMED:,} hourly synthetic bars that each have a key, of which admission let {remembered[0]:,} in, one thread; "
        f"median of 3, {spread(seconds)} s"
    )
    return {"warm_100k_s": Measurement(statistics.median(seconds), "s", note)}


@benchmark("memory_bytes_over_raw", "open_s_262144", seed=SEED)
def measure_size(seed: int) -> Mapping[str, Measurement]:
    """What a full bank occupies and how long its snapshot takes to open, each in a process of its own."""
    stream = synthetic_keys(seed, STREAM)
    found = {index: measure_footprint(stream, SIZE, index) for index in IndexKind}
    exact, approximate = found[IndexKind.EXACT], found[IndexKind.APPROXIMATE]
    raw = stream.keys[:SIZE].nbytes
    return {
        "memory_bytes_over_raw": Measurement(
            approximate.bank_bytes / raw,
            "x",
            f"{SIZE:,} entries with the approximate index, {approximate.bank_bytes / SIZE:.0f} bytes per entry against "
            f"{raw // SIZE} of raw vector, measured as resident memory of a process; exact {exact.bank_bytes / raw:.2f} x",
        ),
        "open_s_262144": Measurement(
            exact.open_seconds,
            "s",
            f"from the snapshot, {SIZE:,} entries, a fresh process, files in the page cache; the first search, which makes "
            f"the index, {exact.answer_seconds:.2f} s; from the rows without a snapshot {exact.rebuild_seconds:.1f} s; with "
            f"the approximate index {approximate.open_seconds:.2f} s and {approximate.answer_seconds:.1f} s",
        ),
    }


def exact_figures(stream: KeyStream, suffix: str = "") -> dict[str, Measurement]:
    """Appends and exact queries at ``SIZE`` entries, against the naive bank and the machine's bandwidth."""
    with one_thread(), frozen_objects():
        ours, naive = RunningBank.filled(stream, SIZE, SIZE), _filled_naive(stream, SIZE)
        keys = naive.keys.reshape(-1)
        times = take_turns(
            {
                "append": lambda: statistics.median(ours.timed_appends(APPENDS)),
                "naive append": lambda: _naive_append(naive, stream),
                "query": lambda: ours.timed_queries(_places(ours)),
                "read": lambda: _read(keys),
                "naive query": lambda: _naive_query(naive, stream),
            },
            repetitions=REPETITIONS,
        )
    append_us = 1e6 * statistics.median(times["append"])
    query_ms = 1e3 * statistics.median(times["query"])
    read_ms = 1e3 * min(times["read"])
    stage = f"{SIZE:,} entries of {stream.description}, one thread, {REPETITIONS} turns"
    asked = f"k {NEIGHBOURS}, d {stream.keys.shape[1]}, {stage}, {spread([1e3 * each for each in times['query']])} ms"
    return {
        f"append_us_262144{suffix}": Measurement(
            append_us, "us", f"at capacity, the oldest makes room; {stage} of {APPENDS} appends, each timed by itself"
        ),
        f"append_vs_naive{suffix}": Measurement(
            median_ratio(times["naive append"], times["append"]),
            "x",
            f"naive rebuild {1e3 * statistics.median(times['naive append']):.1f} ms; {stage}",
        ),
        f"exact_query_ms_262144{suffix}": Measurement(
            query_ms, "ms", f"{asked}; naive {1e3 * statistics.median(times['naive query']):.2f} ms"
        ),
        f"exact_vs_bandwidth{suffix}": Measurement(
            query_ms / read_ms,
            "x",
            f"median exact query over the fastest of {READS * REPETITIONS} plain reads of the key array, {read_ms:.2f} ms "
            f"({keys.nbytes / read_ms / 1e6:.0f} GB/s); {asked}",
        ),
    }


def approximate_figures(
    stream: KeyStream,
    churn: Sequence[float],
    suffix: str = "",
    plot: Callable[[Sequence[float], Sequence[float], Sequence[float]], None] | None = None,
) -> dict[str, Measurement]:
    """Queries one by one and in batches, and recall while the bank is replaced bit by bit."""
    with one_thread(), frozen_objects():
        kinds = (IndexKind.APPROXIMATE, IndexKind.EXACT)
        banks = {index: RunningBank.filled(stream, SIZE, SIZE, index) for index in kinds}
        ours, exact = banks.values()
        recalls, medians = [], []
        for share in churn:
            for bank in banks.values():
                bank.advance_to(SIZE + round(share * SIZE))
            recalls.append(_recall(ours, exact))
            medians.append(statistics.median(ours.timed_queries(_places(ours)) for _ in range(3)))
            if share == 0.0:
                batch = _coming(ours)
                times = take_turns(
                    {
                        "query": lambda: ours.timed_queries(_places(ours)),
                        "exact": lambda: exact.timed_queries(_places(exact)),
                        "batch": partial(_ask_together, ours, batch),
                    },
                    repetitions=REPETITIONS,
                )
                batch_recall = _batch_recall(ours.ask_together(batch), exact)
    if plot is not None:
        plot(churn, recalls, medians)
    stage = f"k {NEIGHBOURS}, {SIZE:,} entries of {stream.description}, one thread"
    queries = [1e3 * each for each in times["query"]]
    rates = [BATCH / each for each in times["batch"]]
    over = f"mean over {RECALL_QUERIES:,} later moments, against the exact bank"
    return {
        f"query_ms_262144{suffix}": Measurement(
            statistics.median(queries),
            "ms",
            f"{stage}; median of {REPETITIONS} turns, {spread(queries)} ms; exact "
            f"{1e3 * statistics.median(times['exact']):.2f} ms in the same turns",
        ),
        f"recall_262144{suffix}": Measurement(recalls[0], "recall@32", f"{stage}; {over}"),
        f"recall_262144_after_churn{suffix}": Measurement(
            recalls[churn.index(0.5)],
            "recall@32",
            f"{stage}; half of the bank replaced; {over}; with {', '.join(f'{share:.1%}' for share in churn)} replaced "
            f"{', '.join(f'{each:.4f}' for each in recalls)}",
        ),
        f"batch_queries_per_s_262144{suffix}": Measurement(
            statistics.median(rates),
            "queries/s",
            f"{stage}; batches of {BATCH:,} through the bank, exact scores, recall@32 {batch_recall:.4f}; median of "
            f"{REPETITIONS} turns, {spread(rates)}",
        ),
    }


def register_stored(store: Path) -> None:
    """Add the same figures on the keys of a candle store's hours, under names of their own."""
    suffix = "_stored_hours"
    exact = ("append_us_262144", "append_vs_naive", "exact_query_ms_262144", "exact_vs_bandwidth")
    approximate = ("query_ms_262144", "recall_262144", "recall_262144_after_churn", "batch_queries_per_s_262144")
    count = SIZE + round(SIZE * STORED_CHURN[-1]) + 20_000

    @benchmark(*(name + suffix for name in exact), seed=SEED)
    def measure_stored_exact(seed: int) -> Mapping[str, Measurement]:
        return exact_figures(stored_keys(store, seed, count), suffix)

    @benchmark(*(name + suffix for name in approximate), seed=SEED)
    def measure_stored_approximate(seed: int) -> Mapping[str, Measurement]:
        return approximate_figures(stored_keys(store, seed, count), STORED_CHURN, suffix)


def _filled_naive(stream: KeyStream, size: int) -> RebuiltMemory:
    """The naive bank, full, with the first keys of the stream."""
    naive, keys = RebuiltMemory(size), stream.keys[:size]
    naive.add(keys, keys, np.zeros(size, dtype=np.float32))
    return naive


def _at_one_size(
    banks: Mapping[IndexKind, RunningBank], naive: RebuiltMemory, stream: KeyStream
) -> dict[str, Callable[[], float]]:
    """Contestants by what they do and who they are."""
    contestants: dict[str, Callable[[], float]] = {}
    for index, bank in banks.items():
        contestants[f"query {index.value}"] = partial(_query, bank)
        contestants[f"append {index.value}"] = partial(_append, bank)
    contestants["query naive"] = partial(_naive_query, naive, stream)
    contestants["append naive"] = partial(_naive_append, naive, stream)
    return contestants


def _places(running: RunningBank, count: int = QUERIES, step: int = 37) -> range:
    """Moments to ask for, all later than those written."""
    return range(running.written, running.written + count * step, step)


def _query(running: RunningBank) -> float:
    return running.timed_queries(_places(running))


def _append(running: RunningBank) -> float:
    return statistics.median(running.timed_appends(APPENDS // 5))


def _naive_append(naive: RebuiltMemory, stream: KeyStream, repetitions: int = 3) -> float:
    """Median seconds of one addition, which rebuilds the index."""
    seconds = []
    for place in range(naive.written, naive.written + repetitions):
        key, outcome = stream.keys[place : place + 1], np.zeros(1, dtype=np.float32)
        started = time.perf_counter()
        naive.add(key, key, outcome)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def _naive_query(naive: RebuiltMemory, stream: KeyStream, repetitions: int = 10) -> float:
    seconds = []
    for place in range(naive.written, naive.written + repetitions * 37, 37):
        query = stream.keys[place : place + 1]
        started = time.perf_counter()
        naive.search(query, NEIGHBOURS)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def _read(keys: np.ndarray[tuple[int], np.dtype[np.float32]]) -> float:
    """Fewest seconds in which every key is read once: a product of the array's halves, the fastest reader NumPy has."""
    half = len(keys) // 2
    front, back = keys[:half], keys[half:]
    seconds = []
    for _ in range(READS):
        started = time.perf_counter()
        np.dot(front, back)
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def _recall(ours: RunningBank, exact: RunningBank, queries: int = RECALL_QUERIES) -> float:
    places = _places(ours, queries, 13)
    return recall([ours.ask(place) for place in places], [exact.ask(place) for place in places])


def _listed(values: list[float], unit: float) -> str:
    return "/".join(f"{unit * each:.3g}" for each in values)


def _ask_together(running: RunningBank, queries: Keys) -> None:
    running.ask_together(queries)


def _coming(running: RunningBank) -> Keys:
    """Keys of a batch of moments later than those written."""
    places = _places(running, BATCH, 13)
    return running.stream.keys[places.start : places.stop : places.step]


def _batch_recall(found: IntArray, exact: RunningBank) -> float:
    answers = [exact.ask(place).ids for place in _places(exact, BATCH, 13)]
    return sum(len(np.intersect1d(a, b)) for a, b in zip(found, answers, strict=True)) / found.size
