"""The memory's curves as pictures in ``docs/images``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure

IMAGES: Final = Path(__file__).resolve().parents[1] / "docs" / "images"
_STYLES: Final = {
    "naive": ("naive: flat index, rebuilt by every addition", "#b2182b", "s", 6),
    "exact": ("exact", "#2166ac", "o", 9),
    "approximate": ("approximate", "#1b7837", "^", 5),
}
"""Label, colour, marker and its size: where curves lie on each other both can be seen."""


def plot_queries(sizes: Sequence[int], seconds: Mapping[str, Sequence[float]], folder: Path = IMAGES) -> None:
    """Time of one query against size, ``memory_query.png``; seconds by contestant."""
    figure, axes = _growth(sizes, seconds, 1e3)
    axes.set_title("One query, k = 32, d = 64, one thread")
    axes.set_ylabel("milliseconds (median)")
    _save(figure, folder / "memory_query.png")


def plot_appends(sizes: Sequence[int], seconds: Mapping[str, Sequence[float]], folder: Path = IMAGES) -> None:
    """Time of one append against size, ``memory_append.png``; seconds by contestant."""
    figure, axes = _growth(sizes, seconds, 1e6)
    axes.set_title("One append, d = 64, one thread")
    axes.set_ylabel("microseconds (median)")
    _save(figure, folder / "memory_append.png")


def plot_churn(
    shares: Sequence[float], recalls: Sequence[float], seconds: Sequence[float], folder: Path = IMAGES
) -> None:
    """Recall and query time of the approximate index while the bank is replaced, ``memory_churn.png``."""
    figure, axes = _canvas()
    _, color, marker, _ = _STYLES["approximate"]
    percent = [100 * share for share in shares]
    axes.plot(percent, recalls, color=color, marker=marker, label="recall@32")
    axes.axhline(0.99, color="0.4", linestyle="--", linewidth=1, label="asked for: 0.99")
    axes.set_ylim(min(0.985, min(recalls) - 0.002), 1.0005)
    axes.set_xlabel("share of the bank replaced since it was full, %")
    axes.set_ylabel("recall@32 against the exact bank")
    axes.set_title("Approximate index at 262,144 entries while the ring turns")
    times = axes.twinx()
    times.plot(percent, [1e3 * each for each in seconds], color="0.55", marker=".", linestyle=":", label="one query")
    times.set_ylim(0, 2.5e3 * max(seconds))
    times.set_ylabel("milliseconds per query (median)")
    lines = [*axes.get_lines(), *times.get_lines()]
    axes.legend(lines, [str(line.get_label()) for line in lines], frameon=False, loc="lower left")
    _save(figure, folder / "memory_churn.png")


def _growth(sizes: Sequence[int], seconds: Mapping[str, Sequence[float]], unit: float) -> tuple[Figure, Any]:
    figure, axes = _canvas()
    labelled: list[float] = []
    for name, (label, color, marker, size) in _STYLES.items():
        values = [unit * each for each in seconds[name]]
        axes.loglog(sizes, values, color=color, marker=marker, markersize=size, label=label)
        if any(abs(values[-1] / other - 1.0) < 0.1 for other in labelled):
            continue  # two labels on one another can be read by nobody
        labelled.append(values[-1])
        last = f"{values[-1]:,.0f}" if values[-1] >= 100.0 else f"{values[-1]:.3g}"
        axes.annotate(last, (sizes[-1], values[-1]), xytext=(6, -3), textcoords="offset points", color=color)
    axes.set_xlabel("entries held")
    axes.set_xticks(list(sizes), [f"{size:,}" for size in sizes])
    axes.minorticks_off()
    axes.margins(x=0.12)
    axes.yaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.legend(frameon=False)
    return figure, axes


def _canvas() -> tuple[Figure, Any]:
    figure = Figure(figsize=(7.5, 4.5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    axes.grid(True, which="major", color="0.9")
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # No date and no version in the file: the same curves give the same bytes.
    figure.savefig(path, metadata={"Software": None})
