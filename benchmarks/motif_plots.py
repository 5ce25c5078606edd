"""The pictures of the planted motifs: what a memory gains with every occurrence, and when the gate opens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.figure import Figure

from backtest.synthetic.candles import Floats
from backtest.synthetic.motif_study import MotifStudy
from backtest.synthetic.motifs import MotifSettings
from backtest.synthetic.optimum import bayes_r2

IMAGES: Final = Path(__file__).resolve().parents[1] / "docs" / "images"
_MODEL: Final = "#2166ac"
_SHUT: Final = "#b2182b"
_SHUFFLED: Final = "#e08214"
_BEST: Final = "0.35"
_MOST: Final = 11
"""Occurrences shown one by one."""


def plot_gain(studies: Sequence[MotifStudy], settings: MotifSettings, folder: Path = IMAGES) -> None:
    """Share explained against the number of matured occurrences, ``motif_gain.png``."""
    figure = Figure(figsize=(7.5, 4.5), dpi=120, layout="constrained")
    axes = _axes(figure.subplots())
    counts = np.arange(_MOST + 1)
    best = [bayes_r2(int(count), settings.drift, settings.noise) for count in counts]
    axes.plot(counts, best, color=_BEST, linestyle="--", label="the most that can be known, on average")
    reached = [_explained(studies, lambda study: study.best, int(count))[0] for count in counts]
    axes.plot(
        counts, reached, color=_BEST, linestyle="", marker="_", markersize=12, label="Bayes forecast of these motifs"
    )
    lines: tuple[tuple[str, str, str, Callable[[MotifStudy], Floats]], ...] = (
        ("model", _MODEL, "o", lambda study: study.model),
        ("the same, gate shut", _SHUT, "s", lambda study: study.without_memory),
    )
    for label, color, marker, of in lines:
        values, errors = zip(*[_explained(studies, of, int(count)) for count in counts], strict=True)
        axes.errorbar(counts, values, yerr=errors, color=color, marker=marker, capsize=2, linewidth=1.5, label=label)
    axes.axhline(0.0, color="0.8", linewidth=1, zorder=0)
    axes.set_xticks(counts)
    axes.set_xlabel("earlier occurrences of the motif whose outcome is known")
    axes.set_ylabel("R² of what follows")
    axes.set_title(f"Motifs that training has not seen, weights frozen; seeds: {len(studies)}")
    axes.set_ylim(bottom=min(-0.3, axes.get_ylim()[0] - 0.1))
    axes.legend(frameon=False, loc="lower right", ncols=2)
    _save(figure, folder / "motif_gain.png")


def plot_gate(studies: Sequence[MotifStudy], folder: Path = IMAGES) -> None:
    """Mean gate against the bars since a motif's last one, ``motif_gate.png``."""
    figure = Figure(figsize=(7.5, 4.5), dpi=120, layout="constrained")
    axes = _axes(figure.subplots())
    since = np.concatenate([study.since_motif for study in studies])
    matured = np.concatenate([study.bar_matured for study in studies])
    gate = np.concatenate([study.bar_gate for study in studies])
    groups = (
        ("first time", matured == 0, _SHUT),
        ("after 1", matured == 1, _SHUFFLED),
        ("after 2 and more", matured >= 2, _MODEL),
    )
    first, last = int(since.min()), int(np.percentile(since, 99))
    bars = np.arange(first, last + 1)
    axes.axvspan(first - 0.5, 0.5, color="0.95", zorder=0, label="the motif")
    for label, among, color in groups:
        means = [float(gate[among & (since == bar)].mean()) for bar in bars]
        axes.plot(bars, means, color=color, marker="o", markersize=4, label=label)
    axes.set_ylim(0.0, 1.0)
    axes.set_xticks(bars[::2])
    axes.set_xlabel("bars since the last bar of a motif, where its consequence is asked for")
    axes.set_ylabel("gate: share of the memory")
    axes.set_title("When the gate opens, by how often the motif was seen before")
    axes.legend(frameon=False, loc="upper right")
    _save(figure, folder / "motif_gate.png")


def _explained(studies: Sequence[MotifStudy], of: Callable[[MotifStudy], Floats], count: int) -> tuple[float, float]:
    """Share explained over all seeds where so many occurrences had matured, and its standard error (delta method)."""
    outcome = np.concatenate([study.outcome[study.matured == count] for study in studies])
    forecast = np.concatenate([of(study)[study.matured == count] for study in studies])
    total, lost = np.square(outcome), np.square(outcome - forecast)
    ratio = float(lost.mean() / total.mean())
    error = float((lost - ratio * total).std(ddof=1) / (total.mean() * np.sqrt(len(total))))
    return 1.0 - ratio, error


def _axes(axes: Any) -> Any:
    axes.grid(True, which="major", color="0.92")
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # No date and no version in the file: the same figures give the same bytes.
    figure.savefig(path, metadata={"Software": None})
