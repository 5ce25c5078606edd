"""The search: trials in waves, window by window, journalled so that it can be interrupted at any time.

Optuna (Akiba et al. 2019, https://doi.org/10.1145/3292500.3330701) proposes and remembers; windows of a walk are the work.
Everybody proposes before a wave begins and is told after it ended, so that with the same seed and the same size of waves the
same settings are tried, whoever computes them and in whatever order they end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any, Final

import optuna
from optuna.trial import TrialState

from backtest.sweep.space import Parameter, grid_of, with_values
from backtest.walk_forward.summary import walk_sharpe
from backtest.walk_forward.window import WindowJob, WindowResult, run_window
from bot.config import Config
from bot.errors import UsageError
from strategies.bars import Calendar

WORST: Final = -1e9
"""Score of settings whose account did not move: worse than every loss, so that nobody proposes standing still."""
_FEWEST_BEFORE_PRUNING: Final = 5


class SamplerKind(StrEnum):
    """Who proposes."""

    TPE = "tpe"
    """The tree-structured Parzen estimator (Bergstra et al. 2011): near what was good."""
    GRID = "grid"
    """All combinations."""
    RANDOM = "random"


@dataclass(frozen=True, slots=True)
class SearchPlan:
    """What a sweep tries."""

    parameters: tuple[Parameter, ...]
    trials: int
    sampler: SamplerKind
    prunes: bool
    """Whether a trial ends early whose score so far is below the median of the others at the same window."""
    seed: int
    wave: int
    """Trials at a time."""


@dataclass(frozen=True, slots=True)
class TrialOutcome:
    """One trial."""

    number: int
    values: dict[str, Any]
    state: str
    """``complete``, ``pruned`` or ``failed``."""
    sharpe: float | None
    """Per day, over the windows that were traded."""
    days: int
    jobs: tuple[WindowJob, ...]
    """Those that were computed."""
    problem: str = ""


JobsOf = Callable[[Config], list[WindowJob]]
"""The windows of a configuration."""


def search(
    config: Config,
    plan: SearchPlan,
    jobs_of: JobsOf,
    calendar: Calendar,
    *,
    storage: optuna.storages.BaseStorage,
    name: str,
    executor: Executor | None = None,
    tell: Callable[[int, str], None] | None = None,
    ended: Callable[[TrialOutcome], None] | None = None,
) -> list[TrialOutcome]:
    """Try settings until there are as many trials as planned, those of earlier calls included.

    Args:
        config: what is not swept.
        plan: what is.
        jobs_of: the windows of a configuration, of the plain arm.
        calendar: of all symbols together.
        storage: where Optuna keeps the trials.
        name: of the sweep in it.
        executor: computes windows; this process by default.
        tell: told how many trials are over, and what is going on.
        ended: told of every trial that ended in this call.

    Raises:
        UsageError: a key cannot be swept, or a grid has ranges.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=storage, study_name=name, direction="maximize", load_if_exists=True, sampler=_sampler(plan, 0)
    )
    for left in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        # Whoever ran it is gone; what it had computed is on disk. Its settings are tried again, before others are proposed.
        study.tell(left.number, state=TrialState.FAIL)
        study.enqueue_trial(left.params)
    total = plan.trials
    if plan.sampler is SamplerKind.GRID:
        grid = grid_of(plan.parameters)
        total = len(grid)
        for values in grid:
            study.enqueue_trial(values, skip_if_exists=True)
    say = tell or _ignore
    while (done := len(_over(study))) < total:
        wave = [_ask(study, plan) for _ in range(min(plan.wave, total - done))]
        _run_wave(config, study, plan, wave, jobs_of, calendar, executor, ended, partial(say, done))
    return [_outcome(study, trial, config, jobs_of, calendar) for trial in _over(study)]


def _ignore(_count: int, _what: str) -> None:
    """Tell nobody."""


