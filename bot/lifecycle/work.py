"""What the background process does: train a model, judge it against the running one, and write the memory it would have."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import msgspec

from bot.assembly import Home, build_strategy
from bot.config import Config, stored_config
from bot.errors import RecallError
from bot.journal import Journal, StoredRun
from bot.lifecycle.job import Job, Outcome, Progress
from bot.lifecycle.judging import judge
from bot.lifecycle.preparation import prepare_memory
from bot.lifecycle.training import model_config, training_config
from bot.orders import Retraining, RetrainingVerdict
from bot.session import Session, extended_history, reopen_session
from memory_store import MemoryBankError
from strategies.bars import BarSeries, interval_ms
from strategies.errors import StrategyError

if TYPE_CHECKING:
    from strategies.memory_transformer.strategy import MemoryTransformerStrategy
    from strategies.memory_transformer.training import TrainedModel

Tell = Callable[[Progress], None]

_CANDIDATE: Final = ".candidate-"
"""What the names of folders begin with in which a model lies while it is judged."""


def work(job: Job, tell: Tell) -> Outcome:
    """Do a job; what goes wrong is part of the outcome."""
    try:
        config = stored_config(job.config, job.run_id)
        journal = Journal(config.journal_url, durable=True)
        try:
            run = journal.find_run(job.run_id)
            session = reopen_session(config, run)
            if job.model_id:
                tell(Progress("encoding"))
                return Outcome(prepare_memory(session, journal, run, job.model_id))
            return _retrain(job, config, journal, run, session, tell)
        finally:
            journal.close()
    except (RecallError, StrategyError, MemoryBankError, OSError) as problem:
        return Outcome(problem=" ".join(str(problem).split()))


def _retrain(job: Job, config: Config, journal: Journal, run: StoredRun, session: Session, tell: Tell) -> Outcome:
    # Imported here because it loads torch.
    from strategies.memory_transformer.bundle import save_bundle

    running_id = journal.model_of(run)
    history = extended_history(session, journal, run, until=job.until)
    cut = judged_from(history, config.retraining.judge_bars)
    trained = _train(config, history, cut, tell)
    told = Retraining(job.due, job.trigger, RetrainingVerdict.KEPT, running_id)
    with _candidate_folder(session.home) as folder:
        candidate_id = save_bundle(folder, trained)
        tell(Progress("judging"))
        candidate, running = _model(session, folder, candidate_id), _model(session, session.home.models, running_id)
        told = _judged(told, config, candidate, running, history, cut)
    if told.verdict is RetrainingVerdict.KEPT:
        return Outcome(retraining=told)
    save_bundle(session.home.models, trained)
    tell(Progress("encoding"))
    return Outcome(prepare_memory(session, journal, run, candidate_id), told)


def judged_from(history: Mapping[str, BarSeries], judge_bars: int) -> int:
    """Open time of the first bar that models are judged on: every symbol has at least ``judge_bars`` from there, if any."""
    return min(int(series.open_time[max(0, len(series) - judge_bars)]) for series in history.values() if len(series))


def training_part(history: Mapping[str, BarSeries], end: int, train_bars: int) -> dict[str, BarSeries]:
    """The newest bars of every symbol that open before ``end``: ``train_bars`` of them, or all for 0."""
    part = {}
    for symbol, series in history.items():
        before = series.span(None, end)
        part[symbol] = before.slice(max(0, len(before) - train_bars) if train_bars else 0, len(before))
    return part


def _train(config: Config, history: Mapping[str, BarSeries], cut: int, tell: Tell) -> TrainedModel:
    """A model that has seen nothing later than an embargo before ``cut``."""
    from strategies.memory_transformer.training import TrainingProgress, train

    settings = config.retraining
    interval = next(iter(history.values())).interval
    trained_until = cut - config.memory.embargo * interval_ms(interval)

    def say(at: TrainingProgress) -> None:
        tell(Progress("training", ((at.epoch - 1) + at.step / at.steps) / at.epochs))

    changed = config.changed({"training": {"epochs": settings.epochs}}, "retraining.epochs")
    part = training_part(history, trained_until, settings.train_bars)
    return train(part, model_config(config), training_config(changed, threads=1), progress=say)


def _judged(
    told: Retraining,
    config: Config,
    candidate: MemoryTransformerStrategy,
    running: MemoryTransformerStrategy,
    history: Mapping[str, BarSeries],
    cut: int,
) -> Retraining:
    """What is to be told of two models after they were compared on the bars that neither has learned from."""
    told = msgspec.structs.replace(told, candidate=candidate.bundle.model_id)
    ours, theirs = candidate.bundle.config, running.bundle.config
    if candidate.bundle.model_id == running.bundle.model_id:
        return msgspec.structs.replace(told, reason="training gave the running model again")
    if (ours.output_type, ours.primary_horizon) != (theirs.output_type, theirs.primary_horizon):
        return msgspec.structs.replace(
            told, reason="the two predict different things, so their losses cannot be compared"
        )
    unseen = running.bundle.training_span[1] + theirs.embargo * interval_ms(running.bundle.interval)
    found = judge(candidate, running, history, max(cut, unseen), cost=float(config.costs.taker_fee))
    if found is None:
        return msgspec.structs.replace(
            told, reason="too few bars that neither has learned from; raise retraining.judge_bars or every_bars"
        )
    tolerance = config.retraining.tolerance
    is_better = found.is_not_worse(tolerance)
    by = f" by more than {tolerance:g} standard errors" if tolerance else ""
    return msgspec.structs.replace(
        told,
        verdict=RetrainingVerdict.SWAPPED if is_better else RetrainingVerdict.KEPT,
        candidate_loss=found.candidate_loss,
        running_loss=found.running_loss,
        standard_error=found.standard_error,
        bars=found.bars,
        reason=f"the candidate is {'not ' if is_better else ''}worse{by}",
    )


def _model(session: Session, models: Path, model_id: str) -> MemoryTransformerStrategy:
    strategy, _ = build_strategy(session.config, session.symbols, session.interval, models, model_id=model_id)
    return cast("MemoryTransformerStrategy", strategy)


@contextmanager
def _candidate_folder(home: Home) -> Iterator[Path]:
    """A folder for a model that may be thrown away; what a killed process left of its own is removed."""
    for stray in home.root.glob(f"{_CANDIDATE}*"):
        shutil.rmtree(stray, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=_CANDIDATE, dir=home.root) as folder:
        yield Path(folder)
