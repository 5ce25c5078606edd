"""The refactor gate: fixed runs decide and fill as they did when their hashes were written down.

A change that is meant to change nothing leaves ``pinned_runs.json`` as it is. One that is meant to change decisions or fills
writes it anew, and says in its commit which runs changed and why:

    RECALL_PIN=write python -m pytest -n 0 tests/parity/test_pinned_runs.py

Rules of moving averages decide alike everywhere. What goes through logarithms, cosines and matrices may differ in the last bit
on another processor or with another version of NumPy or torch, and then neighbours of nearly equal scores change places; so
those hashes are compared only where they were written down, and skipped with a message elsewhere.
"""

from __future__ import annotations

import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from tests.models import TINY, TRADES, train_tiny
from tests.runs import BUSY, INTERVAL, make_candles, recall, span

PINS = Path(__file__).with_name("pinned_runs.json")
MARKET = ("--symbols", "BTCUSDT,ETHUSDT", "--interval", INTERVAL)
RULES = (
    "--set", "memory.eviction=importance", "--set", "memory.regimes=prefer", "--set", "memory.one_per_moment=true",
    "--set", "memory.age_half_life_days=90", "--set", "memory.scope=other",
)  # fmt: skip
RUNS: dict[str, tuple[str, ...]] = {
    "sma_cross": (*MARKET, "--strategy", "sma_cross", "--set", "risk.stop_loss=0.02", *span(400, 1400)),
    "similarity": (*MARKET, *BUSY, *span(900, 1400)),
    "similarity with memory rules": (*MARKET, *BUSY, *RULES, *span(900, 1400)),
    "memory_transformer": ("--symbols", "BTCUSDT", "--interval", INTERVAL, *TINY, *TRADES, *span(900, 1400)),
}
EVERYWHERE = ("sma_cross",)


def place() -> dict[str, str]:
    """What the last bits depend on."""
    import torch

    return {
        "machine": platform.machine(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        **{package: version(package) for package in ("torch", "numpy")},
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pinned")
    make_candles(folder, ("BTCUSDT", "ETHUSDT"), 1400, seed=11)
    return folder


SLOW = ("memory_transformer",)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in RUNS]
)
def test_a_fixed_run_decides_and_fills_as_it_did(name: str, folder: Path) -> None:
    pins: dict[str, Any] = json.loads(PINS.read_text(encoding="utf-8")) if PINS.exists() else {"runs": {}}
    writes = os.environ.get("RECALL_PIN") == "write"
    if name not in EVERYWHERE and not writes and place() != pins["place"]:
        pytest.skip(f"pinned on {pins['place']}, this is {place()}")
    arguments = RUNS[name]
    if name == "memory_transformer":
        arguments = (*arguments, "--model", train_tiny(folder, 850))
    found = recall(folder, "backtest", *arguments, "--no-plot")
    pinned = {key: found[key] for key in ("bars", "fills", "decisions_sha256", "trades_sha256")}
    assert pinned["fills"] > 20
    if writes:
        pins["place"] = place()
        pins["runs"][name] = pinned
        PINS.write_text(json.dumps(pins, indent=2) + "\n", encoding="utf-8")
    assert pinned == pins["runs"][name], "decisions or fills changed; if they were meant to, see the top of this file"
