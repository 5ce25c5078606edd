"""All windows of a walk: planned, computed in this process or in several, and found again after an interruption."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from backtest.walk_forward.window import Arm, WindowJob, WindowResult, read_result, run_window
from backtest.walk_forward.windows import Window
from bot.assembly import Home
from bot.config import Config
from bot.threads import use_one_thread
from strategies.bars import Calendar

Done = Callable[[int, str], None]
"""Told how many windows are done (of all arms), in hundredths, and what is going on."""
HUNDREDTHS = 100


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
    """
    folder = root / digest_of(config, home, symbols, interval, windows)
    return [
        WindowJob(config, symbols, interval, calendars, window, arm, home, folder, threads)
        for window in windows
        for arm in arms
    ]


def digest_of(config: Config, home: Home, symbols: tuple[str, ...], interval: str, windows: Sequence[Window]) -> str:
    """Twelve hexadecimal digits of all that the results of a walk depend on, but for the version of the program."""
    settings = config.masked()
    decides = {name: section for name, section in settings.items() if name not in ("storage", "log", "venue", "live")}
    spans = [[window.train_start, window.train_end, window.start, window.end] for window in windows]
    first, last = min(window.train_start for window in windows), max(window.end for window in windows)
    candles = [home.candles.load(symbol, interval, start=first, end=last).digest() for symbol in symbols]
    content: dict[str, Any] = {"config": decides, "interval": interval, "windows": spans, "candles": candles}
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:12]


def run_jobs(jobs: Sequence[WindowJob], *, workers: int = 1, done: Done | None = None) -> list[WindowResult]:
    """The results in the order of the jobs; those that are there already are read.

    Args:
        jobs: of one walk.
        workers: processes; 1 computes in this one.
        done: told how far it is.

    Raises:
        UsageError: a window has too few candles.
    """
    tell = done or (lambda _count, _what: None)
    chains = _chains(jobs)
    if workers == 1:
        _here(chains, tell)
    else:
        _in_processes(chains, workers, tell)
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


def _in_processes(chains: list[list[WindowJob]], workers: int, tell: Done) -> None:
    count = 0
    # Fresh processes: a fork would share the threads of torch and the locks of the database.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=use_one_thread) as pool:
        futures = {pool.submit(run_chain, chain): chain for chain in chains}
        try:
            for future in as_completed(futures):
                future.result()
                chain = futures[future]
                count += HUNDREDTHS * len(chain)
                tell(count, f"{chain[-1].window.name}, {chain[-1].arm}: done")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


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
