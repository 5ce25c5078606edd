"""The picture of what whitening is worth and what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from matplotlib.figure import Figure

if TYPE_CHECKING:
    from benchmarks.whitening import Cost

PICTURE: Final = Path(__file__).resolve().parents[1] / "docs" / "images" / "memory_whitening.png"
_WORTH: Final = "#762a83"
_EXACT: Final = "#2166ac"
_APPROXIMATE: Final = "#1b7837"


def plot_whitening(
    shrinkages: Sequence[float],
    candidates: Sequence[Mapping[str, Any]],
    costs: Sequence[Cost],
    chosen: float,
    path: Path = PICTURE,
) -> None:
    """Three panels over the shrinkage: skill with its error, time of a query, recall of the approximate index."""
    figure = Figure(figsize=(13.0, 4.0), dpi=120, layout="constrained")
    worth, cost, found = figure.subplots(1, 3)
    for axes in (worth, cost, found):
        axes.set_xscale("log")
        axes.set_xticks(list(shrinkages), [f"{each:g}" for each in shrinkages])
        axes.minorticks_off()
        axes.set_xlabel("shrinkage (1: centred only)")
        axes.axvline(chosen, color="0.85", linewidth=8, zorder=0)
        axes.grid(True, which="major", color="0.92")
        axes.spines[["top", "right"]].set_visible(False)
    _worth(worth, candidates)
    cost.plot(shrinkages, [each.exact_ms for each in costs], color=_EXACT, marker="o", label="exact")
    cost.plot(shrinkages, [each.approximate_ms for each in costs], color=_APPROXIMATE, marker="^", label="approximate")
    cost.set_ylim(bottom=0)
    cost.set_title("What a query costs, 100,000 entries")
    cost.set_ylabel("milliseconds (median)")
    cost.legend(frameon=False, loc="lower left")
    recalls = [each.recall for each in costs]
    found.plot(shrinkages, recalls, color=_APPROXIMATE, marker="^")
    found.axhline(0.99, color="0.4", linestyle="--", linewidth=1)
    found.set_ylim(min(0.985, min(recalls) - 0.002), 1.0005)
    found.set_title("What the approximate index finds")
    found.set_ylabel("recall@32")
    path.parent.mkdir(parents=True, exist_ok=True)
    # No date and no version in the file: the same figures give the same bytes.
    figure.savefig(path, metadata={"Software": None})


def _worth(axes: Any, candidates: Sequence[Mapping[str, Any]]) -> None:
    axes.errorbar(
        [each["shrinkage"] for each in candidates],
        [each["skill"] for each in candidates],
        yerr=[each["standard_error"] for each in candidates],
        color=_WORTH,
        marker="o",
        capsize=3,
    )
    axes.set_title("What it is worth (grey: chosen)")
    axes.set_ylabel("skill on validation\n(bars: error of the distance to the best)")
