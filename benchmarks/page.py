"""``docs/performance.md``, written from the measured figures and from nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks.harness import LATEST

PAGE: Final = Path(__file__).parents[1] / "docs" / "performance.md"

_OPENING: Final = """# Performance

`make bench` measures, prints a table, merges it into `benchmarks/latest.json` and writes this page from there. Ratios are
measured side by side in one run, in turns, and their medians are kept: machines are shared, so that absolute figures move by
tens of percent from run to run, ratios far less. *Naive* is the original specification's loop, only made to run.

| figure | value | goal |
| --- | --- | --- |
"""
_GOALS: Final = {
    "replay_sma_bars_per_s": "at least 50,000",
    "replay_sma_vs_backtestingpy": "at least 2",
    "replay_sma_vs_nautilus": "at least 10",
    "load_50k_hours_ms": "under 50",
    "replay_500k_peak_mb": "under 1,500",
    "replay_sma_growth": "about 1: cost is linear in bars",
    "replay_model_vs_naive": "at least 30, better 50",
    "replay_model_50k_s": "under 30",
    "report_10k_trades_s": "under 5",
    "decision_ms_p50": "under 10",
    "stream_decision_ms_p50": "under 3",
    "wire_to_wire_ms_p50": "under 5",
    "wire_to_wire_ms_p99": "under 15",
    "minute_close_20_symbols_s": "under 1",
    "chaos_runs": "at least 200",
    "chaos_violations": "0",
    "train_vs_naive": "at least 100",
    "epoch_50k_s": "under 60",
    "append_us_262144": "under 30",
    "append_vs_naive": "at least 400",
    "exact_query_ms_262144": "under 4, better 1.5",
    "exact_vs_bandwidth": "at most 1.3",
    "query_ms_262144": "under 0.35",
    "recall_262144": "at least 0.99",
    "recall_262144_after_churn": "at least 0.99",
    "query_ms_1000000": "under 1.2",
    "batch_queries_per_s_262144": "at least 5,000",
    "warm_100k_s": "under 10",
    "memory_bytes_over_raw": "under 2.2",
    "open_s_262144": "under 2",
    "noise_max_z": "under 3.5",
    "noise_pooled_z": "under 2.6",
    "needle_recall_at_capacity": "1",
    "needle_recall_beyond_importance": "at least 0.9",
    "needle_recall_beyond_fifo": "0",
    "motif_r2_over_bayes": "at least 0.95",
    "motif_r2_without_memory": "0",
    "motif_r2_shuffled": "0",
    "drift_over_filter": "at least 0.95",
    "decoys_r2_over_bayes": "1",
    "novelty_loss": "0",
    "novelty_r2_over_bayes": "1",
    "echo_r2_over_bayes": "1",
    "costed_profit_over_optimum": "1",
    "regime_crps_over_filter": "1",
    "etth1_h96_mse": "at most 0.380, better 0.366",
    "etth1_h192_mse": "at most 0.425, better 0.407",
    "vol_r2_minus_har": "at least 0.03",
    "vol_r2_minus_ridge": "at least 0",
    "coverage_80_min": "at least 0.78",
    "coverage_80_max": "at most 0.82",
}
_CURVES: Final = """## The memory as it grows

The same keys, one thread, medians; `query_ms_1000000`, `recall_262144_after_churn` and `whitening_cost` hold the numbers.

![Time of one query against the number of entries](images/memory_query.png)

![Time of one append against the number of entries](images/memory_append.png)

![Recall while the memory is replaced](images/memory_churn.png)

![What the whitening of keys costs](images/memory_whitening.png)
"""


def write_page(figures: Path = LATEST, page: Path = PAGE) -> None:
    """Write the page."""
    page.write_text(render(json.loads(figures.read_text(encoding="utf-8"))), encoding="utf-8")


def render(figures: Mapping[str, Mapping[str, Any]]) -> str:
    """The page as text: a table of all figures, then how each was made."""
    rows = [
        f"| `{name}` | {_shown(one['value'])} {one['unit']} | {_GOALS.get(name.removesuffix('_stored_hours'), '-')} |"
        for name, one in figures.items()
    ]
    notes = [
        f"## {name}\n\n{one['note']}.\n\nCommit `{one['commit']}`, seed {one['seed']}: `{one['command']}`"
        for name, one in figures.items()
    ]
    parts = [_OPENING + "\n".join(rows) + "\n"]
    if "query_ms_1000000" in figures:
        parts.append(_CURVES)
    return "\n".join(parts) + "\n" + "\n\n".join(notes) + "\n"


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}" if 0.99 <= value < 1 else f"{value:.3g}"
