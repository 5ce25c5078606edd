"""The memory of a model that is going to take over: whole or not at all, and never of a model that has seen the future."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from bot.errors import StorageError, UsageError
from bot.journal import Journal
from bot.journal.memories import split_changes
from bot.lifecycle.banks import drop_orphan, hold_preparation, next_bank, write_bank
from bot.lifecycle.job import Job, Outcome, Progress
from bot.lifecycle.preparation import Successor
from bot.lifecycle.work import work
from bot.orders import RetrainingVerdict
from memory_store import BankConfig, Eviction, MemoryBank, Metric
from strategies.memory_transformer.bundle import load_bundle
from tests.models import config_of, decide, paper_arguments, prepared, rows, swap, taken_up, train_tiny
from tests.runs import make_candles, recall, time_of

FIRST, LAST = 1_100, 1_400


def remembered(count: int = 30, capacity: int = 12) -> MemoryBank:
    """A bank with evicted, settled and pending entries, and a recollection."""
    config = BankConfig(capacity, 3, (1, 2), 0, 0, Metric.COSINE, Eviction.IMPORTANCE, half_life_ms=100)
    bank = MemoryBank(config, encoder_version="e1")
    for number in range(count):
        bank.append(np.array([1.0, number, -number]), symbol="AAAUSDT", bar_time=number)
        if number:
            bank.settle(number - 1, 0, 0.1 * number, number + 1)
    bank.note(count - 1, as_of=count, ids=np.array([count - 2]), weights=np.array([1.0]))
    return bank


@pytest.fixture
def journal(tmp_path: Path):
    with closing(Journal(f"sqlite:///{tmp_path / 'journal.sqlite'}", durable=True)) as opened:
        yield opened


@pytest.mark.parametrize("at_once", [1, 7, 1000])
def test_a_bank_written_in_pieces_is_the_bank(journal: Journal, at_once: int):
    bank = remembered()
    digest, changes = bank.digest(), bank.take_changes()
    pieces = list(split_changes(changes, at_once))
    assert sum(len(piece.settlements) for piece in pieces) == len(changes.settlements)
    assert all(len(piece.appended) <= at_once for piece in pieces)
    bank_id = journal.begin_bank("one", bank)
    for piece in pieces:
        journal.extend_bank(bank_id, piece, at_time=5)
    loaded = journal.load_bank(bank_id)
    assert (loaded.digest(), loaded.next_id) == (digest, bank.next_id)


def test_what_a_killed_preparation_left_is_removed_and_nothing_else(journal: Journal):
    kept, orphan = write_bank(journal, "run", remembered(), at_time=5), next_bank(journal, "run")
    assert orphan == "run.2" and not drop_orphan(journal, "run")
    write_bank(journal, orphan, remembered(), at_time=5)
    assert drop_orphan(journal, "run") and journal.find_bank(orphan) is None
    assert not drop_orphan(journal, "run")
    assert journal.load_bank(kept).digest() == remembered().digest()


def test_one_process_at_a_time_prepares_a_memory_for_a_run(journal: Journal, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("bot.lifecycle.banks._PATIENCE_S", 0.0)
    with hold_preparation(journal, "run"):
        with hold_preparation(journal, "another"):
            pass
        with (
            pytest.raises(StorageError, match="another process prepares a memory for run run"),
            hold_preparation(journal, "run"),
        ):
            pass
    with hold_preparation(journal, "run"):
        pass


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A paper run of 5 bars, and the model that it began with."""
    data_dir = tmp_path_factory.mktemp("preparation")
    make_candles(data_dir, ("BTCUSDT",), LAST)
    model_id = train_tiny(data_dir, 900)
    recall(data_dir, *paper_arguments(model_id, FIRST, LAST), "--max-bars", "5")
    return data_dir, model_id


@pytest.fixture
def copied(begun: tuple[Path, str], tmp_path: Path) -> tuple[Path, str]:
    shutil.copytree(begun[0], tmp_path / "copy")
    return tmp_path / "copy", begun[1]


def test_a_model_that_has_seen_bars_which_the_run_has_yet_to_decide_on_is_refused(copied: tuple[Path, str]):
    data_dir, _ = copied
    knows_more = train_tiny(data_dir, FIRST + 50)
    with taken_up(data_dir) as (run, session, journal):
        with pytest.raises(
            UsageError, match="it would decide on what it learned from; train one with --end 2022-02-16"
        ):
            prepared(session, journal, run, knows_more)
        decide(run, session, FIRST + 5, FIRST + 49)
        with pytest.raises(UsageError, match="it would decide on what it learned from"):
            prepared(session, journal, run, knows_more)
        decide(run, session, FIRST + 49, FIRST + 50)
        swap(session, journal, run, knows_more)
    assert len(rows(data_dir, "SELECT * FROM memory_banks")) == 2


