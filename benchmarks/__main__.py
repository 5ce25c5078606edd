"""``python -m benchmarks [--candles FOLDER] [NAME ...]``, ``--evaluate``, and ``--results`` and ``--walk`` with a file."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console

SUITES: Final = (
    "benchmarks.candles",
    "benchmarks.sma",
    "benchmarks.model",
    "benchmarks.memory",
    "benchmarks.archive",
    "benchmarks.whitening",
    "benchmarks.training",
    "benchmarks.report",
    "benchmarks.live",
)
CAMPAIGNS: Final = {"chaos_runs": "benchmarks.chaos.campaign", "chaos_violations": "benchmarks.chaos.campaign"}
"""Suites that are measured by name only: they take an hour."""
EVALUATIONS: Final = (
    "benchmarks.synthetic",
    "benchmarks.known_optimum",
    "benchmarks.motifs",
    "benchmarks.public_table",
)
USAGE: Final = """python -m benchmarks [--candles FOLDER] [NAME ...]
python -m benchmarks --evaluate
python -m benchmarks --results EVALUATION.json
python -m benchmarks --walk WALK.json

Without names all are measured but the tasks of known optimum and the public table, which --evaluate measures; what is said of
these is written to docs/results.md, and the table needs a folder with ETTh1.csv, named by RECALL_TEST_DATA.
With a candle store, such as data/candles after recall fetch, the memory is measured on the hours in it as well, under names
that end in _stored_hours.
--results takes what recall evaluate --json said of real candles, merges its figures and writes docs/results.md;
chaos_runs plays the campaign against the live run, which takes half an hour or more and is not among all.
--walk takes what recall walk-forward --json said and writes it there."""


def main(arguments: Sequence[str]) -> int:
    """Measure the named benchmarks, or all. Returns 1 when one refused to give a number, 2 for an unknown name."""
    # One thread for everyone, and before any library reads it: pools that fight over the cores measure only the fight.
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = "1"
    evaluates = arguments[:1] == ["--evaluate"]
    # A name may be of either.
    named = list(arguments[2:] if arguments[:1] == ["--candles"] else arguments[evaluates:])
    for suite in (*SUITES, *EVALUATIONS) if named else EVALUATIONS if evaluates else SUITES:
        importlib.import_module(suite)
    for suite in {CAMPAIGNS[name] for name in arguments if name in CAMPAIGNS}:
        importlib.import_module(suite)
    from benchmarks.harness import REGISTRY, BenchmarkError, run, select
    from benchmarks.page import write_page

    console, names = Console(), list(arguments)
    if names[:1] == ["--results"]:
        from benchmarks.results import publish

        try:
            publish(Path(names[1]) if names[1:] else Path("evaluation.json"))
            write_page()
        except BenchmarkError as problem:
            console.print(str(problem), style="red", highlight=False)
            return 2
        return 0
    if names[:1] == ["--walk"]:
        from benchmarks.walk import write_walk

        try:
            write_walk(Path(names[1]) if names[1:] else Path("walk.json"))
        except BenchmarkError as problem:
            console.print(str(problem), style="red", highlight=False)
            return 2
        return 0
    if names[:1] == ["--candles"]:
        if not names[1:] or not Path(names[1]).is_dir():
            console.print("--candles needs the folder of a candle store, such as data/candles", style="red")
            return 2
        from benchmarks.memory import register_stored

        register_stored(Path(names[1]))
    if "--help" in arguments or "-h" in arguments:
        known = "\n".join(f"  {name}" for one in REGISTRY for name in one.names)
        console.print(f"{USAGE}\n\n{known}", markup=False)
        return 0
    try:
        selected = select(named)
        refused = run(selected, console)
        write_page()
        if any(one.measure.__module__ in EVALUATIONS for one in selected):
            from benchmarks.tasks import write_tasks

            write_tasks()
        return 1 if refused else 0
    except BenchmarkError as problem:
        console.print(str(problem), style="red", highlight=False)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
