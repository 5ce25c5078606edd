"""The campaign: many rehearsals, each drawn from its seed, and how many of them broke an invariant.

python -m benchmarks chaos_runs              200 seeds of 500 bars, figures into latest.json
python -m benchmarks.chaos.campaign --seed 7 one of them again, with all that it broke
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from benchmarks.chaos.invariants import breaches, orders_of
from benchmarks.chaos.plans import Accidents, scene_of
from benchmarks.chaos.rehearsal import Rehearsal
from benchmarks.harness import BenchmarkError, Measurement, benchmark
from bot.cli.terminal import console, output, progress_bar
from bot.execution.instruments import Category

SEEDS: Final = 200
BARS: Final = 500
_LONGEST_S: Final = 3_600.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a rehearsal came to."""

    seed: int
    breaches: tuple[str, ...]
    lives: int
    orders: int
    fills: int
    faults: int
    seconds: float


async def rehearse(seed: int, bars: int, folder: Path, category: Category = "linear") -> Outcome:
    """Play the rehearsal of a seed and look at what it left; an error that ends it is a breach as well.

    Args:
        seed: of market, faults, crashes and commands.
        bars: of the market.
        folder: empty.
        category: which market.
    """
    began = time.monotonic()
    async with Rehearsal(folder, scene_of(seed, bars, category)) as rehearsal:
        accidents = Accidents(rehearsal, seed)
        try:
            async with asyncio.timeout(_LONGEST_S):
                await rehearsal.play(entry=accidents.enter)
            found = breaches(rehearsal)
        except Exception as problem:
            found = [f"it ended with {type(problem).__name__}: {problem}"]
        exchange = rehearsal.venue.exchange
        assert exchange is not None
        return Outcome(
            seed,
            tuple(found),
            rehearsal.lives,
            len(orders_of(rehearsal)) if rehearsal.run_id else 0,
            len(exchange.records.executions),
            rehearsal.venue.faults_struck,
            time.monotonic() - began,
        )


def rehearse_alone(seed: int, bars: int, category: Category = "linear", *, loud: bool = False) -> Outcome:
    """As ``rehearse``, in a folder that goes away."""
    if not loud:
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    quiet, console.quiet = console.quiet, not loud
    try:
        with tempfile.TemporaryDirectory(prefix="rehearsal-") as folder:
            return asyncio.run(rehearse(seed, bars, Path(folder), category))
    finally:
        console.quiet = quiet


def campaign(seeds: Sequence[int], bars: int, workers: int, category: Category = "linear") -> Iterator[Outcome]:
    """All rehearsals, as they are done."""
    # A child begins afresh: what a fork would copy (threads, event loops) is of no use to it.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        jobs = [pool.submit(rehearse_alone, seed, bars, category) for seed in seeds]
        for job in as_completed(jobs):
            yield job.result()


def told(outcome: Outcome, bars: int, category: Category = "linear") -> str:
    """What a rehearsal broke, and how to play it again."""
    again = f"python -m benchmarks.chaos.campaign --seed {outcome.seed} --bars {bars}"
    again += " --category spot" if category == "spot" else ""
    return f"seed {outcome.seed} broke {len(outcome.breaches)}: {'; '.join(outcome.breaches)} (again: {again})"


def play(seeds: Sequence[int], bars: int, workers: int, category: Category = "linear") -> list[Outcome]:
    """The campaign with a progress bar; what breaks is told at once."""
    outcomes = []
    with progress_bar("rehearsing", len(seeds), unit="seeds") as update:
        for outcome in campaign(seeds, bars, workers, category):
            outcomes.append(outcome)
            update(len(outcomes))
            if outcome.breaches:
                console.print(told(outcome, bars, category), style="red", markup=False, soft_wrap=True)
    return outcomes


@benchmark("chaos_runs", "chaos_violations", seed=0)
def measure(seed: int) -> Mapping[str, Measurement]:
    """All seeds from the first on."""
    outcomes = play(range(seed, seed + SEEDS), BARS, _at_once())
    if len(outcomes) != SEEDS:
        raise BenchmarkError(f"{len(outcomes)} of {SEEDS} rehearsals were played; try again")
    return figures(outcomes, BARS)


def figures(outcomes: Sequence[Outcome], bars: int) -> dict[str, Measurement]:
    """How many were played, and how many invariants did not hold."""
    note = (
        f"seeds {min(each.seed for each in outcomes)} to {max(each.seed for each in outcomes)} of {bars} bars: "
        f"{sum(each.orders for each in outcomes):,} orders, {sum(each.fills for each in outcomes):,} fills, "
        f"{sum(each.faults for each in outcomes):,} faults, {sum(each.lives - 1 for each in outcomes):,} restarts"
    )
    return {
        "chaos_runs": Measurement(float(len(outcomes)), "runs", note),
        "chaos_violations": Measurement(float(sum(len(each.breaches) for each in outcomes)), "violations", note),
    }


def _at_once() -> int:
    """Twice the cores: a rehearsal waits more than half of its time, for sockets and for what is late."""
    return 2 * (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def main(arguments: Sequence[str]) -> int:
    """Play one seed, or a range; returns 1 where an invariant did not hold. Nothing is written to latest.json."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos.campaign", description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, help="play this one only, and say all that it broke")
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="how many")
    parser.add_argument("--bars", type=int, default=BARS, help="bars of each")
    parser.add_argument("--workers", type=int, default=_at_once(), help="rehearsals at once")
    parser.add_argument("--category", choices=("linear", "spot"), default="linear", help="which market")
    parser.add_argument("--loud", action="store_true", help="with --seed: show the log")
    chosen = parser.parse_args(arguments)
    if chosen.seed is not None:
        outcome = rehearse_alone(chosen.seed, chosen.bars, chosen.category, loud=chosen.loud)
        for breach in outcome.breaches:
            output.print(breach, markup=False, soft_wrap=True)
        outcomes = [outcome]
    else:
        seeds = range(chosen.first, chosen.first + chosen.seeds)
        outcomes = play(seeds, chosen.bars, chosen.workers, chosen.category)
    for name, found in figures(outcomes, chosen.bars).items():
        output.print(f"{name} {found.value:.0f} ({found.note})", markup=False, soft_wrap=True)
    return 1 if any(outcome.breaches for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
