"""The ledger of trials."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import msgspec
import pytest

from backtest.significance.ledger import LEDGER, Ledger, Trial, settings_digest, trials_with
from bot.config import load_config
from bot.errors import StorageError


def trial(settings: str, sharpe: float | None = 0.1, **changes: object) -> Trial:
    plain = Trial(1, "backtest", "sma_cross", ("BTCUSDT",), "60", 0, 1000, settings, sharpe, 100)
    return msgspec.structs.replace(plain, **changes)  # type: ignore[arg-type]


def _enter_many(folder: str, name: str) -> None:
    for number in range(20):
        Ledger(Path(folder)).enter(trial(f"{name}-{number}"))


def test_a_fresh_ledger_is_empty_and_what_is_entered_is_read_again(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    assert ledger.read() == []
    ledger.enter(trial("a"))
    head = ledger.enter(trial("b", None))
    assert [each.settings for each in ledger.read()] == ["a", "b"]
    assert len(head) == 64


def test_only_other_settings_of_the_strategy_on_overlapping_data_count(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    judged = trial("judged", 0.3)
    for each in (
        trial("a", 0.1),
        trial("a", 0.2),
        trial("b", None),
        trial("other strategy", family="similarity"),
        trial("before", start=-500, end=0),
        trial("other market", symbols=("AAPL",)),
        judged,
    ):
        ledger.enter(each)
    related = ledger.related(judged)
    assert {each.settings for each in related} == {"a", "b", "judged"}
    found = trials_with(related, judged)
    assert found.count == 3
    assert found.variance == pytest.approx(((0.3 - 0.25) ** 2 + (0.2 - 0.25) ** 2) / 1)


def test_a_line_that_was_changed_or_taken_out_is_noticed(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    for name in "abc":
        ledger.enter(trial(name))
    path = tmp_path / LEDGER
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[2])
    with pytest.raises(StorageError, match=r"line 2 does not follow"):
        ledger.read()
    path.write_bytes(lines[0].replace(b'"a"', b'"x"') + lines[1])
    with pytest.raises(StorageError, match="changed by other hands"):
        ledger.enter(trial("d"))
    path.write_bytes(b"nonsense\n")
    with pytest.raises(StorageError, match="damaged"):
        ledger.read()


def test_processes_that_enter_at_once_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_enter_many, args=(str(tmp_path), name)) for name in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len({each.settings for each in Ledger(tmp_path).read()}) == 40


def test_where_things_lie_makes_no_other_trial_and_what_decides_does() -> None:
    def digest(*overrides: str, model: str = "") -> str:
        return settings_digest(load_config(None, overrides=overrides, environment={}), model)

    assert digest() == digest("storage.data_dir=/elsewhere", "log.level=error")
    assert (
        len({digest(), digest("risk.stop_loss=0.01"), digest("strategy.parameters.fast=5"), digest(model="mt-1")}) == 4
    )
