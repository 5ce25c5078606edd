"""``recall models``: look at trained models, and choose which one trades."""

from __future__ import annotations

from typing import Any

import click

from bot.assembly import LATEST, Home, home_named
from bot.cli.common import REAL_MARKET, Context, existing_homes, market_words, standard_options
from bot.cli.help import ExampleCommand, ExampleGroup
from bot.cli.runs import open_journal
from bot.cli.terminal import console, listing, output
from bot.errors import UsageError
from bot.journal import Journal, RunStatus, StoredRun
from bot.journal.records import TRADING
from bot.orders import OperatorAction, OperatorCommand
from strategies.bars import format_time
from strategies.memory_transformer.catalogue import ModelListing, list_models
from strategies.memory_transformer.promotion import latest_model, promote, read_promotion

_RECENT_RUNS = 20
_STRATEGY = "memory_transformer"


@click.group(cls=ExampleGroup, examples=("recall models list", "recall models show latest", "recall models rollback"))
def models() -> None:
    """List, show, promote and roll back trained models."""


@models.command("list", cls=ExampleCommand, examples=("recall models list", "recall models list --json"))
@standard_options
def list_all(context: Context) -> None:
    """List models of every market, newest first, and which one 'latest' means."""
    rows = [_row(home, each) for home, each in _all_models(context)]
    if context.as_json:
        context.answer(rows)
        return
    if not rows:
        output.print("There are no models yet: run recall train.")
        return
    table = listing("model", "candles", "learned until", "market", "latest")
    for row in rows:
        latest = "promoted" if row["promoted"] else "newest" if row["latest"] else ""
        candles = market_words(row["symbols"], row["interval"])
        table.add_row(row["model_id"], candles, format_time(row["training_span"][1])[:10], row["market"], latest)
    output.print(table)


@models.command("show", cls=ExampleCommand, examples=("recall models show", "recall models show MODEL"))
@click.argument("model_id", default=LATEST)
@standard_options
def show(context: Context, model_id: str) -> None:
    """Show everything that a bundle says about itself, as JSON: the newest that 'latest' means, or that of MODEL_ID."""
    found = [
        each
        for home, each in _all_models(context)
        if each.model_id == model_id or (model_id == LATEST and _is_latest(home, each))
    ]
    if not found:
        wanted = "no model yet" if model_id == LATEST else f"no model {model_id!r}"
        raise UsageError(f"there is {wanted}; see recall models list, or run recall train")
    context.answer(max(found, key=lambda each: each.written_ns).description)


@models.command("promote", cls=ExampleCommand, examples=("recall models promote MODEL",))
@click.argument("model_id")
@click.option("--reason", default="", help="Why, for the journal.")
@standard_options
def promote_model(context: Context, model_id: str, reason: str) -> None:
    """Let 'latest' mean MODEL_ID from now on, and a paper run swap to it.

    It holds for the market and interval of the model, and wins over newer models. A paper run of that market and interval
    that is not finished swaps to it as soon as its memory is re-encoded, without a break in trading.
    """
    _promote(context, *_named(context, model_id), reason)


@models.command("rollback", cls=ExampleCommand, examples=("recall models rollback", "recall models rollback --json"))
@click.option("--reason", default="", help="Why, for the journal.")
@standard_options
def rollback(context: Context, reason: str) -> None:
    """Go back to the model before.

    That is the one that the newest paper run under way decided with before its last swap. Where there was none, it is what
    'latest' meant before the last promotion.
    """
    home, model_id = _before(context, open_journal(context))
    found = [each for each in list_models(home.models) if each.model_id == model_id]
    if not found:
        raise UsageError(f"model {model_id} came before and is not in {home.models} any more; promote another one")
    _promote(context, home, found[0], reason)


def _promote(context: Context, home: Home, model: ModelListing, reason: str) -> None:
    word = promote(home.models, model)
    journal = open_journal(context)
    run = _run_under_way(journal, home, model.interval)
    command_id = None
    if run is not None and _wanted_model(journal, run) != model.model_id:
        command = OperatorCommand(OperatorAction.SWAP, reason, model_id=model.model_id)
        command_id = journal.issue_command(run.record.run_id, command)
    document = {
        "model_id": model.model_id,
        "market": home.name or REAL_MARKET,
        "interval": model.interval,
        "before": word.before,
        "run_id": None if run is None or command_id is None else run.record.run_id,
        "command_id": command_id,
    }
    if context.as_json:
        context.answer(document)
        return
    console.print(
        f"latest means [bold]{model.model_id}[/] for interval {model.interval} in the {document['market']} market.",
        soft_wrap=True,
    )
    if document["run_id"]:
        console.print(f"Run [bold]{document['run_id']}[/] swaps to it once its memory is re-encoded.", soft_wrap=True)


def _before(context: Context, journal: Journal) -> tuple[Home, str]:
    """Where, and which model came before the one in force."""
    for run in journal.list_runs(kinds=TRADING, limit=_RECENT_RUNS):
        if run.record.strategy == _STRATEGY and run.status is not RunStatus.FINISHED:
            used = [run.record.model_id, *(swap.model_id for _, swap in journal.read_swaps(run.record.run_id))]
            if len(used) > 1:
                return home_named(context.config, run.record.candles), used[-2]
            break
    words = [
        (home, word.before)
        for home in existing_homes(context.config)
        for interval in sorted({each.interval for each in list_models(home.models)})
        if (word := read_promotion(home.models, interval)) is not None and word.before is not None
    ]
    if len(words) != 1:
        why = "several markets have promoted models" if words else "no model came before the one in force"
        raise UsageError(f"{why}; name the one to go to with recall models promote, see recall models list")
    home, before = words[0]
    assert before is not None
    return home, before


def _run_under_way(journal: Journal, home: Home, interval: str) -> StoredRun | None:
    """The newest paper or live run of a market and interval that is not finished and trades with models."""
    for run in journal.list_runs(kinds=TRADING, limit=_RECENT_RUNS):
        record = run.record
        is_same = (record.strategy, record.candles, record.interval) == (_STRATEGY, home.name, interval)
        if is_same and run.status is not RunStatus.FINISHED:
            return run
    return None


def _wanted_model(journal: Journal, run: StoredRun) -> str:
    """The model that a run decides with once it has done what it was told."""
    waiting = [each for _, each in journal.waiting_commands(run.record.run_id) if each.action is OperatorAction.SWAP]
    return waiting[-1].model_id if waiting else journal.model_of(run)


def _all_models(context: Context) -> list[tuple[Home, ModelListing]]:
    """Models of every market, each market's newest first."""
    return [(home, each) for home in existing_homes(context.config) for each in reversed(list_models(home.models))]


def _named(context: Context, model_id: str) -> tuple[Home, ModelListing]:
    """
    Raises:
        UsageError: there is no such model.
    """
    for home, each in _all_models(context):
        if each.model_id == model_id:
            return home, each
    raise UsageError(f"there is no model {model_id!r}; see recall models list")


def _is_latest(home: Home, model: ModelListing) -> bool:
    latest = latest_model(home.models, model.interval)
    return latest is not None and latest.model_id == model.model_id


def _row(home: Home, found: ModelListing) -> dict[str, Any]:
    names = ("symbols", "interval", "training_span", "validation_span")
    word = read_promotion(home.models, found.interval)
    return {
        "model_id": found.model_id,
        "market": home.name or REAL_MARKET,
        "path": str(found.path),
        "latest": _is_latest(home, found),
        "promoted": word is not None and word.model_id == found.model_id,
        **{name: found.description.get(name) for name in names},
    }
