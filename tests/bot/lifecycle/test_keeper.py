"""Who keeps the model up to date: when something is due, and that a run taken up again knows what it knew."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bot.journal import Journal
from bot.lifecycle.drift import REFERENCE_STRETCHES
from bot.lifecycle.keeper import Arrival, ModelKeeper
from bot.orders import Funding, OperatorAction, OperatorCommand, Retraining, RetrainingTrigger, RetrainingVerdict
from bot.run import Run
from bot.session import Session
from tests.models import config_of, decide, paper_arguments, taken_up, train_tiny
from tests.runs import make_candles, recall

FIRST, LAST = 1_100, 1_700
PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A paper run of 5 bars."""
    data_dir = tmp_path_factory.mktemp("keeper")
    make_candles(data_dir, ("BTCUSDT",), LAST)
    recall(data_dir, *paper_arguments(train_tiny(data_dir, 900), FIRST, LAST), "--max-bars", "5")
    return data_dir


@pytest.fixture
def begun(made: Path, tmp_path: Path) -> Path:
    """The same, for one test alone."""
    shutil.copytree(made, tmp_path / "copy")
    return tmp_path / "copy"


@contextmanager
def kept(session: Session, journal: Journal, run: Run, data_dir: Path, **settings: object) -> Iterator[ModelKeeper]:
    config = config_of(data_dir, *(f"retraining.{key}={value}" for key, value in settings.items()))
    keeper = ModelKeeper(config, session, journal, journal.find_run(run.run_id))
    try:
        yield keeper
    finally:
        keeper.close()


def arrival(keeper: ModelKeeper, bars: int) -> Arrival:
    """Ask until something has come."""
    for _ in range(round(PATIENCE_S / 0.02)):
        found = keeper.arrival(bars, bars, ())
        if found is not None:
            return found
        threading.Event().wait(0.02)
    raise AssertionError("nothing came")


def test_nothing_is_due_before_so_many_bars_and_each_due_is_served_once(begun: Path):
    with (
        taken_up(begun) as (run, session, journal),
        kept(session, journal, run, begun, every_bars=4, train_bars=9) as keeper,
    ):
        assert keeper.arrival(3, 3, ()) is None and keeper.progress is None
        ((told,), successor, command_id) = arrival(keeper, 6)
        assert isinstance(told, Retraining) and (successor, command_id) == (None, None)
        assert (told.due, told.trigger, told.verdict) == (6, RetrainingTrigger.SCHEDULE, RetrainingVerdict.FAILED)
        assert "train" in told.reason
        assert keeper.arrival(7, 7, ()) is None and keeper.progress is None, "bar 4 was served at bar 6"
        run.receive(Arrival((told,)))
        with kept(session, journal, run, begun, every_bars=4, train_bars=9) as again:
            assert again.arrival(7, 8, ()) is None and again.progress is None, "and is not served again after a restart"
            assert again.arrival(8, 9, ()) is None and again.progress is not None


def test_a_person_is_served_before_a_training_ends_and_a_model_that_cannot_take_over_is_answered_for(begun: Path):
    """The command becomes an event that says why, the running model stays, and the training is still due."""
    with taken_up(begun) as (run, session, journal), kept(session, journal, run, begun, every_bars=2) as keeper:
        run.models = keeper
        assert not run.apply_waiting() and keeper.progress is not None
        journal.issue_command(run.run_id, OperatorCommand(OperatorAction.SWAP, "try it", model_id="mt-gone"))
        for _ in range(round(PATIENCE_S / 0.02)):
            if run.apply_waiting():
                break
            threading.Event().wait(0.02)
        (told,) = [event for _, event in journal.read_events(run.run_id) if not isinstance(event, Funding)]
        assert isinstance(told, OperatorCommand) and told.reason.startswith("refused: model 'mt-gone' is not in")
        assert journal.waiting_commands(run.run_id) == []
        assert not run.apply_waiting() and keeper.progress is not None
    assert recall(begun, "audit", "latest")["differences"] == 0


def test_a_run_that_is_taken_up_has_the_drift_alarm_of_one_that_never_stopped(begun: Path):
    evidence = []
    bars = (REFERENCE_STRETCHES + 6) * 20
    with taken_up(begun) as (run, session, journal), kept(session, journal, run, begun, on_drift=True) as keeper:
        run.models = keeper
        for first in range(FIRST + 5, FIRST + bars, 120):
            decide(run, session, first, min(first + 120, FIRST + bars))
            with kept(session, journal, run, begun, on_drift=True) as again:
                assert again.drift_evidence == keeper.drift_evidence
            evidence.append(keeper.drift_evidence)
    assert max(evidence) > 0.0, "the alarm has seen nothing"
