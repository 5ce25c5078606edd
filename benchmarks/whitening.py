"""What the whitening of keys is worth and what it costs, from nearly full whitening to centring alone."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from benchmarks.banks import NEIGHBOURS, RunningBank, recall
from benchmarks.harness import Measurement, benchmark, take_turns
from benchmarks.keys import KeyStream, synthetic_model, whitened_anew
from benchmarks.threads import one_thread
from benchmarks.whitening_plot import plot_whitening
from memory_store.records import IndexKind
from strategies.memory_transformer.shrinkage import SHRINKAGES
from strategies.memory_transformer.whitening import directions

SIZE: Final = 100_000
QUERIES: Final = 200
STEP: Final = 10
REPETITIONS: Final = 5


@dataclass(frozen=True, slots=True)
class Cost:
    """Searches among keys whitened at one strength."""

    exact_ms: float
    approximate_ms: float
    recall: float
    """Of the approximate index."""
    directions: float
    """Effective number that the keys are spread over."""


@benchmark("whitening_cost", seed=29)
def measure(seed: int) -> Mapping[str, Measurement]:
    """One query at every strength that training chooses from, exact and approximate, on the same states."""
    model = synthetic_model(seed)
    chosen = model.config.shrinkage
    with one_thread():
        streams = whitened_anew(seed, SIZE + STEP * QUERIES, SHRINKAGES)
        costs = [measure_cost(stream) for stream in streams.values()]
    choice: Mapping[str, Any] = model.description["metrics"]["whitening"]
    candidates = choice["candidates"]
    plot_whitening(SHRINKAGES, candidates, costs, chosen)
    by_shrinkage = dict(zip(SHRINKAGES, costs, strict=True))
    note = (
        f"exact query with the chosen shrinkage {chosen} over one with keys that are centred only, k {NEIGHBOURS}, {SIZE:,} "
        f"entries of synthetic hours, one thread; at shrinkage {_listed(SHRINKAGES)}: exact "
        f"{_listed([each.exact_ms for each in costs])} ms; approximate {_listed([each.approximate_ms for each in costs])} ms "
        f"with recall@32 {'/'.join(f'{each.recall:.4f}' for each in costs)}; effective directions of the keys "
        f"{_listed([each.directions for each in costs])}; skill on validation {_listed([c['skill'] for c in candidates])}"
    )
    return {"whitening_cost": Measurement(by_shrinkage[chosen].exact_ms / by_shrinkage[1.0].exact_ms, "x", note)}


def measure_cost(stream: KeyStream) -> Cost:
    """Time and recall of queries for later moments, both kinds of index in turns."""
    places = range(SIZE, SIZE + STEP * QUERIES, STEP)
    banks = {index: RunningBank.filled(stream, SIZE, SIZE, index) for index in IndexKind}
    exact, approximate = ([bank.ask(place) for place in places] for bank in banks.values())
    times = take_turns(
        {index.value: partial(bank.timed_queries, places) for index, bank in banks.items()}, repetitions=REPETITIONS
    )
    exact_ms, approximate_ms = (1e3 * statistics.median(times[index.value]) for index in IndexKind)
    return Cost(exact_ms, approximate_ms, recall(approximate, exact), directions(stream.keys[:SIZE]))


def _listed(values: Sequence[float]) -> str:
    return "/".join(f"{value:.3g}" for value in values)
