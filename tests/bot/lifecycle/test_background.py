"""The background process: what its bot hears of it, and that it ends when the bot does."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from bot.journal import Journal
from bot.lifecycle.background import COMMAND, converse
from bot.lifecycle.job import Job, Message, Outcome, Progress
from tests.models import config_of, paper_arguments, train_tiny
from tests.runs import make_candles, recall

JOB = Job({}, "run-1")
DEADLINE_S = 60.0


def speaking(code: str) -> subprocess.Popen[bytes]:
    """A process that may say anything."""
    return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def line(message: Message) -> str:
    return f"print({msgspec.json.encode(message).decode()!r}, flush=True);"


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("raise SystemExit(3)", "the background process ended with code 3"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "the background process ended with code -9"),
        ("print('{\"type\": \"outc', end='')", "the background process ended with code 0"),
    ],
)
def test_a_process_that_dies_or_falls_silent_in_the_middle_of_a_word_is_a_problem_in_one_sentence(
    code: str, problem: str
):
    said = line(Progress("training", 0.5)) + code
    heard: list[Progress] = []
    assert converse(JOB, speaking(said), heard.append) == Outcome(problem=problem)
    assert heard == [Progress("training", 0.5)]


def test_a_process_is_given_its_job_and_its_input_stays_open_until_it_has_told_the_outcome():
    code = "import sys; job = sys.stdin.readline(); assert 'run-1' in job;" + line(Outcome(problem="nothing to do"))
    code += "assert sys.stdin.read() == ''"
    assert converse(JOB, speaking(code), lambda _: None).problem == "nothing to do"


@pytest.mark.slow
def test_a_worker_ends_when_its_bot_does(tmp_path: Path):
    """In the middle of a training that would take an hour."""
    make_candles(tmp_path, ("BTCUSDT",), 1_400)
    recall(tmp_path, *paper_arguments(train_tiny(tmp_path, 900), 1_100, 1_400), "--max-bars", "5")
    config = config_of(tmp_path, "retraining.epochs=10000", "training.patience=1000", "retraining.judge_bars=130")
    with closing(Journal(config.journal_url, durable=True)) as journal:
        run_id = journal.find_run("latest").record.run_id
    process = subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.write(msgspec.json.encode(Job(config.model_dump(mode="json"), run_id, until=5)) + b"\n")
        process.stdin.flush()
        assert msgspec.json.decode(process.stdout.readline(), type=Message) == Progress(
            "training", pytest.approx(0, abs=0.1)
        )
        process.stdin.close()
        assert process.wait(DEADLINE_S) == 1
        rest = [msgspec.json.decode(said, type=Message) for said in process.stdout.read().splitlines()]
        assert not any(isinstance(message, Outcome) for message in rest)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
