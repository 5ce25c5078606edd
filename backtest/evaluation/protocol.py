"""The protocol: every forecaster on the same rows of every fold, by the same metrics, and all of them compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from backtest.evaluation import metrics
from backtest.evaluation.conformal import calibration_fold, conformal, starting_calibration
from backtest.evaluation.controls import LEAK, Remembering, controls, recall
from backtest.evaluation.folds import Fold
from backtest.evaluation.forecasts import Forecasts, joined
from backtest.evaluation.panel import Panel
from backtest.evaluation.scores import Cell, Scores, score
from backtest.evaluation.skill import SkillTest, clark_west, diebold_mariano
from backtest.evaluation.trading import TradingResult, trade
from strategies.memory_transformer.dataset import Floats, Integers
from strategies.readout import QUANTILES

ALL: Final = "all"
"""Name of the cell of all symbols, and of the fold of all folds."""
SUSPICIOUS_Z: Final = 5.0
"""An information coefficient this many errors from zero is a leak until proven otherwise."""

Forecaster = Callable[[Panel, Fold], Forecasts]
MemoryMaker = Callable[[Panel, Fold], Remembering]
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True)
class Result:
    """One forecaster on one cell."""

    forecaster: str
    symbol: str
    """``all`` where the rows of all symbols are scored together."""
    fold: str
    scores: Scores
    trading: TradingResult | None
    """Of single symbols."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two forecasters on all symbols."""

    forecaster: str
    rival: str
    fold: str
    test: str
    """``clark_west`` where the rival is nested in the forecaster, else ``diebold_mariano``."""
    what: str
    """``volatility`` or ``return`` (squared errors), or ``crps``."""
    outcome: SkillTest
    """Positive where the forecaster is better than its rival."""


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """All that came of a protocol."""

    symbols: tuple[str, ...]
    interval: str
    horizon: int
    folds: tuple[Fold, ...]
    results: tuple[Result, ...]
    comparisons: tuple[Comparison, ...]
    answers: Mapping[str, Forecasts]
    """Of every forecaster, over all folds."""
    panel: Panel


def evaluate(
    panel: Panel,
    folds: Sequence[Fold],
    forecasters: Mapping[str, Forecaster],
    memories: Mapping[str, MemoryMaker],
    *,
    nested: Sequence[tuple[str, str]] = (),
    rivals: Sequence[str] = (),
    fee: float,
    seed: int = 0,
    with_controls: bool = True,
    progress: Progress | None = None,
) -> Evaluation:
    """Run the protocol.

    Args:
        panel: all rows.
        folds: from ``walk_forward``.
        forecasters: by name.
        memories: by name; each is a forecaster itself, its calibrated twin is ``NAME conformal``, and its controls are
            ``NAME: CONTROL``.
        nested: pairs (larger, smaller) to compare by Clark and West.
        rivals: forecasters that all others but controls are compared with by Diebold and Mariano.
        fee: of a trade as a share of its value.
        seed: of resamples and controls.
        with_controls: whether memories are asked about what they lack.
        progress: told of every step: how many are done, of how many, and which.
    """
    tell = progress or _tell_nobody
    parts = _answers(panel, folds, forecasters, memories, seed if with_controls else None, tell)
    answers = {name: joined(given) for name, given in parts.items()}
    results, comparisons = [], []
    cells = _cells(panel, folds, seed)
    for number, cell in enumerate(cells):
        tell(number, len(cells), f"scoring {cell.symbol} {cell.fold}")
        taken = {name: _on(given, cell.rows) for name, given in answers.items()}
        for name, given in taken.items():
            scores = score(panel, cell, given, intervals=":" not in name)
            single = cell.symbol != ALL and cell.fold != ALL
            results.append(Result(name, cell.symbol, cell.fold, scores, trade(panel, given, fee) if single else None))
        if cell.symbol == ALL or len(panel.symbols) == 1:
            comparisons += _comparisons(panel, cell, taken, nested, rivals)
    tell(len(cells), len(cells), "")
    symbols, interval = panel.symbols, panel.interval
    return Evaluation(
        symbols, interval, panel.horizon, tuple(folds), tuple(results), tuple(comparisons), answers, panel
    )


def suspicions(evaluation: Evaluation) -> list[str]:
    """One sentence for every forecaster that knows a direction too well to be true; controls are not asked."""
    found = []
    for result in evaluation.results:
        z = result.scores.skill.statistic
        if ":" not in result.forecaster and result.symbol == ALL and z > SUSPICIOUS_Z:
            found.append(
                f"{result.forecaster} has an information coefficient of {result.scores.skill.estimate:+.3f} in "
                f"{result.fold}, {z:.1f} standard errors above nothing: look for a leak before you believe it"
            )
    return found