def test_a_memory_that_is_not_the_one_that_was_written_does_not_take_over(copied: tuple[Path, str]):
    data_dir, model_id = copied
    with taken_up(data_dir) as (run, session, journal):
        ready = prepared(session, journal, run, model_id).prepared
        with journal.engine.begin() as connection:
            change = f"UPDATE memory_settlements SET outcome = 0.5 WHERE bank_id = {ready.bank_id} AND entry_id = 100"
            connection.exec_driver_sql(change)
        shutil.rmtree(session.home.snapshots)
        with pytest.raises(StorageError, match=f"memory {ready.bank} in the journal is not the one that was written"):
            Successor(session, journal, journal.find_run(run.run_id), ready)


@pytest.fixture
def advanced(copied: tuple[Path, str]) -> tuple[Path, str]:
    """The run after 250 bars."""
    with taken_up(copied[0]) as (run, session, _):
        decide(run, session, FIRST + 5, FIRST + 250)
    return copied


def retrain(data_dir: Path, **settings: object) -> tuple[Outcome, set[str]]:
    """What the background process would make of a retraining now, and the phases that it told."""
    config = config_of(data_dir, *(f"retraining.{key}={value}" for key, value in settings.items()))
    told: list[Progress] = []
    with closing(Journal(config.journal_url, durable=True)) as journal:
        run_id = journal.find_run("latest").record.run_id
        state = journal.read_state(run_id)
        assert state is not None
        job = Job(config.model_dump(mode="json"), run_id, due=250, until=state[1])
        return work(job, told.append), {each.phase for each in told}


def models_in(data_dir: Path) -> set[str]:
    return {path.name for path in (data_dir / "models").iterdir()}


def test_a_candidate_that_is_not_worse_becomes_a_model_with_a_memory(advanced: tuple[Path, str]):
    data_dir, running = advanced
    outcome, phases = retrain(data_dir, epochs=1, train_bars=700, judge_bars=130, tolerance=10)
    told, ready = outcome.retraining, outcome.prepared
    assert told is not None and ready is not None and phases == {"training", "judging", "encoding"}
    assert (told.verdict, told.running, told.due, told.bars) == (RetrainingVerdict.SWAPPED, running, 250, 122)
    assert told.candidate == ready.model_id and models_in(data_dir) == {running, told.candidate}
    assert None not in (told.candidate_loss, told.running_loss) and (told.standard_error or 0.0) > 0.0
    assert rows(data_dir, "SELECT encoder_version FROM memory_banks ORDER BY id") == [(running,), (told.candidate,)]
    bundle = load_bundle(data_dir / "models" / told.candidate)
    # Nothing later than an embargo before the first of the 130 bars that both were judged on.
    assert bundle.training_span == (time_of(FIRST + 120 - 12 - 700), time_of(FIRST + 120 - 12))


def test_a_candidate_that_cannot_be_compared_leaves_no_trace(advanced: tuple[Path, str]):
    data_dir, running = advanced
    outcome, _ = retrain(data_dir, epochs=1, train_bars=700, judge_bars=60)
    told = outcome.retraining
    assert told is not None and told.verdict is RetrainingVerdict.KEPT and outcome.prepared is None
    assert "too few bars that neither has learned from" in told.reason and told.candidate_loss is None
    assert models_in(data_dir) == {running} and not list(data_dir.glob(".candidate-*"))
    assert len(rows(data_dir, "SELECT * FROM memory_banks")) == 1


def test_a_training_that_cannot_be_ends_in_one_sentence(advanced: tuple[Path, str]):
    outcome, _ = retrain(advanced[0], epochs=1, train_bars=50, judge_bars=130)
    assert outcome.retraining is None and "50 bars are too few to train on" in outcome.problem


def test_a_model_is_never_judged_on_bars_that_it_has_learned_from(advanced: tuple[Path, str]):
    """The running model has seen all but the last 130 bars: of 200 that were asked for, only those after an embargo count."""
    data_dir, _ = advanced
    newer = train_tiny(data_dir, FIRST + 120)
    with taken_up(data_dir) as (run, session, journal):
        swap(session, journal, run, newer)
    outcome, _ = retrain(data_dir, epochs=1, train_bars=700, judge_bars=200, tolerance=10)
    assert outcome.retraining is not None and outcome.retraining.running == newer
    assert outcome.retraining.bars == 130 - 12 - 8
