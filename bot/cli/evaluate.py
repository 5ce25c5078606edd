"""``recall evaluate``: what forecasts and their memory are worth, out of sample."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bot.assembly import home_of
from bot.cli.common import (
    Context,
    chosen_market,
    chosen_span,
    market_options,
    standard_options,
    stored_calendars,
    with_choices,
)
from bot.cli.help import ExampleCommand
from bot.cli.terminal import console, output, progress_bar
from bot.config import Config
from bot.errors import UsageError
from strategies.bars import BarSeries

if TYPE_CHECKING:
    from strategies.memory_transformer.config import ModelConfig


@click.command(
    cls=ExampleCommand,
    examples=(
        "recall evaluate --symbols BTCUSDT --interval 60 --train-end 2024-01-01 --end 2026-01-01 --only baselines",
        "recall evaluate --symbols BTCUSDT,ETHUSDT --interval 60 --train-end 2024-01-01 --folds quarterly --json",
    ),
)
@market_options
@click.option("--start", help="First bar to learn from: 2021-01-01 (UTC) [default: the first stored].")
@click.option("--train-end", required=True, help="Where learning ends and the first forecast may be: 2024-01-01 (UTC).")
@click.option("--end", help="End of the forecasts, exclusive: 2026-01-01 (UTC) [default: the last stored].")
@click.option(
    "--folds",
    "fold_length",
    type=click.Choice(["yearly", "quarterly", "one"]),
    default="yearly",
    show_default=True,
    help="How often is learned anew.",
)
@click.option("--memory-size", type=int, help="Capacity of the memory [default: config].")
@click.option("--only", type=click.Choice(["baselines"]), help="Leave the model out.")
@click.option("--controls/--no-controls", default=True, help="Ask memories that lack something, and the leak.")
@click.option("--plots", type=click.Path(path_type=Path), help="Folder for PNG files [default: none are drawn].")
@standard_options
def evaluate(
    context: Context,
    symbols: str | None,
    interval: str | None,
    start: str | None,
    train_end: str,
    end: str | None,
    fold_length: str,
    memory_size: int | None,
    only: str | None,
    controls: bool,
    plots: Path | None,
) -> None:
    """Compare forecasts with baselines and controls, walking forward.

    At every boundary all learn from what was known then, forecast what follows, and are scored on the same bars, with
    intervals and tests that allow for outcomes that overlap.
    """
    _require_extra()
    config = with_choices(context, memory_size=memory_size)
    names, code = chosen_market(config, symbols, interval)
    boundary, last = chosen_span(train_end, end)
    first, _ = chosen_span(start, train_end)
    assert boundary is not None
    home = home_of(config)
    stored_calendars(home.candles, names, code)
    series = {name: home.candles.load(name, code, start=first, end=last) for name in names}
    for name, bars in series.items():
        if not len(bars):
            raise UsageError(f"{name} has no stored candles of interval {code} in that span; see recall data list")
    stop = last if last is not None else max(int(bars.close_time[-1]) for bars in series.values())
    if stop <= boundary:
        raise UsageError(f"--train-end {train_end} is not before the last stored candle; fetch later candles")
    _evaluate(context, config, series, (boundary, stop), fold_length, controls=controls, plots=plots)


def _evaluate(
    context: Context,
    config: Config,
    series: dict[str, BarSeries],
    span: tuple[int, int],
    fold_length: str,
    *,
    controls: bool,
    plots: Path | None,
) -> None:
    # Imported here because they load torch and scikit-learn.
    from backtest.evaluation.baselines import BASELINES, plain_memory
    from backtest.evaluation.folds import FoldLength, walk_forward
    from backtest.evaluation.panel import build_panel
    from backtest.evaluation.plots import plot_evaluation
    from backtest.evaluation.protocol import evaluate as run
    from backtest.evaluation.report import print_evaluation, to_json

    with console.status("features and outcomes ..."):
        panel = build_panel(series, _shape(config))
    folds = walk_forward(panel, *span, FoldLength(fold_length))
    baselines = {name: forecaster for name, forecaster in BASELINES.items() if name != "knn"}
    with progress_bar("evaluating", None, unit="steps") as update:
        evaluation = run(
            panel,
            folds,
            baselines,
            {"knn": plain_memory},
            rivals=("flat", "har", "ridge"),
            fee=float(config.costs.taker_fee),
            seed=config.training.seed,
            with_controls=controls,
            progress=lambda done, total, note: update(done, total, note),
        )
    files = plot_evaluation(plots, evaluation) if plots is not None else []
    if context.as_json:
        context.answer(to_json(evaluation) | {"plots": [str(file) for file in files]})
        return
    print_evaluation(output, evaluation)
    for file in files:
        output.print(str(file), soft_wrap=True)


def _shape(config: Config) -> ModelConfig:
    """Horizons, embargo, memory and warm-up of the configured model."""
    from strategies.features import FEATURE_NAMES
    from strategies.memory_transformer.config import ModelConfig

    return ModelConfig(
        n_features=len(FEATURE_NAMES),
        **config.model.model_dump(include={"d_model", "n_heads", "n_layers", "attention_window"}),
        memory_size=config.memory.memory_size,
        n_neighbors=config.memory.n_neighbors,
        horizons=config.memory.horizons,
        primary=config.primary_index,
        embargo=config.memory.embargo,
    )


def _require_extra() -> None:
    """Refuse in one sentence where the libraries are missing."""
    for module in ("sklearn", "arch", "scipy"):
        try:
            __import__(module)
        except ImportError:
            raise UsageError(
                f"recall evaluate needs {module}, which is not installed; pip install 'recall-bot[evaluate]'"
            ) from None
