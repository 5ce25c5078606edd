"""The study of planted motifs: what it is measured with knows no later bar, and its bounds are bounds."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from backtest.synthetic.motif_study import FEWEST, MotifStudy, study_motifs, train_on_motifs
from backtest.synthetic.motifs import MotifSettings, MotifTask, motif_task
from strategies.bars import BarSeries
from strategies.features import FEATURE_NAMES
from strategies.memory_transformer.config import ModelConfig
from strategies.memory_transformer.training import TrainedModel, TrainingConfig

SETTINGS = MotifSettings(bars=9_000, training_bars=4_000, training_motifs=20, test_motifs=20, vocabularies=2)
MODEL = ModelConfig(
    n_features=len(FEATURE_NAMES),
    d_model=16,
    n_heads=2,
    n_layers=1,
    d_ff=32,
    dropout=0.0,
    attention_window=16,
    kernel_size=8,
    horizons=(1, 8),
    primary=1,
    embargo=4,
    memory_size=5_000,
)
TRAINING = TrainingConfig(
    epochs=2, learning_rate=3e-3, segment_blocks=2, segments_per_step=1, mirrored=0.5, whitening=1.0
)


@pytest.fixture(scope="module")
def task() -> MotifTask:
    return motif_task(0, SETTINGS)


@pytest.fixture(scope="module")
def trained(task: MotifTask) -> TrainedModel:
    return train_on_motifs(task, MODEL, TRAINING)


@pytest.fixture(scope="module")
def study(task: MotifTask, trained: TrainedModel) -> MotifStudy:
    return study_motifs(task, trained)


def test_a_matched_filter_and_a_perfect_read_know_what_can_be_known(study: MotifStudy) -> None:
    assert study.over_bayes(study.best) == 1.0
    assert study.over_bayes(study.matched_filter) == pytest.approx(1.0, abs=0.06)
    assert study.over_bayes(study.mean_read) < 0.95
    assert (study.matured >= FEWEST).sum() > 150


def test_without_the_noise_of_outcomes_the_same_share_is_told(study: MotifStudy) -> None:
    assert study.noiseless(study.best) == 1.0
    assert study.noiseless(np.zeros_like(study.best)) == 0.0
    exact = replace(study, outcome=study.best)
    for forecast in (study.model, study.mean_read, 0.5 * study.best):
        assert study.noiseless(forecast) == pytest.approx(exact.over_bayes(forecast))
    early = study.matured < FEWEST
    assert study.noiseless(np.where(early, 1.0, study.model)) == study.noiseless(study.model)


def test_what_the_learned_key_found_is_a_share_of_what_there_was(study: MotifStudy) -> None:
    known = study.matured > 0
    assert np.isnan(study.found[~known]).all()
    assert ((study.found[known] >= 0.0) & (study.found[known] <= 1.0)).all()
    whole = study.found == 1.0
    assert whole.any()
    assert study.learned_key[whole] == pytest.approx(study.best[whole], abs=1e-12)


def test_a_forecast_that_knows_nothing_correlates_with_nothing_whatever_its_size(study: MotifStudy) -> None:
    assert study.correlated(1000.0 * study.best) == pytest.approx(study.correlated(study.best))
    assert study.correlated(-study.best) == pytest.approx(-study.correlated(study.best))
    assert study.correlated(np.zeros_like(study.best)) == 0.0


def test_no_forecast_of_the_study_knows_a_later_bar(task: MotifTask, trained: TrainedModel, study: MotifStudy) -> None:
    """The shuffled control is left out: it deals outcomes of moments that were known, but draws them anew."""
    cut = 7_000
    series = task.series
    walk = np.exp(np.cumsum(0.01 * np.random.default_rng(1).standard_normal(len(series) - cut)))
    prices = {
        name: np.concatenate((getattr(series, name)[:cut], series.close[cut - 1] * walk))
        for name in ("open", "high", "low", "close")
    }
    other = study_motifs(replace(task, series=replace(series, **prices)), trained)
    early = task.events.bar[task.events.bar >= SETTINGS.training_bars] < cut
    count = int(early.sum())
    assert count > 100
    for name in ("model", "without_memory", "learned_key", "matched_filter", "gate", "found"):
        mine, theirs = getattr(study, name)[:count], getattr(other, name)[:count]
        np.testing.assert_allclose(theirs, mine, rtol=1e-4, atol=1e-8, err_msg=name)
    assert not np.allclose(other.model[count:][:50], study.model[count:][:50])
    assert {field.name for field in fields(BarSeries)} >= set(prices)
