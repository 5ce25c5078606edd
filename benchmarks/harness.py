"""What every benchmark shares: a registry, interleaved timing, and results that are merged into one file.

Ratios are measured side by side in one run: the contestants take turns, repetition by repetition, so that whatever else
the machine is doing slows both. Medians of the turns are compared.
"""

from __future__ import annotations

import gc
import json
import os
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

LATEST: Final = Path(__file__).resolve().parent / "latest.json"


class BenchmarkError(Exception):
    """A benchmark that refuses to give a number, in one sentence."""


class BenchmarkSkipped(BenchmarkError):
    """A benchmark whose data is not here, in one sentence; that is no failure."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One number under one name."""

    value: float
    unit: str
    note: str
    """How it came about: sizes, repetitions, what it was compared with."""


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A function that measures one or more names."""

    names: tuple[str, ...]
    seed: int
    measure: Callable[[int], Mapping[str, Measurement]]


REGISTRY: Final[list[Benchmark]] = []


def benchmark(
    *names: str, seed: int
) -> Callable[[Callable[[int], Mapping[str, Measurement]]], Callable[[int], Mapping[str, Measurement]]]:
    """Register a function that takes the seed and measures ``names``, all of them in one run."""

    def register(measure: Callable[[int], Mapping[str, Measurement]]) -> Callable[[int], Mapping[str, Measurement]]:
        taken = {name for known in REGISTRY for name in known.names} & set(names)
        if taken:
            raise ValueError(f"benchmark names {sorted(taken)} are registered twice; every name has one source")
        REGISTRY.append(Benchmark(names, seed, measure))
        return measure

    return register


def select(wanted: Sequence[str], registry: Sequence[Benchmark] | None = None) -> list[Benchmark]:
    """The benchmarks that measure the wanted names; all of them for none.

    Raises:
        BenchmarkError: nothing measures a name.
    """
    known = REGISTRY if registry is None else registry
    names = [name for one in known for name in one.names]
    unknown = [name for name in wanted if name not in names]
    if unknown:
        raise BenchmarkError(f"benchmark {unknown[0]!r} is unknown; there are {', '.join(names)}")
    return [one for one in known if not wanted or set(one.names) & set(wanted)]


def take_turns(
    contestants: Mapping[str, Callable[[], float | None]], *, repetitions: int, warm_up: bool = True
) -> dict[str, list[float]]:
    """Let every contestant run once per repetition, in turns, and return their times in seconds.

    Args:
        contestants: by name; one may return its own seconds, where only a part of what it does counts.
        repetitions: turns that are counted.
        warm_up: run everyone once before, uncounted.
    """
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(-1 if warm_up else 0, repetitions):
        for name, contestant in contestants.items():
            gc.collect()
            started = time.perf_counter()
            own = contestant()
            elapsed = time.perf_counter() - started if own is None else own
            if turn >= 0:
                times[name].append(elapsed)
    return times


def median_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """Median over the turns of the ratio within each turn, which a slow spell of the machine hardly moves."""
    return statistics.median(a / b for a, b in zip(numerators, denominators, strict=True))


def spread(values: Sequence[float]) -> str:
    """Lowest to highest, for a note."""
    return f"{min(values):,.3g} to {max(values):,.3g}"


def run(selected: Sequence[Benchmark], console: Console, path: Path = LATEST) -> int:
    """Measure, print a table, merge what was measured into ``path``; returns how many benchmarks gave no number."""
    code, failures = commit(), 0
    table = Table("name", "value", "unit", "note", title=machine(), title_justify="left")
    table.columns[0].no_wrap = True
    table.columns[1].justify = "right"
    for one in selected:
        console.print(f"measuring {', '.join(one.names)} ...", style="dim")
        started = time.perf_counter()
        try:
            found = one.measure(one.seed)
        except BenchmarkSkipped as reason:
            console.print(f"{', '.join(one.names)}: skipped, {reason}", style="yellow", highlight=False)
            continue
        except BenchmarkError as problem:
            console.print(f"{', '.join(one.names)}: {problem}", style="red", highlight=False)
            failures += 1
            continue
        if set(found) != set(one.names):
            raise ValueError(f"{sorted(found)} were measured where {sorted(one.names)} were promised")
        console.print(f"  took {time.perf_counter() - started:.0f} s", style="dim")
        merge(path, {name: _entry(result, one, code) for name, result in found.items()})
        for name, result in found.items():
            table.add_row(
                name, f"{result.value:,.4g}" if result.value < 1e5 else f"{result.value:,.0f}", result.unit, result.note
            )
    if table.row_count:
        console.print(table)
    return failures


def merge(path: Path, entries: Mapping[str, Mapping[str, Any]]) -> None:
    """Write entries over those of the same name, keep all others, and replace the file in one step.

    Raises:
        BenchmarkError: what is there is not such a file.
    """
    try:
        known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError as problem:
        raise BenchmarkError(f"{path} is not valid JSON ({problem}); mend or delete it and measure again") from None
    merged = {**known, **entries}
    text = json.dumps(dict(sorted(merged.items())), indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
    ) as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    temporary = Path(stream.name)
    temporary.chmod(0o644)
    temporary.replace(path)


def commit() -> str:
    """The commit that is measured, with ``+`` when the working tree differs from it; empty outside a repository."""
    root = LATEST.parent.parent
    head = _git(root, "rev-parse", "--short=12", "HEAD")
    if not head:
        return ""
    # The results themselves are expected to differ from what was committed.
    results = f":(exclude){LATEST.relative_to(root).as_posix()}"
    changed = _git(root, "status", "--porcelain", "--", ".", results)
    return head + ("+" if changed else "")


def machine() -> str:
    """The machine and the libraries that numbers depend on, in one line."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    libraries = ", ".join(f"{name} {version(name)}" for name in ("numpy", "torch"))
    return f"{_processor()}, {cores} cores, Python {platform.python_version()}, {libraries}"


def _entry(result: Measurement, one: Benchmark, code: str) -> dict[str, Any]:
    return {
        "value": result.value,
        "unit": result.unit,
        "note": f"{result.note}; {machine()}",
        "commit": code,
        "command": f"python -m benchmarks {one.names[0]}",
        "seed": one.seed,
    }


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _git(root: Path, *arguments: str) -> str:
    try:
        answer = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return answer.stdout.strip()
