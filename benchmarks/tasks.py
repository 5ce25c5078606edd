"""The parts of ``docs/results.md`` that need no candles, from the figures alone: known optima and the public table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks.harness import LATEST

PAGE: Final = Path(__file__).parents[1] / "docs" / "results.md"
_BEGIN: Final = "<!-- from benchmarks/latest.json: begin -->"
_END: Final = "<!-- from benchmarks/latest.json: end -->"

_OPTIMA: Final = {
    "noise_max_z": ("noise: largest z of the information coefficient", "under 3.5"),
    "noise_pooled_z": ("noise: pooled z", "under 2.6"),
    "needle_recall_at_capacity": ("needle in a haystack, up to the capacity", "1"),
    "needle_recall_beyond_importance": ("the same beyond it, kept by importance", "1"),
    "needle_recall_beyond_fifo": ("the same, first in, first out", "0"),
    "drift_over_filter": ("signs that flip: R² over the exact filter's", "1"),
    "drift_undecayed_over_filter": ("the same without decay", "below 1"),
    "decoys_r2_over_bayes": ("decoys: R² over that of Bayes' rule", "1"),
    "novelty_loss": ("novelty: loss at first sights of hostile motifs", "0"),
    "novelty_loss_unguarded": ("the same, following the nearest memory", "above 0"),
    "novelty_r2_over_bayes": ("the same motifs later: R² over that of Bayes' rule", "1"),
    "echo_r2_over_bayes": ("cross-symbol echo: R² over that of Bayes' rule", "1"),
    "echo_r2_alone_over_bayes": ("the same with the follower's own memory alone", "below 1"),
    "costed_profit_over_optimum": ("costed trading: profit over the best policy's", "1"),
    "regime_crps_over_filter": ("returning regime: CRPS over the exact filter's", "1"),
    "regime_crps_forgotten_over_filter": ("the same with a memory that has forgotten it", "above 1"),
    "regime_crps_window_over_filter": ("the same by a sliding window", "above 1"),
}
_MOTIF_FIGURES: Final = {
    "motif_r2_over_bayes": ("learned key, learned read", "at least 0.95"),
    "motif_r2_over_bayes_noiseless": ("the same, the forecast of Bayes' rule in place of the outcomes", "-"),
    "motif_learned_key_best_read": ("learned key, best read of what it found", "-"),
    "motif_matched_filter": ("distance of the last returns as key, best read", "-"),
    "motif_best_key_mean_read": ("every occurrence found, their shrunken mean", "-"),
    "motif_r2_without_memory": ("the same weights, gate shut", "0"),
    "motif_r2_shuffled": ("the same weights, outcomes of other moments", "0"),
}
_MOTIF_TEXT: Final = """Shapes in the returns of a random walk, each with a consequence of its own that is drawn after training:
no weight can know it. Weights are frozen, only the memory grows. Shown is the share of the outcomes' variance that is
explained, from two matured occurrences on, over what the best forecast explains that knows the law of the task
(`backtest/synthetic/optimum.py`); means of three seeds. How each figure was made: [performance](performance.md)."""
_MOTIF_PICTURES: Final = """![What a memory gains with every occurrence](images/motif_gain.png)

![When the gate opens](images/motif_gate.png)"""
_PUBLIC_TEXT: Final = """Lookback 96, standard split and scaling, no window dropped, mean over three seeds, all channels
with the same weights and none seeing another (`benchmarks/etth1.py`, `benchmarks/public_table.py`). The class that
trades, with `output_type` path, a `linear_window` and `linear_start`: what is linear is fitted to the training part in
closed form, and validation decides whether what the network learns after that is kept. Twins that are trained have the
same net and the same choice of penalties.

Settings were chosen on the validation part, in two sessions. In the first, nine at 96 hours: four shapes and five
shrinkages of the keys with one seed each; there errors of the test part were printed beside those of the validation part.
In the second some 250 fits in closed form, with the test part out of reach and one seed: of what is regressed on, of
penalties, keys, neighbours and temperatures. Lower than the plan taken, on validation, were fits that also see the keys
of the neighbours (by 0.001 at 192 hours and 0.003 at 96), 32 neighbours in place of 20 (by 0.001 at both), and some other
shrinkages and temperatures at one of the horizons. Taken was the smallest change of the earlier plan; it is further from
its memoryless twin, in standard errors, than the first of these. This plan was then measured once on the test part, where
the earlier plan's figures were known.

