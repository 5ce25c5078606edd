"""``recall train``: what it says about the keys of a model, and the flag that sets their whitening."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bot.errors import ExitCode
from tests.bot.cli.terminal import ask, recall
from tests.bot.cli.test_contract import MARKET, TINY_MODEL
from tests.runs import make_candles

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
