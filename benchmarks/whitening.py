"""What the whitening of keys costs: time and recall of the same searches, from nearly full whitening to centring alone."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Final

from benchmarks.banks import NEIGHBOURS, RunningBank, recall
from benchmarks.harness import Measurement, benchmark, take_turns
from benchmarks.keys import synthetic_model, whitened_anew
from benchmarks.memory_plots import plot_whitening
from benchmarks.threads import one_thread
from memory_store.records import IndexKind
from strategies.memory_transformer.shrinkage import SHRINKAGES
from strategies.memory_transformer.whitening import directions

SIZE: Final = 100_000
QUERIES: Final = 200
REPETITIONS: Final = 5


@benchmark("whitening_cost", seed=29)
def measure(seed: int) -> Mapping[str, Measurement]:
    """One query at every strength that training chooses from, exact and approximate, on the same states."""
    chosen = synthetic_model(seed).config.shrinkage
    places = range(SIZE, SIZE + 10 * QUERIES, 10)
    milliseconds: dict[str, list[float]] = {index.value: [] for index in IndexKind}
    recalls, spreads = [], []
    with one_thread():
        for stream in whitened_anew(seed, SIZE + 10 * QUERIES, SHRINKAGES).values():
            banks = {index.value: RunningBank(stream, SIZE, index) for index in IndexKind}
            for bank in banks.values():
                bank.advance_to(SIZE)
            found, exact = (
                [banks[index.value].ask(place) for place in places]
                for index in (IndexKind.APPROXIMATE, IndexKind.EXACT)
            )
            recalls.append(recall(found, exact))
            spreads.append(directions(stream.keys[:SIZE]))
            times = take_turns(
                {name: lambda bank=bank: bank.timed_queries(places) for name, bank in banks.items()},  # type: ignore[misc]
                repetitions=REPETITIONS,
            )
            for name, seconds in times.items():
                milliseconds[name].append(1e3 * statistics.median(seconds))
    plot_whitening(SHRINKAGES, milliseconds, recalls, chosen)
    exact_ms = dict(zip(SHRINKAGES, milliseconds[IndexKind.EXACT.value], strict=True))
    note = (
        f"exact query with the chosen shrinkage {chosen} over one with centred keys, k {NEIGHBOURS}, {SIZE:,} entries of "
        f"synthetic hours, one thread; at shrinkage {_listed(SHRINKAGES)}: "
        + "; ".join(f"{name} {_listed(values)} ms" for name, values in milliseconds.items())
        + f"; recall@32 {'/'.join(f'{each:.4f}' for each in recalls)}; effective directions of the keys {_listed(spreads)}"
    )
    return {"whitening_cost": Measurement(exact_ms[chosen] / exact_ms[1.0], "x", note)}


def _listed(values: tuple[float, ...] | list[float]) -> str:
    return "/".join(f"{value:.3g}" for value in values)
