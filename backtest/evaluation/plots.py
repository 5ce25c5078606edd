"""Pictures of an evaluation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from backtest.evaluation import metrics
from backtest.evaluation.forecasts import Forecasts
from backtest.evaluation.protocol import ALL, Evaluation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

_COLOURS: Final = (
    "#1f5fa8", "#c0392b", "#1e8e5a", "#b7791f", "#6b46c1", "#66737f",
    "#0e7490", "#d9468c", "#84a90b", "#7c4a1e", "#111827", "#9bb8e0",
)  # fmt: skip


def plot_evaluation(folder: Path, evaluation: Evaluation) -> list[Path]:
    """Draw what there is to draw into PNG files of ``folder``, which is made if needed; the files."""
    drawn: dict[str, Callable[[Axes, Evaluation], bool]] = {
        "reliability": _reliability,
        "coverage": _coverage,
        "memory_size": _memory_size,
        "risk_coverage": _risk_coverage,
    }
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for name, draw in drawn.items():
        figure = Figure(figsize=(9.0, 4.6), dpi=150, facecolor="white", layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        if not draw(axes, evaluation):
            continue
        axes.grid(visible=True, color="#dfe4e8", linewidth=0.7)
        axes.set_axisbelow(True)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        files.append(folder / f"{name}.png")
        figure.savefig(files[-1], format="png", metadata={"Software": None})
    return files


def _named(evaluation: Evaluation, answered: Callable[[Forecasts], bool]) -> list[tuple[str, Forecasts, str]]:
    """Forecasters, not controls, that answered what is drawn, with colours."""
    names = [name for name, given in evaluation.answers.items() if ":" not in name and answered(given)]
    return [(name, evaluation.answers[name], _COLOURS[place % len(_COLOURS)]) for place, name in enumerate(names)]


def add_legend(axes: Axes) -> None:
    """Beside the chart, as a dozen names hide lines; those whose lines lie on each other share an entry, of the colour of the
    last, which covers the others."""
    shared: dict[bytes, list[Line2D]] = {}
    for line in axes.get_lines():
        if not str(line.get_label()).startswith("_"):
            drawn = np.round(np.asarray(line.get_xydata(), dtype=np.float64), 3).tobytes()
            shared.setdefault(drawn, []).append(line)
    axes.legend(
        [lines[-1] for lines in shared.values()],
        ["\n".join(str(line.get_label()) for line in lines) for lines in shared.values()],
        loc="center left",
        bbox_to_anchor=(1.01, 0.5),
        frameon=False,
        fontsize=8,
    )


def _reliability(axes: Axes, evaluation: Evaluation) -> bool:
    shown = _named(evaluation, lambda given: bool(np.isfinite(given.probability_up).all()))
    axes.plot([0.0, 1.0], [0.0, 1.0], color="#66737f", linewidth=0.8, linestyle="--")
    for name, given, colour in shown:
        table = metrics.reliability(given.probability_up, evaluation.panel.log_return[given.rows])
        large = table.count >= max(1, len(given.rows) // 200)
        axes.plot(table.probability[large], table.frequency[large], "o-", color=colour, label=name, markersize=4)
    axes.set(xlabel="probability of a rise", ylabel="share that rose", title="Reliability")
    if shown:
        add_legend(axes)
    return bool(shown)


def _coverage(axes: Axes, evaluation: Evaluation) -> bool:
    whole = ALL if len(evaluation.symbols) > 1 else evaluation.symbols[0]
    folds = [fold.name for fold in evaluation.folds]
    values: dict[str, list[float]] = {}
    for result in evaluation.results:
        value = result.scores.figures["coverage_80"].value
        if result.symbol == whole and result.fold in folds and ":" not in result.forecaster and value is not None:
            values.setdefault(result.forecaster, []).append(value)
    for place, (name, covered) in enumerate(values.items()):
        axes.plot(
            [fold[:10] for fold in folds],
            covered,
            "o-",
            color=_COLOURS[place % len(_COLOURS)],
            label=name,
            markersize=4,
        )
    axes.axhspan(0.78, 0.82, color="#1e8e5a", alpha=0.12)
    axes.axhline(0.8, color="#66737f", linewidth=0.8, linestyle="--")
    axes.set(xlabel="fold from", ylabel="share of outcomes inside", title="Coverage of the 80 % interval")
    if values:
        add_legend(axes)
    return bool(values)


def _memory_size(axes: Axes, evaluation: Evaluation) -> bool:
    whole = ALL if len(evaluation.symbols) > 1 else evaluation.symbols[0]
    ladders: dict[str, list[tuple[int, float]]] = {}
    for result in evaluation.results:
        value = result.scores.figures["volatility_r2"].value
        if result.fold != ALL or result.symbol != whole or value is None:
            continue
        memory, _, control = result.forecaster.partition(": ")
        size = control.removeprefix("memory ").replace(",", "")
        if control.startswith("memory ") and size.isdigit():
            ladders.setdefault(memory, []).append((int(size), value))
        elif not control and any(name.startswith(f"{memory}: ") for name in evaluation.answers):
            ladders.setdefault(memory, []).append((evaluation.panel.rule.capacity, value))
    for place, (memory, points) in enumerate(ladders.items()):
        points.sort()
        axes.plot(*zip(*points, strict=True), "o-", color=_COLOURS[place], label=memory, markersize=4)
    axes.set_xscale("symlog", linthresh=100)
    axes.set(xlabel="moments in memory", ylabel="R² of log volatility", title="Gain against the size of the memory")
    if ladders:
        add_legend(axes)
    return bool(ladders)


def _risk_coverage(axes: Axes, evaluation: Evaluation) -> bool:
    shown = _named(
        evaluation, lambda given: bool(np.isfinite(given.uncertainty).all() and np.isfinite(given.mean).all())
    )
    for name, given, colour in shown:
        losses = np.abs(evaluation.panel.log_return[given.rows] - given.mean)
        axes.plot(*metrics.risk_coverage_curve(losses, given.uncertainty), color=colour, label=name)
    axes.set(
        xlabel="share of forecasts kept, most certain first", ylabel="mean absolute error", title="Risk and coverage"
    )
    if shown:
        add_legend(axes)
    return bool(shown)
