"""``recall train``: make models."""

from __future__ import annotations

import os
import time
from typing import Any, Final

import click

from bot.assembly import Home, find_model, home_of
from bot.cli.common import (
    Context,
    chosen_market,
    chosen_span,
    market_options,
    span_options,
    standard_options,
    stored_calendars,
    with_choices,
)
from bot.cli.help import ExampleCommand
from bot.cli.terminal import console, listing, progress_bar
from bot.config import Config
from bot.errors import UsageError
from bot.lifecycle.training import model_config, training_config
from strategies.bars import BarSeries

# A model good enough to begin with, in well under a minute.
_FIRST_MODEL_BARS: Final = 6_000
_FIRST_MODEL_EPOCHS: Final = 2


@click.command(
    cls=ExampleCommand,
    examples=(
        "recall train --symbols BTCUSDT --interval 60 --end 2024-01-01",
        "recall train --symbols BTCUSDT,ETHUSDT --interval 60 --epochs 5 --memory-size 50000",
        "recall train --symbols BTCUSDT --interval 60 --whitening 0.1",
    ),
)
@market_options
@span_options
@click.option("--epochs", type=click.IntRange(min=1), help="Passes over the span [default: config].")
@click.option("--memory-size", type=int, help="Capacity of the memory [default: config].")
@click.option(
    "--whitening",
    metavar="auto|SHRINKAGE",
    help="Strength of the keys' whitening: 0.001 (full) to 1 (centring only), or auto [default: config].",
)
@click.option("--threads", type=click.IntRange(min=1), help="Threads of torch [default: all cores].")
@standard_options
def train(
    context: Context,
    symbols: str | None,
    interval: str | None,
    start: str | None,
    end: str | None,
    epochs: int | None,
    memory_size: int | None,
    whitening: str | None,
    threads: int | None,
) -> None:
    """Train a memory transformer on stored candles and print its id.

    Only outcomes that are known before --end are learned from, so that a backtest may start at --end.
    """
    config = with_choices(context, memory_size=memory_size)
    if epochs is not None:
        config = config.changed({"training": {"epochs": epochs}}, "the command line")
    if whitening is not None:
        config = config.changed({"model": {"whitening": whitening}}, "the command line")
    names, code = chosen_market(config, symbols, interval)
    first, last = chosen_span(start, end)
    home = home_of(config)
    stored_calendars(home.candles, names, code)
    series = {name: home.candles.load(name, code, start=first, end=last) for name in names}
    for name, bars in series.items():
        if not len(bars):
            raise UsageError(f"{name} has no stored candles of interval {code} in that span; see recall data list")
    model_id, report, seconds = _train(config, home, series, threads or os.cpu_count() or 1)
    if context.as_json:
        context.answer({"model_id": model_id, "path": str(home.models / model_id), "seconds": seconds, **report})
        return
    _show_report(report, seconds)
    click.echo(model_id)


def train_first_model(config: Config, home: Home, symbols: tuple[str, ...], interval: str, now: int) -> None:
    """Train a small model on the newest stored bars, if there is none for this interval yet."""
    if find_model(home.models, config.model.id, interval) is not None:
        return
    console.print("There is no model yet: training a small first one (recall train makes better ones).")
    share = _FIRST_MODEL_BARS // len(symbols)
    series = {}
    for symbol in symbols:
        stored = home.candles.load(symbol, interval, end=now)
        series[symbol] = stored.slice(max(0, len(stored) - share), len(stored))
    small = config.changed({"training": {"epochs": _FIRST_MODEL_EPOCHS}}, "the first model")
    model_id, _, seconds = _train(small, home, series, os.cpu_count() or 1)
    console.print(f"model [bold]{model_id}[/] after {seconds:.0f} s")


