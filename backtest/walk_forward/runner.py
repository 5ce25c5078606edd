"""All windows of a walk: planned, computed in this process or in several, and found again after an interruption."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from backtest.significance.ledger import deciding_settings
from backtest.walk_forward.window import Arm, WindowJob, WindowResult, read_result, run_window
from backtest.walk_forward.windows import Window
from bot.assembly import Home
from bot.config import Config
from bot.errors import UsageError
from bot.threads import use_one_thread
from strategies.bars import Calendar

Done = Callable[[int, str], None]
"""Told how many windows are done (of all arms), in hundredths, and what is going on."""
HUNDREDTHS: Final = 100
_CONNECT_S: Final = 10
_RETRIES: Final = 3
"""Workers that may die over one window before it counts as the window's fault."""


def plan_jobs(
    config: Config,
    home: Home,
    symbols: tuple[str, ...],
    interval: str,
    calendars: dict[str, Calendar],
    windows: Sequence[Window],
    arms: Sequence[Arm],
    *,
    root: Path,
    threads: int = 1,
    probes: bool = False,
) -> list[WindowJob]:
    """One job for every window and arm; equal settings and candles find the folder of an earlier walk again.

    Args:
        config: the settings.
        home: where the candles are.
        symbols: of the walk.
        interval: of their bars.
        calendars: of the symbols.
        windows: of the walk.
        arms: what is tried.
        root: folder of all walks.
        threads: of training.
        probes: the plain arm is also probed for lookahead.
    """
    folder = root / digest_of(config, home, symbols, interval, windows)
    return [
        WindowJob(config, symbols, interval, calendars, window, arm, home, folder, threads, probes and arm is Arm.PLAIN)
        for window in windows
        for arm in arms
    ]


def digest_of(config: Config, home: Home, symbols: tuple[str, ...], interval: str, windows: Sequence[Window]) -> str:
    """Twelve hexadecimal digits of all that the results of a walk depend on, but for the version of the program."""
    spans = [[window.train_start, window.train_end, window.start, window.end] for window in windows]
    # Memories are warmed from what was before the training too.
    last = max(window.end for window in windows)
    candles = [home.candles.load(symbol, interval, end=last).digest() for symbol in symbols]
    rates = [home.funding.load(symbol) for symbol in symbols]
    content: dict[str, Any] = {
        "config": deciding_settings(config),
        "interval": interval,
        "windows": spans,
        "candles": candles,
        "funding": [[each.times[: each.following(last)], each.rates[: each.following(last)]] for each in rates],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:12]


@contextmanager
def process_executor(workers: int) -> Iterator[Executor]:
    """Processes of this machine. They are fresh: a fork would share the threads of torch and the locks of the database."""
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=use_one_thread)
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()


@contextmanager
def cluster_executor(address: str) -> Iterator[Executor]:
    """Workers of a Dask cluster. They need this version of the program, and candles and data folder at the same place.

    A worker that dies loses nothing: what it computed is on disk, and the scheduler gives the rest to another
    (https://distributed.dask.org/en/stable/resilience.html).

    Raises:
        UsageError: the scheduler cannot be reached.
    """
    from distributed import Client

    try:
        client = Client(address, timeout=_CONNECT_S)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as problem:
        raise UsageError(
            f"--cluster {address} cannot be reached: {problem}; start one with dask scheduler, and workers with dask worker"
        ) from None
    with client:
        # Not pure: equal jobs of a later call must look at the disk again.
        yield client.get_executor(pure=False, retries=_RETRIES)  # type: ignore[no-untyped-call]


def run_jobs(
    jobs: Sequence[WindowJob], *, executor: Executor | None = None, done: Done | None = None
) -> list[WindowResult]:
    """The results in the order of the jobs; those that are there already are read.

    Args:
        jobs: of one walk.
        executor: computes chains of windows; this process by default.
        done: told how far it is.

    Raises:
        UsageError: a window has too few candles.
    """
    tell = done or (lambda _count, _what: None)
    chains = _chains(jobs)
    if executor is None:
        _here(chains, tell)
    else:
        _elsewhere(chains, executor, tell)
    results = [read_result(job.file) for job in jobs]
    assert all(result is not None for result in results), "a window was computed and is not there"
    return [result for result in results if result is not None]


def _here(chains: list[list[WindowJob]], tell: Done) -> None:
    count = 0
    for job in (job for chain in chains for job in chain):
        before = count

        def at(what: str, share: float, job: WindowJob = job, before: int = before) -> None:
            part = 0.8 * share if what == "training" else 0.8 + 0.2 * share
            tell(before + round(HUNDREDTHS * part), f"{job.window.name}, {job.arm}: {what}")

        run_window(job, progress=at)
        count += HUNDREDTHS
        tell(count, f"{job.window.name}, {job.arm}: done")


def _elsewhere(chains: list[list[WindowJob]], executor: Executor, tell: Done) -> None:
    count = 0
    futures = {executor.submit(run_chain, chain): chain for chain in chains}
    for future in as_completed(futures):
        future.result()
        chain = futures[future]
        count += HUNDREDTHS * len(chain)
        tell(count, f"{chain[-1].window.name}, {chain[-1].arm}: done")


def run_chain(chain: Sequence[WindowJob]) -> None:
    """Compute jobs that share a model, one after the other."""
    for job in chain:
        run_window(job)


def _chains(jobs: Sequence[WindowJob]) -> list[list[WindowJob]]:
    """Jobs that share a model, together: a twin with shuffled outcomes trades with the model of the plain arm."""
    chains: dict[tuple[int, bool], list[WindowJob]] = {}
    for job in jobs:
        chains.setdefault((job.window.number, job.arm is Arm.WITHOUT), []).append(job)
    return list(chains.values())
