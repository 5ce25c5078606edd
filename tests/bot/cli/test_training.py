"""``recall train``: what it says about the keys of a model, and the flag that sets their whitening."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bot.errors import ExitCode
from tests.bot.cli.terminal import ask, recall
from tests.bot.cli.test_contract import MARKET, TINY_MODEL
from tests.runs import make_candles, span

CANDIDATES = [0.01, 0.1, 0.3, 1.0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with candles enough to compare whitenings."""
    folder = tmp_path_factory.mktemp("training")
    make_candles(folder / "recall-data", ("BTCUSDT",), 3500)
    return folder


def test_training_reports_the_candidates_and_what_came_of_the_keys(folder: Path) -> None:
    """As JSON, and the same in the bundle."""
    report = ask(folder, "train", *MARKET, *TINY_MODEL)
    choice, keys = report["whitening"], report["keys"]
    assert choice["source"] == "validation"
    assert [each["shrinkage"] for each in choice["candidates"]] == CANDIDATES
    assert choice["shrinkage"] in CANDIDATES
    assert abs(keys["key_anisotropy"]) < 0.1
    assert 1.0 <= keys["effective_neighbors"] <= keys["n_neighbors"] == 32
    assert 0.01 <= keys["temperature"] <= 1.0
    bundle = json.loads((folder / report["path"] / "bundle.json").read_text())
    assert bundle["model"]["shrinkage"] == choice["shrinkage"]
    assert bundle["metrics"]["whitening"] == choice


def test_people_read_a_table(folder: Path) -> None:
    """One row per candidate, one of them chosen, and a sentence about the keys."""
    outcome = recall(folder, "train", *MARKET, *TINY_MODEL)
    assert outcome.code == 0
    lines = outcome.err.splitlines()
    start = next(number for number, line in enumerate(lines) if "behind the best" in line)
    rows = [line.split() for line in lines[start + 1 : start + 5]]
    assert [float(row[0]) for row in rows] == CANDIDATES
    assert sum("chosen" in row for row in rows) == 1
    assert "mean cosine of two states" in outcome.err
    assert "of 32 neighbours" in outcome.err


def test_training_says_in_words_what_the_memory_is_worth(folder: Path) -> None:
    """With it, without it and with shuffled outcomes; and as a sentence that rests on a standard error."""
    report = ask(folder, "train", *MARKET, *TINY_MODEL)
    validation = report["validation"]
    for name in ("with_memory", "without_memory", "shuffled_outcomes"):
        assert validation[name]["loss"] > 0.0
    found = validation["over_shuffled"]
    assert found["gain"] == pytest.approx(
        validation["shuffled_outcomes"]["loss"] - validation["with_memory"]["loss"], abs=1e-5
    )
    assert found["stretches"] >= 5 and found["standard_error"] > 0.0
    apart = abs(found["gain"]) > 2.0 * found["standard_error"]
    assert report["verdict"].startswith(
        "what the memory remembers matters" if apart else "the memory cannot be told from one with shuffled outcomes"
    )
    shown = recall(folder, "train", *MARKET, *TINY_MODEL).err
    assert "with shuffled outcomes" in shown and "always saying the commoner side" in " ".join(shown.split())


def test_a_backtest_of_what_a_model_has_learned_from_is_refused_unless_asked_for_by_name(folder: Path) -> None:
    """Hindsight needs its name; without a start the replay begins after the learning."""
    model = ask(folder, "train", *MARKET, *TINY_MODEL, *span(0, 3000))["model_id"]
    inside = ("backtest", *MARKET, "--model", model, "--no-plot", *span(2900, 3100))
    outcome = recall(folder, *inside)
    assert outcome.code == ExitCode.USAGE
    assert "learned from bars up to" in outcome.error and "--set model.in_sample=true" in outcome.error
    assert ask(folder, *inside, "--set", "model.in_sample=true")["bars"] == 200
    assert ask(folder, "backtest", *MARKET, "--model", model, "--no-plot", *span(3000, 3100))["bars"] == 100
    assert ask(folder, "backtest", *MARKET, "--model", model, "--no-plot")["bars"] == 500


def test_the_flag_and_the_key_fix_the_whitening(folder: Path) -> None:
    """The flag wins, and auto is back to choosing."""
    told = ask(folder, "train", *MARKET, *TINY_MODEL, "--whitening", "0.5")
    assert (told["whitening"]["shrinkage"], told["whitening"]["source"]) == (0.5, "given")
    by_key = ("--set", "model.whitening=0.2")
    assert ask(folder, "train", *MARKET, *TINY_MODEL, *by_key)["whitening"]["shrinkage"] == 0.2
    again = ask(folder, "train", *MARKET, *TINY_MODEL, *by_key, "--whitening", "auto")
    assert again["whitening"]["source"] == "validation"


@pytest.mark.parametrize("value", ["0", "2", "strong", "nan"])
def test_a_whitening_that_cannot_be_is_refused(value: str, folder: Path) -> None:
    """In one sentence."""
    outcome = recall(folder, "train", *MARKET, *TINY_MODEL, "--whitening", value)
    assert outcome.code == ExitCode.USAGE
    assert outcome.error == (
        f"model.whitening was '{value}' in the command line, which is not allowed: it must be auto, or a number from "
        "0.001 to 1"
    )
