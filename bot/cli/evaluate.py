"""``recall evaluate``: what forecasts and their memory are worth, out of sample."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from bot.assembly import Home, find_model, home_of
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
from bot.lifecycle.training import model_config, training_config
from strategies.bars import DAY_MS, BarSeries, format_time

if TYPE_CHECKING:
    from backtest.evaluation.folds import Fold
    from backtest.evaluation.model import ModelSource
    from strategies.memory_transformer.config import ModelConfig

_TRAIN: Final = "train"
_LAST_YEAR: Final = 365 * DAY_MS
_MODULES: Final = ("sklearn", "arch", "scipy")
"""What the extra brings."""


@click.command(
    cls=ExampleCommand,
    examples=(
        "recall evaluate --symbols BTCUSDT --interval 60 --train-end 2024-01-01 --end 2026-01-01 --only baselines",
        "recall evaluate --symbols BTCUSDT,ETHUSDT --interval 60 --train-end 2024-01-01 --folds quarterly --json",
        "recall evaluate --symbols BTCUSDT --interval 60 --train-end 2024-01-01 --model latest --plots plots",
    ),
)
@market_options
@click.option("--start", help="First bar to learn from: 2021-01-01 (UTC) [default: the first stored].")
@click.option(
    "--train-end", help="Where learning ends and forecasts begin: 2024-01-01 (UTC) [default: a year before the end]."
)
@click.option("--end", help="End of the forecasts, exclusive: 2026-01-01 (UTC) [default: the last stored].")
@click.option(
    "--folds",
    "fold_length",
    type=click.Choice(["yearly", "quarterly", "one"]),
    default="yearly",
    show_default=True,
    help="How often is learned anew.",
)
@click.option(
    "--model", "model_id", default=_TRAIN, show_default=True, help="train one at every boundary, latest, or a model id."
)
@click.option("--only", type=click.Choice(["baselines"]), help="Leave the model out.")
@click.option("--memory-size", type=int, help="Capacity of the memory [default: config].")
@click.option("--controls/--no-controls", default=True, help="Ask memories that lack something, and the leak.")
@click.option("--plots", type=click.Path(path_type=Path), help="Folder for PNG files [default: none are drawn].")
@click.option("--threads", type=click.IntRange(min=1), help="Threads of training [default: all cores].")
@standard_options
def evaluate(
    context: Context,
    symbols: str | None,
    interval: str | None,
    start: str | None,
    train_end: str | None,
    end: str | None,
    fold_length: str,
    model_id: str,
    only: str | None,
    memory_size: int | None,
    controls: bool,
    plots: Path | None,
    threads: int | None,
) -> None:
    """Compare forecasts with baselines and controls, walking forward.

    At every boundary all learn from what was known then, forecast what follows, and are scored on the same bars, with
    intervals and tests that allow for outcomes that overlap.
    """
    _require_extra()
    config = with_choices(context, memory_size=memory_size)
    names, code = chosen_market(config, symbols, interval)
    given, last = chosen_span(train_end, end)
    first, _ = chosen_span(start, train_end)
    home = home_of(config)
    stored_calendars(home.candles, names, code)
    series = {name: home.candles.load(name, code, start=first, end=last) for name in names}
    for name, bars in series.items():
        if not len(bars):
            raise UsageError(f"{name} has no stored candles of interval {code} in that span; see recall data list")
    stop = last if last is not None else max(int(bars.close_time[-1]) for bars in series.values())
    boundary = stop - _LAST_YEAR if given is None else given
    if stop <= boundary:
        raise UsageError(f"--train-end {train_end} is not before the last stored candle; fetch later candles")
    shape = model_config(config)
    sources: dict[str, ModelSource] = {}
    if only is None and model_id == _TRAIN:
        count = threads or os.cpu_count() or 1
        sources["model"] = _trained(config, shape, series, count)
        # A memory of one moment never has a visible one: the same net and parameters, and nothing to remember.
        sources["model retrained without memory"] = _trained(config, replace(shape, memory_size=1), series, count)
    elif only is None:
        sources["model"], shape = _stored(home, model_id, code, boundary, shape)
    _run(context, config, shape, series, sources, (boundary, stop), fold_length, controls=controls, plots=plots)


def _run(
    context: Context,
    config: Config,
    shape: ModelConfig,
    series: dict[str, BarSeries],
    sources: dict[str, ModelSource],
    span: tuple[int, int],
    fold_length: str,
    *,
    controls: bool,
    plots: Path | None,
) -> None:
    # Imported here because they load torch and scikit-learn.
    from backtest.evaluation.baselines import BASELINES, plain_memory
    from backtest.evaluation.folds import FoldLength, walk_forward
    from backtest.evaluation.model import ModelForecasters
    from backtest.evaluation.panel import build_panel
    from backtest.evaluation.plots import plot_evaluation
    from backtest.evaluation.protocol import evaluate as run
    from backtest.evaluation.report import print_evaluation, to_json

    with console.status("features and outcomes ..."):
        panel = build_panel(series, shape)
    folds = walk_forward(panel, *span, FoldLength(fold_length))
    models = {name: ModelForecasters(panel, series, source) for name, source in sources.items()}
    forecasters = {name: forecaster for name, forecaster in BASELINES.items() if name != "knn"}
    memories = {"knn": plain_memory}
    if "model" in models:
        memories["model"] = models["model"].memory
        forecasters["model without memory"] = models["model"].without_memory
    if "model retrained without memory" in models:
        forecasters["model retrained without memory"] = models["model retrained without memory"].without_memory
    with progress_bar("evaluating", None, unit="steps") as update:
        evaluation = run(
            panel,
            folds,
            forecasters,
            memories,
            nested=[("model", name) for name in forecasters if name.startswith("model ")],
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


def _trained(config: Config, shape: ModelConfig, series: dict[str, BarSeries], threads: int) -> ModelSource:
    """A model trained at every boundary on the bars before it."""
    from backtest.evaluation.model import Weights
    from strategies.memory_transformer.training import train

    plan = training_config(config, threads=threads)

    def at(fold: Fold) -> Weights:
        known = {name: bars.span(None, fold.boundary) for name, bars in series.items()}
        trained = train({name: bars for name, bars in known.items() if len(bars)}, shape, plan)
        return Weights(trained.model, trained.scaler)

    return at


def _stored(
    home: Home, model_id: str, interval: str, boundary: int, shape: ModelConfig
) -> tuple[ModelSource, ModelConfig]:
    """A model that is there already, in every fold, and the shape of what it is asked about.

    Raises:
        UsageError: there is none, or it has seen what it is to forecast.
    """
    from backtest.evaluation.model import Weights
    from strategies.memory_transformer.bundle import load_bundle

    path = find_model(home.models, model_id, interval)
    if path is None:
        raise UsageError(f"there is no model of interval {interval} yet; run recall train, or leave --model out")
    bundle = load_bundle(path, interval=interval)
    if bundle.training_span[1] > boundary:
        raise UsageError(
            f"model {bundle.model_id} was trained on bars up to {format_time(bundle.training_span[1])}, after --train-end "
            f"{format_time(boundary)}; choose a later --train-end, or train one with recall train --end"
        )
    weights = Weights(bundle.model, bundle.scaler)
    return lambda fold: weights, replace(bundle.config, memory_size=shape.memory_size)


def _require_extra() -> None:
    """Refuse in one sentence where the libraries are missing."""
    for module in _MODULES:
        try:
            __import__(module)
        except ImportError:
            raise UsageError(
                f"recall evaluate needs {module}, which is not installed; pip install 'recall-bot[evaluate]'"
            ) from None
