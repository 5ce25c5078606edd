"""What a person reads of an evaluation, and its JSON form."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

import numpy as np
from rich.console import Console
from rich.table import Table

from backtest.evaluation.intervals import Figure
from backtest.evaluation.protocol import ALL, Comparison, Evaluation, Result, leak_sizes, suspicions
from backtest.evaluation.skill import SkillTest

_SHOWN: Final = (
    ("volatility_r2", "vol R²", "+.3f"),
    ("qlike", "QLIKE", ".3f"),
    ("crps", "CRPS, %", ".3f"),
    ("coverage_80", "80 % band", ".3f"),
    ("return_r2", "return R²", "+.4f"),
    ("brier", "Brier", ".4f"),
    ("log_score", "log score", ".4f"),
    ("calibration_error", "ECE", ".3f"),
    ("risk_coverage", "AURC, %", ".3f"),
)
_PERCENT: Final = ("crps", "risk_coverage")


def mean_over_cells(evaluation: Evaluation, forecaster: str, figure: str) -> float | None:
    """Mean of a figure over all symbols and folds, each counted once; ``None`` where a cell has none."""
    values = [
        result.scores.figures[figure].value
        for result in evaluation.results
        if result.forecaster == forecaster and result.symbol != ALL and result.fold != ALL
    ]
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known and len(known) == len(values) else None


def goals(evaluation: Evaluation, forecaster: str) -> dict[str, float | None]:
    """The figures that a forecaster is held to, by their names in ``benchmarks/latest.json``.

    Volatility is the mean over all symbols and folds; coverage is that of all symbols together, its least and its
    largest fold.
    """
    own, har, ridge = (mean_over_cells(evaluation, name, "volatility_r2") for name in (forecaster, "har", "ridge"))
    covered = [
        result.scores.figures["coverage_80"].value
        for result in evaluation.results
        if result.forecaster == forecaster and result.fold != ALL and result.symbol == _whole(evaluation)
    ]
    known = [value for value in covered if value is not None]
    return {
        "vol_r2_minus_har": None if own is None or har is None else own - har,
        "vol_r2_minus_ridge": None if own is None or ridge is None else own - ridge,
        "coverage_80_min": min(known) if known else None,
        "coverage_80_max": max(known) if known else None,
    }


def to_json(evaluation: Evaluation) -> dict[str, Any]:
    """Everything but the answers themselves."""
    names = list(evaluation.answers)
    return {
        "symbols": list(evaluation.symbols),
        "interval": evaluation.interval,
        "horizon": evaluation.horizon,
        "folds": [
            {
                "name": fold.name,
                "boundary": fold.boundary,
                "end": fold.end,
                "train": len(fold.train),
                "test": len(fold.test),
            }
            for fold in evaluation.folds
        ],
        "results": [asdict(result) for result in evaluation.results],
        "comparisons": [asdict(comparison) for comparison in evaluation.comparisons],
        "goals": {name: goals(evaluation, name) for name in names if ":" not in name},
        "leaks": {
            name: {"information_coefficient": size, "z": z} for name, (size, z) in leak_sizes(evaluation).items()
        },
        "suspicions": suspicions(evaluation),
    }


def print_evaluation(console: Console, evaluation: Evaluation) -> None:
    """All tables, and what they mean where it can be said in a sentence."""
    console.print(_volatility_table(evaluation))
    for fold in [*(fold.name for fold in evaluation.folds), ALL]:
        console.print(_metric_table(evaluation, fold))
    console.print(_trading_table(evaluation))
    if any(":" in name for name in evaluation.answers):
        console.print(_control_table(evaluation))
    console.print(_comparison_table(evaluation))
    for name, (size, z) in leak_sizes(evaluation).items():
        console.print(
            f"[bold red]LEAK[/] With maturity switched off {name} shows an information coefficient {size:+.3f} higher "
            f"({z:.1f} standard errors from nothing). Nobody could have known that; it is what a memory shows that "
            "attaches outcomes too early.",
            soft_wrap=True,
        )
    for sentence in suspicions(evaluation):
        console.print(f"[bold red]suspicious:[/] {sentence}", soft_wrap=True)


def _whole(evaluation: Evaluation) -> str:
    """Name of the cell of all symbols."""
    return ALL if len(evaluation.symbols) > 1 else evaluation.symbols[0]


def _results(evaluation: Evaluation, symbol: str, fold: str, *, of_controls: bool = False) -> list[Result]:
    return [
        result
        for result in evaluation.results
        if result.symbol == symbol and result.fold == fold and (":" in result.forecaster) == of_controls
    ]


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, header_style="bold", pad_edge=False)
    for place, column in enumerate(columns):
        table.add_column(column, justify="left" if place == 0 else "right", no_wrap=place == 0)
    return table


def _volatility_table(evaluation: Evaluation) -> Table:
    cells = [(symbol, fold.name) for fold in evaluation.folds for symbol in evaluation.symbols]
    columns = [f"{symbol.removesuffix('USDT')} {fold[:4]}" for symbol, fold in cells]
    table = _table(f"R² of log volatility over {evaluation.horizon} bars", "", *columns, "mean", "− HAR", "− ridge")
    values = {
        (result.forecaster, result.symbol, result.fold): result.scores.figures["volatility_r2"].value
        for result in evaluation.results
    }
    for name in evaluation.answers:
        mean = mean_over_cells(evaluation, name, "volatility_r2")
        if mean is None or ":" in name:
            continue
        own = goals(evaluation, name)
        table.add_row(
            name,
            *[_number(values.get((name, *cell)), "+.3f") for cell in cells],
            _number(mean, "+.3f"),
            _number(own["vol_r2_minus_har"], "+.3f"),
            _number(own["vol_r2_minus_ridge"], "+.3f"),
        )
    return table


def _metric_table(evaluation: Evaluation, fold: str) -> Table:
    columns = ["IC ± error", "z", *(heading for _, heading, _ in _SHOWN)]
    title = f"{_whole(evaluation)}, {fold if fold != ALL else 'all folds'}: figure, 95 % interval"
    table = _table(title, "", *columns)
    for result in _results(evaluation, _whole(evaluation), fold):
        figures = result.scores.figures
        table.add_row(
            result.forecaster,
            _with_error(result.scores.skill),
            _number(result.scores.skill.statistic, "+.1f"),
            *[_with_interval(figures[name], form, 100.0 if name in _PERCENT else 1.0) for name, _, form in _SHOWN],
        )
    return table


def _trading_table(evaluation: Evaluation) -> Table:
    table = _table(
        "Accounts that follow the views, by symbol and fold", "", "symbol", "fold", "gross", "net", "Sharpe", "drawdown",
        "turnover",
    )  # fmt: skip
    for result in evaluation.results:
        account = result.trading
        if account is None or ":" in result.forecaster or account.turnover == 0.0:
            continue
        table.add_row(
            result.forecaster,
            result.symbol,
            result.fold[:10],
            f"{account.gross_return:+.1%}",
            f"{account.net_return:+.1%}",
            _number(account.sharpe_ratio, "+.2f"),
            f"{account.max_drawdown:+.1%}",
            f"{account.turnover:,.0f}",
        )
    return table


def _control_table(evaluation: Evaluation) -> Table:
    table = _table(
        f"Controls, {_whole(evaluation)}, all folds", "", "IC ± error", "z", "vol R²", "CRPS, %", "80 % band"
    )
    memories = {name.partition(": ")[0] for name in evaluation.answers if ":" in name}
    for result in evaluation.results:
        memory = result.forecaster.partition(": ")[0]
        if result.fold != ALL or result.symbol != _whole(evaluation) or memory not in memories:
            continue
        figures = result.scores.figures
        crps = figures["crps"].value
        table.add_row(
            result.forecaster,
            _with_error(result.scores.skill),
            _number(result.scores.skill.statistic, "+.1f"),
            _number(figures["volatility_r2"].value, "+.3f"),
            _number(None if crps is None else 100.0 * crps, ".4f"),
            _number(figures["coverage_80"].value, ".3f"),
        )
    return table


def _comparison_table(evaluation: Evaluation) -> Table:
    table = _table("Comparisons over all folds: z above 0 is for the first", "", "against", "of", "test", "z", "p")
    for comparison in evaluation.comparisons:
        if comparison.fold == ALL:
            table.add_row(*_compared(comparison))
    return table


def _compared(comparison: Comparison) -> tuple[str, ...]:
    outcome = comparison.outcome
    test = comparison.test.replace("_", " ")
    return (
        comparison.forecaster,
        comparison.rival,
        comparison.what,
        test,
        _number(outcome.statistic, "+.2f"),
        _number(outcome.p_value, ".3f"),
    )


def _with_interval(figure: Figure, form: str, unit: float) -> str:
    if figure.value is None:
        return "–"
    text = format(unit * figure.value, form)
    if figure.low is None or figure.high is None:
        return text
    return f"{text} [{format(unit * figure.low, form)}, {format(unit * figure.high, form)}]"


def _with_error(test: SkillTest) -> str:
    return "–" if np.isnan(test.estimate) else f"{test.estimate:+.3f} ± {test.standard_error:.3f}"


def _number(value: float | None, form: str) -> str:
    return "–" if value is None or np.isnan(value) else format(value, form)