def leak_sizes(evaluation: Evaluation) -> dict[str, tuple[float, float]]:
    """For every memory the information coefficient with maturity switched off, less the honest one, and its z-score.

    Over all folds and symbols; the z-score is that of the dishonest coefficient.
    """
    skills = {
        result.forecaster: result.scores.skill
        for result in evaluation.results
        if result.fold == ALL and (result.symbol == ALL or len(evaluation.symbols) == 1)
    }
    sizes = {}
    for name, skill in skills.items():
        memory, _, control = name.partition(": ")
        if control == LEAK:
            sizes[memory] = (skill.estimate - skills[memory].estimate, skill.statistic)
    return sizes


def _answers(
    panel: Panel,
    folds: Sequence[Fold],
    forecasters: Mapping[str, Forecaster],
    memories: Mapping[str, MemoryMaker],
    seed: int | None,
    tell: Progress,
) -> dict[str, list[Forecasts]]:
    """Answers of every forecaster, memory and control, fold by fold, in the order of the report.

    Without a seed there are no controls.
    """
    parts: dict[str, list[Forecasts]] = {}
    steps = len(folds) * (len(forecasters) + len(memories))
    done = 0
    for fold in folds:
        for name, forecaster in forecasters.items():
            tell(done, steps, f"{name}, {fold.name}")
            parts.setdefault(name, []).append(forecaster(panel, fold))
            done += 1
        for name, make in memories.items():
            tell(done, steps, f"{name}, {fold.name}")
            memory = make(panel, fold)
            recalled = recall(panel, fold, memory)
            raw = memory.reader(fold.test, recalled)
            parts.setdefault(name, []).append(raw)
            tail = calibration_fold(fold)
            start = starting_calibration(panel, memory.reader(tail.test, recall(panel, tail, memory)))
            parts.setdefault(f"{name} conformal", []).append(conformal(panel, raw, start))
            for control in () if seed is None else controls(panel, fold, memory, recalled, seed):
                tell(done, steps, f"{name}: {control.name}, {fold.name}")
                parts.setdefault(f"{name}: {control.name}", []).append(memory.reader(fold.test, control.recalled))
            done += 1
    return parts


def _cells(panel: Panel, folds: Sequence[Fold], seed: int) -> list[Cell]:
    """Every symbol in every fold, all symbols in every fold, and all of both."""
    cells = []
    tested = np.concatenate([fold.test for fold in folds])
    for name, rows in [*((fold.name, fold.test) for fold in folds), (ALL, tested)]:
        for number, symbol in enumerate(panel.symbols):
            own = rows[panel.symbol[rows] == number]
            if len(own) > 1:
                cells.append(Cell.of(panel, symbol, name, own, seed))
        if len(panel.symbols) > 1:
            cells.append(Cell.of(panel, ALL, name, rows, seed))
    return cells


def _on(answers: Forecasts, rows: Integers) -> Forecasts:
    return answers.take(np.searchsorted(answers.rows, rows))


def _comparisons(
    panel: Panel,
    cell: Cell,
    answers: Mapping[str, Forecasts],
    nested: Sequence[tuple[str, str]],
    rivals: Sequence[str],
) -> list[Comparison]:
    found = []
    came, volatility = panel.log_return[cell.rows], panel.log_volatility[cell.rows]
    for larger, smaller in nested:
        if larger in answers and smaller in answers:
            one, other = answers[larger], answers[smaller]
            for what, outcome, f1, f0 in (
                ("volatility", volatility, one.log_volatility, other.log_volatility),
                ("return", came, one.mean, other.mean),
            ):
                if _answered(f1, f0):
                    test = clark_west(outcome, f0, f1, cell.lag)
                    found.append(Comparison(larger, smaller, cell.fold, "clark_west", what, test))
    losses = {name: _losses(given, came, volatility) for name, given in answers.items() if ":" not in name}
    for name, own in losses.items():
        for rival in rivals:
            if rival == name or rival not in losses:
                continue
            for what, each in own.items():
                if (name, rival) in nested and what != "crps":
                    continue
                if _answered(each, losses[rival][what]):
                    test = diebold_mariano(each, losses[rival][what], cell.horizon, cell.lag)
                    found.append(Comparison(name, rival, cell.fold, "diebold_mariano", what, test))
    return found


def _losses(given: Forecasts, came: Floats, volatility: Floats) -> dict[str, Floats]:
    return {
        "volatility": (volatility - given.log_volatility) ** 2,
        "return": (came - given.mean) ** 2,
        "crps": metrics.crps_losses(given.quantiles, QUANTILES, came),
    }


def _answered(*columns: Floats) -> bool:
    return all(bool(np.isfinite(column).all()) for column in columns)


def _tell_nobody(done: int, total: int, note: str) -> None:
    """Nothing."""
