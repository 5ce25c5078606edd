"""Planted motifs whose consequence is drawn after training: what a frozen model reads from its memory, beside the optimum."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Final

from backtest.synthetic.candles import Floats
from backtest.synthetic.motif_study import FEWEST, MotifStudy, study_motifs, train_on_motifs
from backtest.synthetic.motifs import MotifSettings, motif_task
from backtest.walk_forward.runner import process_executor
from benchmarks.harness import Measurement, benchmark
from benchmarks.motif_plots import plot_gain, plot_gate
from strategies.features import FEATURE_NAMES
from strategies.memory_transformer.config import ModelConfig
from strategies.memory_transformer.training_config import TrainingConfig

SEEDS: Final = 3
TASK: Final = MotifSettings(
    bars=290_000, training_bars=240_000, training_motifs=960, vocabularies=24, test_motifs=200, test_vocabularies=5
)
"""Stretches of 10,000 bars with 40 motifs of their own. Five of them to test by, because the noise of one stretch's outcomes
moves the share explained by 0.02 to 0.03."""
MODEL: Final = ModelConfig(
    n_features=len(FEATURE_NAMES),
    d_model=32,
    n_heads=4,
    n_layers=2,
    d_ff=64,
    dropout=0.0,
    attention_window=128,
    kernel_size=8,
    linear_window=8,
    gate_bias=-3.0,
    horizons=(1, 4, 8),
    embargo=4,
    memory_size=10_000,
)
"""Attention over several motifs: when one ends is hard to tell from its own bars, whose last may be small, and easier from when
those before it ended."""
TRAINING: Final = TrainingConfig(
    epochs=6,
    learning_rate=3e-3,
    patience=6,
    segment_blocks=2,
    segments_per_step=1,
    mirrored=0.5,
    read_epochs=8,
    key_pace=3.0,
    averaging=0.998,
    precision=2.0,
    whitening=1.0,
)

_PIECES: Final[Mapping[str, tuple[Callable[[MotifStudy], Floats], str]]] = {
    "motif_r2_over_bayes": (lambda study: study.model, "learned key, learned read"),
    "motif_learned_key_best_read": (
        lambda study: study.learned_key,
        "learned key, the posterior mean of what it found",
    ),
    "motif_best_key_mean_read": (
        lambda study: study.mean_read,
        "every occurrence found, their shrunken mean: no better linear read",
    ),
    "motif_matched_filter": (
        lambda study: study.matched_filter,
        "key: distance of the last 8 returns; read: posterior mean",
    ),
}


@benchmark(*_PIECES, "motif_r2_over_bayes_noiseless", "motif_r2_without_memory", "motif_r2_shuffled", seed=0)
def motifs(seed: int) -> Mapping[str, Measurement]:
    """What is explained of the outcomes of motifs that training has not seen, over what can be known."""
    with process_executor(min(SEEDS, os.cpu_count() or 1)) as processes:
        studies = list(processes.map(study, range(seed, seed + SEEDS)))
    plot_gain(studies, TASK)
    plot_gate(studies)
    about = (
        f"{SEEDS} seeds, mean; {TASK.training_bars:,} bars of training in {TASK.vocabularies} stretches with motifs of their "
        f"own, then weights frozen; {TASK.bars - TASK.training_bars:,} bars in {TASK.test_vocabularies} such stretches with "
        f"{TASK.test_motifs} other motifs in all, whose meaning is drawn anew, from {FEWEST} matured occurrences on, "
        f"{sum((s.matured >= FEWEST).sum() for s in studies):,} outcomes"
    )
    found = {
        name: _measured([each.over_bayes(of(each)) for each in studies], "of Bayes R²", f"{what}; {about}")
        for name, (of, what) in _PIECES.items()
    }
    found["motif_r2_over_bayes_noiseless"] = _measured(
        [each.noiseless(each.model) for each in studies],
        "of Bayes R²",
        f"motif_r2_over_bayes with the forecast of Bayes' rule in place of the outcomes, so that the noise of a few hundred of "
        f"them does not move it: 1 - sum((bayes - model)²) / sum(bayes²); {about}",
    )
    alone = [each.over_bayes(each.without_memory) for each in studies]
    found["motif_r2_without_memory"] = _measured(alone, "of Bayes R²", f"the same weights, gate shut; {about}")
    dealt = [each.correlated(each.shuffled) / each.explained(each.best) for each in studies]
    as_they_are = fmean(each.over_bayes(each.shuffled) for each in studies)
    found["motif_r2_shuffled"] = _measured(
        dealt,
        "of Bayes R²",
        f"remembered outcomes are those of other moments; the signed squared correlation, because such a forecast is believed "
        f"like any other: taken as it is, it explains {as_they_are:.2f}; {about}",
    )
    return found


def study(seed: int) -> MotifStudy:
    """One training and its test."""
    task = motif_task(seed, TASK)
    return study_motifs(task, train_on_motifs(task, MODEL, replace(TRAINING, seed=seed)), seed=seed)


def _measured(values: Sequence[float], unit: str, note: str) -> Measurement:
    return Measurement(fmean(values), unit, f"{', '.join(f'{value:.3f}' for value in values)}; {note}")