Two standard errors stand beside every difference. The one over seeds says what another training on the same span would
change: by it each twin is at least eleven errors behind, at both horizons. The other, over stretches as long as the
horizon, says what another span would change, and by it the twins without a memory and trained with shuffled outcomes
are not two errors behind at 192 hours. Such errors are rather too small: of
made-up differences without any gain that depend on each other by the overlap of horizons alone, 14 % at 192 hours and
12 % at 96 are more than two of them away from 0, where it should be 5 % (1,500 draws). Newey and West's, with a lag of the
horizon, would have 15 % and 13 %, equal weights up to that lag (Diebold and Mariano) 11 % and 7 %."""
_FORECASTERS: Final = {
    "mse": "memory transformer",
    "mse_shuffled": "memory transformer: shuffled outcomes",
    "mse_gate_shut": "memory transformer: gate shut",
    "mse_trained_shuffled": "the same net trained with shuffled outcomes",
    "mse_without_memory": "the same net trained without memory",
    "mse_frozen": "memory transformer: memory of training and validation only",
    "mse_linear": "linear (ridge)",
    "mse_retrieval": "linear with retrieved outcomes (ridge, no network)",
}
_HORIZONS: Final = {96: ("0.380", "0.366"), 192: ("0.425", "0.407")}


def write_tasks(figures: Path = LATEST, page: Path = PAGE) -> None:
    """Put what was measured between the marks of the page; at its end where it has none."""
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    known = json.loads(figures.read_text(encoding="utf-8")) if figures.exists() else {}
    page.write_text(with_tasks(text, known), encoding="utf-8")


def with_tasks(text: str, figures: Mapping[str, Mapping[str, Any]]) -> str:
    """The page with these figures in place of those that it had."""
    before, _, rest = text.partition(_BEGIN)
    after = rest.partition(_END)[2]
    return f"{before.rstrip()}\n\n{_BEGIN}\n\n{render(figures)}\n\n{_END}\n{after.lstrip()}".lstrip()


def render(figures: Mapping[str, Mapping[str, Any]]) -> str:
    """All parts as text; what was not measured is left out."""
    return "\n\n".join([*_optima(figures), *_motifs(figures), *_public(figures)])


def _optima(figures: Mapping[str, Mapping[str, Any]]) -> list[str]:
    rows = [
        f"| {text} | {figures[name]['value']:.3f} | {optimum} | `{name}` |"
        for name, (text, optimum) in _OPTIMA.items()
        if name in figures
    ]
    if not rows:
        return []
    table = "\n".join(["| task | value | optimum | figure |", "| --- | ---: | ---: | --- |", *rows])
    return [
        "## Tasks whose best is known",
        "`python -m benchmarks --evaluate` makes series whose best possible forecast is a closed form or an exact "
        "filter (`backtest/synthetic`).\nHow each figure was made, seed by seed: [performance](performance.md).",
        table,
    ]


def _motifs(figures: Mapping[str, Mapping[str, Any]]) -> list[str]:
    if not figures.keys() >= _MOTIF_FIGURES.keys():
        return []
    rows = [
        f"| `{name}` | {what} | {figures[name]['value']:+.3f} | {goal} |"
        for name, (what, goal) in _MOTIF_FIGURES.items()
    ]
    table = "\n".join(["| figure | of | value | goal |", "| --- | --- | ---: | ---: |", *rows])
    return ["## Planted motifs", _MOTIF_TEXT, table, _MOTIF_PICTURES]


def _public(figures: Mapping[str, Mapping[str, Any]]) -> list[str]:
    horizons = [horizon for horizon in _HORIZONS if f"etth1_h{horizon}_mse" in figures]
    if not horizons:
        return []
    rows = [
        f"| {text} | " + " | ".join(_value(figures, f"etth1_h{horizon}_{name}") for horizon in horizons) + " |"
        for name, text in _FORECASTERS.items()
    ]
    wanted = [
        f"| {word} | " + " | ".join(_HORIZONS[horizon][place] for horizon in horizons) + " |"
        for place, word in enumerate(("wanted at most", "goal"))
    ]
    heading = "| mean squared error | " + " | ".join(f"{horizon} hours" for horizon in horizons) + " |"
    notes = [
        f"- `{name}`: {figures[name]['note'].partition('; lookback')[0]}{_after(figures[name]['note'])}."
        for horizon in horizons
        for name in (f"etth1_h{horizon}_{each}" for each in _FORECASTERS)
        if name in figures
    ]
    return [
        "## A public table: ETTh1",
        _PUBLIC_TEXT,
        "\n".join([heading, "| --- " + "| ---: " * len(horizons) + "|", *rows, *wanted]),
        "\n".join(notes),
    ]


def _value(figures: Mapping[str, Mapping[str, Any]], name: str) -> str:
    return f"{figures[name]['value']:.4f}" if name in figures else "-"


def _after(note: str) -> str:
    """Seeds and differences of a note, without what is the same for all."""
    parts = [part for part in note.split("; ") if "seeds:" in part or "against the model" in part]
    return "".join(f"; {part}" for part in parts)