def _train(config: Config, home: Home, series: dict[str, BarSeries], threads: int) -> tuple[str, dict[str, Any], float]:
    # Imported here because torch takes seconds to load.
    from strategies.memory_transformer.bundle import save_bundle
    from strategies.memory_transformer.config import model_warnings
    from strategies.memory_transformer.training import TrainingProgress, train

    model = model_config(config)
    for warning in model_warnings(model):
        console.print(f"[yellow]warning:[/] {warning}", soft_wrap=True)
    training = training_config(config, threads=threads)
    started = time.perf_counter()
    with progress_bar("training", None, unit="steps") as update:

        def tell(at: TrainingProgress) -> None:
            note = f"epoch {at.epoch}/{at.epochs} loss {at.loss:.4f}"
            if at.validation_loss is not None:
                note += f" validation {at.validation_loss:.4f}"
            if at.direction_accuracy is not None:
                note += f" direction {at.direction_accuracy:.1%}"
            if at.base_rate is not None:
                note += f" (always one side {at.base_rate:.1%})"
            update((at.epoch - 1) * at.steps + at.step, at.epochs * at.steps, note)

        trained = train(
            series,
            model,
            training,
            progress=tell,
            checkpoints=home.root / ".training",
            notice=lambda told: console.print(f"[yellow]{told}[/]", soft_wrap=True),
        )
    model_id = save_bundle(home.models, trained)
    return model_id, trained.report.as_dict(), time.perf_counter() - started


def _show_report(report: dict[str, Any], seconds: float) -> None:
    columns = ("epoch", "training loss", "validation loss", "direction", "IC", "volatility R²", "memory's share")
    table = listing(*columns, right=columns)
    for epoch in report["epochs"]:
        figures = (epoch["train_loss"], epoch["validation_loss"])
        accuracy, gate = epoch["direction_accuracy"], epoch["mean_gate"]
        table.add_row(
            str(epoch["epoch"]),
            *["-" if value is None else f"{value:.4f}" for value in figures],
            "-" if accuracy is None else f"{accuracy:.1%}",
            "-" if epoch["information_coefficient"] is None else f"{epoch['information_coefficient']:+.3f}",
            "-" if epoch["volatility_r2"] is None else f"{epoch['volatility_r2']:+.3f}",
            "-" if gate is None else f"{gate:.1%}",
        )
    console.print(table)
    if report["validation"] is not None:
        _show_memory(report["validation"], report["verdict"])
        verdict = report["direction_verdict"]
        console.print(f"{verdict[0].upper()}{verdict[1:]} (signal.unproven).", soft_wrap=True)
    _show_keys(report["whitening"], report["keys"])
    console.print(f"{report['train_bars']:,} training bars, best epoch {report['best_epoch']}, {seconds:.0f} s")


def _show_memory(validation: dict[str, Any], verdict: str) -> None:
    columns = ("loss", "direction", "IC", "volatility R²")
    table = listing("validation", *columns, right=columns)
    kinds = {
        "with_memory": "with its memory",
        "without_memory": "without it",
        "shuffled_outcomes": "with shuffled outcomes",
    }
    for name, words in kinds.items():
        found = validation[name]
        accuracy, correlation, explained = (
            found[key] for key in ("direction_accuracy", "information_coefficient", "volatility_r2")
        )
        table.add_row(
            words,
            f"{found['loss']:.4f}",
            "-" if accuracy is None else f"{accuracy:.1%}",
            "-" if correlation is None else f"{correlation:+.3f}",
            "-" if explained is None else f"{explained:+.3f}",
        )
    console.print(table)
    base = validation["base_rate"]
    always = "" if base is None else f" (always saying the commoner side would be right for {base:.1%})"
    console.print(f"{verdict[0].upper()}{verdict[1:]}{always}.", soft_wrap=True)


def _show_keys(whitening: dict[str, Any], keys: dict[str, Any]) -> None:
    if whitening["candidates"]:
        columns = ("whitening", "skill", "behind the best", "directions", "")
        table = listing(*columns, right=columns[:-1])
        for each in whitening["candidates"]:
            table.add_row(
                f"{each['shrinkage']:g}",
                f"{each['skill']:+.4f}",
                f"{each['behind']:.4f} ± {each['standard_error']:.4f}" if each["behind"] else "-",
                f"{each['directions']:.1f}",
                "chosen" if each["shrinkage"] == whitening["shrinkage"] else "",
            )
        console.print(table)
    else:
        why = "as asked for" if whitening["source"] == "given" else "the validation part is too short to choose one"
        console.print(f"whitening {whitening['shrinkage']:g}, {why}")
    effective = keys["effective_neighbors"]
    listens = "" if effective is None else f", which listens to {effective:.1f} of {keys['n_neighbors']} neighbours"
    console.print(
        f"mean cosine of two states {keys['state_anisotropy']:+.3f}, of two keys {keys['key_anisotropy']:+.3f}; "
        f"softmax temperature {keys['temperature']:.3g}{listens}",
        soft_wrap=True,
    )
