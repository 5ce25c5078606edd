"""``recall sweep``: many settings, and what is left of the best."""

from __future__ import annotations

import hashlib
import json
import time
from concurrent.futures import Executor
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

import click

from bot.cli.common import Context, standard_options
from bot.cli.help import ExampleCommand
from bot.cli.terminal import console, listing, output, progress_bar
from bot.cli.walks import (
    PlannedWalk,
    WalkOptions,
    chosen_executor,
    planned_walk,
    require_judges,
    require_module,
    walk_options,
)
from bot.config import Config
from bot.errors import UsageError
from strategies.bars import DAY_MS, interval_ms

if TYPE_CHECKING:
    from backtest.sweep.report import SweepReport
    from backtest.sweep.search import SearchPlan, TrialOutcome
    from backtest.walk_forward.window import WindowJob

_MOST_SHOWN: Final = 10


@click.command(
    cls=ExampleCommand,
    examples=(
        "recall sweep --strategy sma_cross --param strategy.parameters.fast=5:30 --param strategy.parameters.slow=40:200",
        "recall sweep --param signal.entry_threshold=0.2,0.3,0.4 --sampler grid --workers 2 --start 2024-01-01",
        "recall sweep --param signal.entry_threshold=0.2:0.6 --trials 50 --json",
    ),
)
@click.option("--param", "params", multiple=True, metavar="KEY=VALUES", help="1,2,3 or LOW:HIGH[:log].")
@click.option("--trials", type=click.IntRange(1, 100_000), default=20, show_default=True, help="Trials in all.")
@click.option("--sampler", type=click.Choice(["tpe", "random", "grid"]), default="tpe", show_default=True)
@click.option("--prune/--no-prune", default=True, help="End trials that are below the median so far.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the proposals.")
@click.option("--storage", metavar="URL", help="Optuna's storage, such as postgresql+psycopg://... [default: a file].")
@walk_options
@standard_options
def sweep(
    context: Context,
    walk: WalkOptions,
    params: tuple[str, ...],
    trials: int,
    sampler: str,
    prune: bool,
    seed: int,
    storage: str | None,
) -> None:
    """Try settings by walking forward, and say what is left of the best once all trials are counted.

    Any key of the configuration can be swept. Every trial is entered into the ledger of trials. A sweep that is interrupted
    goes on when the same command is given again; with more --trials it goes on further.
    """
    if not params:
        raise UsageError("nothing is swept; give --param section.key=1,2,3 or --param section.key=LOW:HIGH")
    require_judges()
    require_module("optuna", "sweep")
    planned = planned_walk(context, walk)

    from backtest.sweep.search import SamplerKind, SearchPlan
    from backtest.sweep.space import parse_parameter

    parameters = tuple(parse_parameter(text) for text in params)
    plan = SearchPlan(parameters, trials, SamplerKind(sampler), prune, seed, walk.workers)
    with ExitStack() as stack:
        executor = chosen_executor(stack, walk)
        sweep_id, report = _sweep(planned, plan, executor, storage, walk.threads)
    if context.as_json:
        context.answer({"sweep_id": sweep_id, **report.to_json()})
        return
    _show(report)


def _sweep(
    planned: PlannedWalk, plan: SearchPlan, executor: Executor | None, storage: str | None, threads: int
) -> tuple[str, SweepReport]:
    from backtest.report.material import common_calendar
    from backtest.significance.ledger import Ledger, Trial, trials_with
    from backtest.sweep.report import report_sweep
    from backtest.sweep.search import search
    from backtest.walk_forward.listing import WALKS
    from backtest.walk_forward.runner import digest_of, plan_jobs
    from backtest.walk_forward.window import Arm

    config, home, windows = planned.config, planned.home, planned.windows
    names, code, calendars = planned.symbols, planned.interval, planned.calendars
    calendar, cash = common_calendar(calendars), float(config.account.initial_cash)
    root = config.storage.data_dir / WALKS
    asked = f"{plan.parameters}{plan.sampler}{plan.prunes}{plan.seed}{plan.wave}".encode()
    walk = digest_of(config, home, names, code, windows)
    sweep_id = f"sweep-{walk[:6]}{hashlib.sha256(asked).hexdigest()[:6]}"
    ledger = Ledger(config.storage.data_dir)

    def jobs_of(changed: Config) -> list[WindowJob]:
        return plan_jobs(changed, home, names, code, calendars, windows, (Arm.PLAIN,), root=root, threads=threads)

    def entry(outcome: TrialOutcome) -> Trial:
        folder = outcome.jobs[0].folder.name
        return Trial(
            time.time_ns() // 1_000_000,
            "sweep",
            config.strategy.name,
            names,
            code,
            windows[0].start,
            windows[-1].end,
            f"walk-{folder}",
            outcome.sharpe,
            outcome.days,
            sweep_id,
        )

    def ended(outcome: TrialOutcome) -> None:
        if outcome.jobs:
            ledger.enter(entry(outcome))

    console.print(f"sweep [bold]{sweep_id}[/], windows: {len(windows)}")
    with progress_bar("trying", plan.trials, unit="trials") as update:
        outcomes = search(
            config,
            plan,
            jobs_of,
            calendar,
            storage=_storage(config, sweep_id, storage),
            name=sweep_id,
            executor=executor,
            tell=lambda done, what: update(done, None, what),
            ended=ended,
        )
    tried = next((outcome for outcome in outcomes if outcome.jobs), None)
    if tried is None:
        problem = next((outcome.problem for outcome in outcomes if outcome.problem), "no trial was computed")
        raise UsageError(f"no setting could be tried: {problem}")
    judged = entry(tried)
    report = report_sweep(
        outcomes,
        calendar=calendar,
        initial_cash=cash,
        trials=trials_with(ledger.related(judged), judged),
        ledger_sha256=ledger.head(),
        purge_days=max(1, -(-config.memory.primary * interval_ms(code) // DAY_MS)),
    )
    folder = config.storage.data_dir / "sweeps"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{sweep_id}.json").write_text(json.dumps(report.to_json(), indent=2), encoding="utf-8")
    return sweep_id, report


def _storage(config: Config, sweep_id: str, url: str | None) -> Any:
    """Where Optuna keeps its trials: a journal beside the results, or a database that others can reach."""
    import optuna
    from optuna.storages.journal import JournalFileBackend

    if url is not None:
        try:
            return optuna.storages.RDBStorage(url)
        except Exception as problem:
            raise UsageError(
                f"--storage cannot be used: {str(problem).splitlines()[0]}; check the URL, and that the server runs"
            ) from None
    folder = config.storage.data_dir / "sweeps"
    folder.mkdir(parents=True, exist_ok=True)
    return optuna.storages.JournalStorage(JournalFileBackend(str(folder / f"{sweep_id}.log")))


def _show(report: SweepReport) -> None:
    for sentence in report.sentences():
        output.print(sentence, soft_wrap=True)
    keys = sorted({key for row in report.rows for key in row.values})
    table = listing("trial", *keys, "state", "better than luck", right=(*keys, "better than luck"))
    for row in report.rows[:_MOST_SHOWN]:
        values = [str(row.values.get(key, "-")) for key in keys]
        sure = "-" if row.deflated_sharpe is None else f"{row.deflated_sharpe:.1%}"
        table.add_row(str(row.number), *values, row.state, sure)
    output.print()
    output.print(table)
    if len(report.rows) > _MOST_SHOWN:
        output.print(f"and {len(report.rows) - _MOST_SHOWN:,} more, with --json")
