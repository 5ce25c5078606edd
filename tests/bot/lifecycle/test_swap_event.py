"""The event of a swap: what the core does with it, and what the journal keeps of it, on both databases."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from bot.journal import Journal, StepRecord
from bot.lifecycle.banks import drop_orphan, next_bank, write_bank
from bot.orders import (
    ModelSwap,
    OperatorAction,
    OperatorCommand,
    Retraining,
    RetrainingTrigger,
    RetrainingVerdict,
)
from memory_store import BankConfig, MemoryBank, Metric
from strategies.bars import Bar, BarSeries
from strategies.base import Signal, Strategy
from tests.bot.scenes import START, A, bar, batch, engine_of
from tests.bot.test_journal import journal, record_of, url

__all__ = ["journal", "url"]  # fixtures

SWAP = ModelSwap("m-2", "run-1.2", "ab" * 32, 3, START + 5)
KEPT = Retraining(
    1_000,
    RetrainingTrigger.DRIFT,
    RetrainingVerdict.KEPT,
    "m-1",
    "m-3",
    0.1 + 0.2,
    1e-300,
    0.25,
    7,
    "the 'candidate'; --",
)


class Holds(Strategy):
    """Wants one exposure, and has a memory of its model's."""

    name = "holds"
    required_bars = 0

    def __init__(self, model_id: str, exposure: float) -> None:
        self.bank = MemoryBank(BankConfig(4, 3, (1, 2), 0, 0, Metric.COSINE), encoder_version=model_id)
        self.exposure = exposure

    def warm(self, history: Mapping[str, BarSeries], *, remember: bool = True) -> None:
        """Nothing to learn."""

    def on_bar(self, bar: Bar) -> Signal:
        """Say what it wants."""
        return Signal(bar.symbol, bar.open_time, self.exposure)


def test_from_the_swap_on_the_offered_strategy_decides_and_the_account_stays():
    engine = engine_of(Holds("m-1", 0.5), A)
    engine.step(batch(bar(0)))
    engine.step(batch(bar(1)))
    before = engine.portfolio.state()
    engine.core.offer(Holds("m-2", -0.5))
    assert engine.step(batch(bar(2))).decisions[0].signal.target_exposure == 0.5, "an offer alone changes nothing"
    engine.apply([SWAP])
    assert engine.portfolio.state().cash == before.cash
    step = engine.step(batch(bar(3)))
    assert step.decisions[0].signal.target_exposure == -0.5 and step.decisions[0].number == 3


def test_a_swap_to_a_model_that_nobody_prepared_is_refused():
    engine = engine_of(Holds("m-1", 0.5), A)
    with pytest.raises(AssertionError, match="nobody has prepared"):
        engine.apply([SWAP])
    engine.core.offer(Holds("m-3", 0.5))
    with pytest.raises(AssertionError, match="another model's"):
        engine.apply([SWAP])


def test_a_retraining_and_a_command_that_was_refused_change_nothing():
    engine = engine_of(Holds("m-1", 0.5), A)
    state = engine.state()
    engine.apply([KEPT, OperatorCommand(OperatorAction.SWAP, "refused: it is gone", model_id="m-9")])
    assert engine.state() == state


def remembered(model_id: str) -> MemoryBank:
    bank = Holds(model_id, 0.0).bank
    for number in range(6):
        bank.append(np.array([1.0, number, -number]), symbol=A, bar_time=START + number)
        if number:
            bank.settle(number - 1, 0, 0.1 * number, START + number + 1)
    return bank


def test_the_step_of_a_swap_gives_the_run_its_new_bank_and_all_reads_back(journal: Journal):
    first = journal.create_run(record_of(), bank=remembered("m-1"))
    assert journal.model_of(journal.find_run("run-1")) == "m-1"
    new = remembered("m-2")
    assert next_bank(journal, "run-1") == SWAP.bank
    second = write_bank(journal, SWAP.bank, new, at_time=START)
    assert journal.find_run("run-1").bank_id == first, "a bank that is written changes nothing by itself"
    new.append(np.array([1.0, 0.0, 0.0]), symbol=A, bar_time=START + 9)
    command = OperatorCommand(OperatorAction.SWAP, model_id="m-2")
    number = journal.issue_command("run-1", command)
    assert journal.waiting_commands("run-1") == [(number, command)]
    step = StepRecord(events=[(1, KEPT), (2, SWAP)], commands_applied=[(number, 2)], bank_id=second, sequence=2)
    step.memory.append((START + 10, new.take_changes()))
    journal.write_step("run-1", step, bank_id=second)
    run = journal.find_run("run-1")
    assert run.bank_id == second and journal.model_of(run) == "m-2" and run.record.model_id == "m-1"
    assert journal.read_events("run-1") == [(1, KEPT), (2, SWAP)] and journal.read_swaps("run-1") == [(2, SWAP)]
    assert journal.waiting_commands("run-1") == []
    assert journal.load_bank(second).digest() == new.digest()
    assert next_bank(journal, "run-1") == "run-1.3" and not drop_orphan(journal, "run-1")


def test_a_bank_that_no_swap_names_is_removed_with_all_its_rows(journal: Journal):
    first = journal.create_run(record_of(), bank=remembered("m-1"))
    assert first is not None
    digest = journal.load_bank(first).digest()
    orphan = write_bank(journal, next_bank(journal, "run-1"), remembered("m-2"), at_time=START)
    assert drop_orphan(journal, "run-1")
    assert journal.find_bank("run-1.2") is None and journal.load_bank(first).digest() == digest
    with journal.engine.connect() as connection:
        for table in ("memory_entries", "memory_settlements"):
            left = connection.exec_driver_sql(f"SELECT count(*) FROM {table} WHERE bank_id = {orphan}").scalar_one()
            assert left == 0
