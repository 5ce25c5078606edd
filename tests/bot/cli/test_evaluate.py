"""``recall evaluate`` through the real command line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bot.cli.app import run
from bot.errors import ExitCode
from strategies.bars import format_time
from tests.runs import INTERVAL, make_candles, recall, time_of

MARKET = ("--symbols", "BTCUSDT,ETHUSDT", "--interval", INTERVAL)
SPAN = ("--train-end", format_time(time_of(1500)), "--end", format_time(time_of(2200)))


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluate")
    make_candles(folder, ("BTCUSDT", "ETHUSDT"), 2200)
    return folder


def test_baselines_are_scored_with_controls_goals_and_plots(data_dir: Path):
    plots = data_dir / "plots"
    document = recall(data_dir, "evaluate", *MARKET, *SPAN, "--only", "baselines", "--plots", str(plots))
    names = {result["forecaster"] for result in document["results"]}
    assert {"flat", "hold", "hold_targeted", "momentum", "har", "ridge", "boosting", "knn", "knn conformal"} <= names
    assert {"knn: shuffled outcomes", "knn: frozen", "knn: LEAK"} <= names
    assert document["goals"]["har"]["vol_r2_minus_har"] == 0.0
    assert set(document["leaks"]) == {"knn"}
    # The folder has every figure of an evaluation, and every picture is one.
    assert {path.name for path in plots.iterdir()} == {
        "reliability.png", "coverage.png", "memory_size.png", "risk_coverage.png",
    }  # fmt: skip
    assert all(Path(path).read_bytes().startswith(b"\x89PNG") for path in document["plots"])


def test_the_tables_name_everyone(data_dir: Path, capsys: pytest.CaptureFixture[str]):
    setting = f"storage.data_dir={data_dir}"
    assert run(["evaluate", *MARKET, *SPAN, "--only", "baselines", "--set", setting]) == ExitCode.DONE
    text = capsys.readouterr().out
    assert "boosting" in text and "LEAK" in text and "Diebold" not in text and "diebold mariano" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--train-end", "2022-01-01"), "nothing to learn from"),
        (("--train-end", "2032-01-01"), "not before the last stored candle"),
        ((), "nothing to learn from"),  # candles of less than a year
        (("--train-end", format_time(time_of(1500)), "--model", "mt-000000000000"), "mt-000000000000"),
        (("--train-end", format_time(time_of(1500)), "--model", "latest"), "there is no model"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_in_one_sentence(data_dir, capsys, arguments, words):
    setting = f"storage.data_dir={data_dir}"
    assert run(["evaluate", *MARKET, *arguments, "--set", setting]) == ExitCode.USAGE
    error = capsys.readouterr().err
    assert words in error and "Traceback" not in error


def test_a_missing_extra_is_named_with_how_to_get_it(data_dir, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "arch", None)
    assert run(["evaluate", *MARKET, *SPAN, "--set", f"storage.data_dir={data_dir}"]) == ExitCode.USAGE
    assert "pip install 'recall-bot[evaluate]'" in capsys.readouterr().err