def _over(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Trials that count: a failed one was interrupted or impossible, and is made up for unless its settings are."""
    kept = (TrialState.COMPLETE, TrialState.PRUNED)
    trials = study.get_trials(deepcopy=False)
    return [each for each in trials if each.state in kept or each.user_attrs.get("problem")]


def _sampler(plan: SearchPlan, number: int) -> optuna.samplers.BaseSampler:
    """A sampler for one trial: its draws depend on how many began before it and not on who was interrupted when."""
    if plan.sampler is SamplerKind.TPE:
        return optuna.samplers.TPESampler(seed=plan.seed + number, constant_liar=True)
    return optuna.samplers.RandomSampler(seed=plan.seed + number)


def _ask(study: optuna.Study, plan: SearchPlan) -> optuna.Trial:
    begun = len(_over(study)) + len(study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))
    study.sampler = _sampler(plan, begun + 1)
    trial = study.ask()
    for parameter in plan.parameters:
        parameter.suggest(trial)
    return trial


def _run_wave(
    config: Config,
    study: optuna.Study,
    plan: SearchPlan,
    wave: Sequence[optuna.Trial],
    jobs_of: JobsOf,
    calendar: Calendar,
    executor: Executor | None,
    ended: Callable[[TrialOutcome], None] | None,
    tell: Callable[[str], None],
) -> None:
    """One window after the other of all trials that are still worth it."""
    jobs: dict[int, list[WindowJob]] = {}
    live: dict[int, optuna.Trial] = {}
    for trial in wave:
        try:
            jobs[trial.number] = jobs_of(with_values(config, dict(trial.params)))
            live[trial.number] = trial
        except UsageError as problem:
            trial.set_user_attr("problem", str(problem))
            study.tell(trial, state=TrialState.FAIL)
    cash = float(config.account.initial_cash)
    results: dict[int, list[WindowResult]] = {number: [] for number in live}
    steps = max((len(each) for each in jobs.values()), default=0)
    for step in range(steps):
        tell(f"window {step + 1} of {steps}, {len(live)} trials")
        at = {number: jobs[number][step] for number in live}
        for number, result in _computed(at, executor).items():
            trial = live[number]
            if isinstance(result, UsageError):
                trial.set_user_attr("problem", str(result))
                study.tell(trial, state=TrialState.FAIL)
                del live[number]
                continue
            results[number].append(result)
            ratio, days = walk_sharpe(results[number], calendar, cash)
            trial.report(WORST if ratio is None else ratio, step)
            trial.set_user_attr("sharpe", ratio)
            trial.set_user_attr("days", days)
            trial.set_user_attr("windows", step + 1)
        if plan.prunes and step + 1 < steps:
            _prune(study, live, step)
    for number, trial in live.items():
        ratio, _ = walk_sharpe(results[number], calendar, cash)
        study.tell(trial, WORST if ratio is None else ratio)
    if ended is not None:
        over = {each.number: each for each in study.get_trials(deepcopy=False)}
        for trial in wave:
            ended(_outcome(study, over[trial.number], config, jobs_of, calendar))


def _computed(jobs: dict[int, WindowJob], executor: Executor | None) -> dict[int, WindowResult | UsageError]:
    """One window of every trial, in the order of the trials."""
    found: dict[int, WindowResult | UsageError] = {}
    futures = {} if executor is None else {number: executor.submit(run_window, job) for number, job in jobs.items()}
    for number, job in jobs.items():
        try:
            found[number] = futures[number].result() if futures else run_window(job)
        except UsageError as problem:
            found[number] = problem
    return found


def _prune(study: optuna.Study, live: dict[int, optuna.Trial], step: int) -> None:
    """End the trials that are below the median of the trials before this wave, at the same window."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    scores = sorted(each.intermediate_values[step] for each in complete if step in each.intermediate_values)
    if len(scores) < _FEWEST_BEFORE_PRUNING:
        return
    median = scores[len(scores) // 2]
    reported = {each.number: each.intermediate_values for each in study.get_trials(deepcopy=False)}
    for number in [number for number in live if reported[number][step] < median]:
        study.tell(live.pop(number), state=TrialState.PRUNED)


def _outcome(
    study: optuna.Study, trial: optuna.trial.FrozenTrial, config: Config, jobs_of: JobsOf, calendar: Calendar
) -> TrialOutcome:
    problem = str(trial.user_attrs.get("problem", ""))
    jobs: tuple[WindowJob, ...] = ()
    if not problem:
        jobs = tuple(jobs_of(with_values(config, dict(trial.params)))[: trial.user_attrs.get("windows", 0)])
    state = "failed" if problem else trial.state.name.lower()
    return TrialOutcome(
        trial.number,
        dict(trial.params),
        state,
        trial.user_attrs.get("sharpe"),
        trial.user_attrs.get("days", 0),
        jobs,
        problem,
    )
