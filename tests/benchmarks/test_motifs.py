"""The planted motifs: their pictures and page, and, slowly, their figure."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from backtest.synthetic.motif_study import FEWEST, MotifStudy
from backtest.synthetic.motifs import MotifSettings
from benchmarks.motif_plots import plot_gain, plot_gate
from benchmarks.motifs import study
from benchmarks.tasks import write_tasks

NAMES = (
    "motif_r2_over_bayes",
    "motif_r2_over_bayes_noiseless",
    "motif_learned_key_best_read",
    "motif_matched_filter",
    "motif_best_key_mean_read",
    "motif_r2_without_memory",
    "motif_r2_shuffled",
)


def made_up(seed: int) -> MotifStudy:
    """A study of forecasts that know half of what there is."""
    random = np.random.default_rng(seed)
    matured = np.repeat(np.arange(12), 20)
    best = random.standard_normal(len(matured))
    nothing = np.zeros(len(matured))
    since = np.tile(np.arange(-7, 13), 30)
    return MotifStudy(
        matured=matured,
        outcome=best + random.standard_normal(len(matured)),
        best=best,
        model=0.5 * best,
        without_memory=nothing,
        shuffled=nothing,
        learned_key=best,
        matched_filter=best,
        mean_read=best,
        found=np.ones(len(matured)),
        gate=np.full(len(matured), 0.5),
        since_motif=since,
        bar_matured=np.arange(len(since)) % 3,
        bar_gate=1.0 / (1.0 + np.abs(since)),
    )


def test_the_same_studies_draw_the_same_pictures(tmp_path: Path):
    studies = [made_up(0), made_up(1)]
    for folder in (tmp_path / "one", tmp_path / "other"):
        plot_gain(studies, MotifSettings(), folder)
        plot_gate(studies, folder)
    for name in ("motif_gain.png", "motif_gate.png"):
        one, other = ((tmp_path / folder / name).read_bytes() for folder in ("one", "other"))
        assert one == other
        assert len(one) > 10_000


def test_the_page_says_what_was_measured_of_motifs_once(tmp_path: Path):
    figures, page = tmp_path / "latest.json", tmp_path / "results.md"
    page.write_text("# Results\n\n## Goals\n\nkept\n")
    figures.write_text("{}")
    write_tasks(figures, page)
    assert "## Planted motifs" not in page.read_text()
    for value in (0.25, 0.5):
        figures.write_text(json.dumps({name: {"value": value} for name in NAMES}))
        write_tasks(figures, page)
    text = page.read_text()
    assert text.startswith("# Results\n\n## Goals\n\nkept\n")
    assert text.count("## Planted motifs") == 1
    assert "| `motif_r2_over_bayes` | learned key, learned read | +0.500 | at least 0.95 |" in text


@pytest.mark.slow
def test_a_frozen_model_reads_from_its_memory_what_followed_motifs_it_was_never_trained_on():
    found = study(0)
    assert (found.matured >= FEWEST).sum() > 400
    assert found.over_bayes(found.model) > 0.75
    assert abs(found.over_bayes(found.without_memory)) < 0.15
    assert abs(found.correlated(found.shuffled)) < 0.15
