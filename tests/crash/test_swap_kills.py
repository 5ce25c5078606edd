"""SIGKILL while a model is trained, judged, given its memory or swapped in: a whole model with its own memory goes on."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from bot.journal import Journal
from strategies.memory_transformer.bundle import load_bundle
from tests.crash.test_kill import bars_in_journal
from tests.models import config_of, paper_arguments, rows, train_tiny
from tests.runs import make_candles, recall, start_recall

FIRST = 1_100
DEADLINE_S = 240.0
"""The process that prepares a swap gives way to everybody else on the machine."""
RETRAINING = (
    "--set", "retraining.every_bars=60", "--set", "retraining.judge_bars=130", "--set", "retraining.train_bars=700",
    "--set", "retraining.epochs=1", "--set", "retraining.tolerance=10",
)  # fmt: skip

Moment = Callable[[Path], bool]


def swaps(data_dir: Path) -> int:
    return int(rows(data_dir, "SELECT count(*) FROM events WHERE kind = 'swap'")[0][0])


def has_unused_bank(data_dir: Path) -> bool:
    """A memory is being written, or waits for its swap."""
    return int(rows(data_dir, "SELECT count(*) FROM memory_banks")[0][0]) > 1 + swaps(data_dir)


def has_candidate(data_dir: Path) -> bool:
    """A model is being judged."""
    return any(data_dir.glob(".candidate-*"))


def kill_at(data_dir: Path, arguments: tuple[str, ...], moment: Moment, patience_s: float = DEADLINE_S) -> bool:
    """Start a run and kill it as soon as a moment has come, or when patience ends; returns whether it came."""
    process = start_recall(data_dir, *arguments)
    deadline = time.monotonic() + patience_s
    try:
        while time.monotonic() < deadline:
            assert process.poll() is None, (data_dir / "output.log").read_text()[-3000:]
            if moment(data_dir):
                return True
            threading.Event().wait(0.004)
        return False
    finally:
        process.kill()
        process.wait()


def assert_whole_pair(data_dir: Path) -> str:
    """The run's model loads, and every key of its memory is its own; returns the model."""
    config = config_of(data_dir)
    with closing(Journal(config.journal_url, durable=True)) as journal:
        run = journal.find_run("latest")
        assert run.bank_id is not None
        model_id = journal.model_of(run)
        bank = journal.load_bank(run.bank_id)
        assert load_bundle(data_dir / "models" / model_id).model_id == model_id == bank.encoder_version
        assert len(bank) > 0 and {entry.encoder_version for entry in bank.entries()} == {model_id}
        last = [swap for _, swap in journal.read_swaps(run.record.run_id)][-1:]
        assert model_id == (last[0].model_id if last else run.record.model_id)
    return model_id


@pytest.mark.slow
def test_a_run_killed_while_a_memory_is_written_and_again_after_the_swap_has_a_whole_model(tmp_path: Path):
    last = FIRST + 200
    make_candles(tmp_path, ("BTCUSDT",), last)
    old, new = train_tiny(tmp_path, 900), train_tiny(tmp_path, 1_000)
    arguments = paper_arguments(old, FIRST, last)
    recall(tmp_path, *arguments, "--max-bars", "5")
    assert recall(tmp_path, "models", "promote", new)["run_id"] is not None
    slowly = (*arguments, "--set", "sandbox.pause=0.5")
    assert kill_at(tmp_path, slowly, lambda data_dir: has_unused_bank(data_dir) or swaps(data_dir) > 0)
    if swaps(tmp_path) == 0:  # else the swap was faster than this test
        assert assert_whole_pair(tmp_path) == old
        assert recall(tmp_path, "status")["waiting_commands"] == ["swap"]
    assert kill_at(tmp_path, slowly, lambda data_dir: swaps(data_dir) > 0)
    assert assert_whole_pair(tmp_path) == new
    assert recall(tmp_path, "status")["waiting_commands"] == []
    ended = recall(tmp_path, *arguments)
    assert ended["finished"] and ended["decisions"] == 200 and ended["model_id"] == new
    assert not has_unused_bank(tmp_path) and swaps(tmp_path) == 1
    report = recall(tmp_path, "audit", "latest")
    assert report["differences"] == 0, report["first_differences"]


@pytest.mark.slow
def test_a_daemon_that_retrains_and_swaps_survives_twenty_kills(tmp_path: Path):
    """Killed twenty times at random moments, some of them chosen so that it is judging, encoding or swapping."""
    kills, bars = 20, 6_000
    make_candles(tmp_path, ("BTCUSDT",), FIRST + bars)
    arguments = (*paper_arguments(train_tiny(tmp_path, 900), FIRST, FIRST + bars), *RETRAINING)
    slowly = (*arguments, "--set", "sandbox.pause=0.05")
    recall(tmp_path, *arguments, "--max-bars", "5")
    rng = random.Random(4)
    came = dict.fromkeys(("any", "judging", "encoding", "swapped"), 0)
    for number in range(kills):
        name = list(came)[number % len(came)]
        before, delay = swaps(tmp_path), rng.uniform(0.0, 0.03)

        def just_swapped(data_dir: Path, before: int = before) -> bool:
            return swaps(data_dir) > before

        began = bars_in_journal(tmp_path)
        target = began + rng.randrange(1, 200)
        moments: dict[str, Moment] = {
            "any": lambda data_dir, target=target: bars_in_journal(data_dir) >= target,
            "judging": has_candidate,
            "encoding": has_unused_bank,
            "swapped": just_swapped,
        }

        def then_a_little_later(data_dir: Path, moment: Moment = moments[name], delay: float = delay) -> bool:
            return moment(data_dir) and not threading.Event().wait(delay)

        came[name] += kill_at(tmp_path, slowly, then_a_little_later)
        assert_whole_pair(tmp_path)
        assert bars_in_journal(tmp_path) >= began
    assert came == dict.fromkeys(came, kills // len(came))
    assert swaps(tmp_path) >= kills // len(came)
    done = bars_in_journal(tmp_path)
    recall(tmp_path, *arguments, "--max-bars", "300")
    assert bars_in_journal(tmp_path) == done + 300
    assert_whole_pair(tmp_path)
    report = recall(tmp_path, "audit", "latest")
    assert report["differences"] == 0, report["first_differences"]
    assert report["bars"] == done + 300
    checked = recall(tmp_path, "memory", "check", "latest")
    assert checked["differences"] == 0, checked["first_differences"]
