"""``python -m benchmarks [NAME ...]``."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Final

from rich.console import Console

SUITES: Final = ("benchmarks.sma", "benchmarks.model")


def main(arguments: Sequence[str]) -> int:
    """Measure the named benchmarks, or all. Returns 1 when one refused to give a number, 2 for an unknown name."""
    # One thread for everyone, and before any library reads it: pools that fight over the cores measure only the fight.
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = "1"
    for suite in SUITES:
        importlib.import_module(suite)
    from benchmarks.harness import REGISTRY, BenchmarkError, run, select
    from benchmarks.page import write_page

    console = Console()
    if "--help" in arguments or "-h" in arguments:
        names = "\n".join(f"  {name}" for one in REGISTRY for name in one.names)
        console.print(f"python -m benchmarks [NAME ...]\n\nWithout names all are measured:\n{names}")
        return 0
    try:
        refused = run(select(arguments), console)
        write_page()
        return 1 if refused else 0
    except BenchmarkError as problem:
        console.print(str(problem), style="red", highlight=False)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
