"""A strategy of the user's own: named on the command line or in the file, and the example of the documents."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bot.errors import ExitCode
from tests.bot.cli.terminal import PROJECT, ask, recall, run_process
from tests.bot.cli.test_contract import MARKET
from tests.runs import make_candles

MINE = "tests.bot.cli.strategies"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a month of candles."""
    folder = tmp_path_factory.mktemp("mine")
    make_candles(folder / "recall-data", ("BTCUSDT",), 700)
    return folder


def test_a_class_of_the_user_can_be_replayed(folder: Path) -> None:
    """By its name, with parameters, and looked up from the folder that PYTHONPATH names."""
    options = ("--strategy", f"{MINE}:BuyTheDip", "--set", "strategy.parameters.bars=5", "--no-plot")
    document = ask(folder, "backtest", *MARKET, *options)
    assert document["strategy"] == f"{MINE}:BuyTheDip"
    assert document["bars"] == 695 and document["trades"] > 10
    report = ask(folder, "probe", *MARKET, *options[:4], "--cuts", "3", "--bars", "200")
    assert report["leaks"] == 0 and report["recursion"]["changes"] is False
    assert [each["bars"] for each in report["recursion"]["warm_ups"]] == [10, 20]


def test_a_report_knows_of_the_probe_of_the_same_strategy_with_the_same_settings(folder: Path) -> None:
    """One of other parameters does not count."""
    options = ("--strategy", f"{MINE}:BuyTheDip", "--set", "strategy.parameters.bars=7")
    run_id = ask(folder, "backtest", *MARKET, *options, "--no-plot")["run_id"]

    def said() -> str:
        ask(folder, "report", run_id, "--out", "report.html")
        page = (folder / "report.html").read_text()
        return re.findall("Lookahead probe not run|Lookahead probe passed|The lookahead probe failed", page)[0]

    ask(folder, "probe", *MARKET, *options[:2], "--cuts", "2", "--bars", "60", "--set", "strategy.parameters.bars=9")
    assert said() == "Lookahead probe not run"
    ask(folder, "probe", *MARKET, *options, "--cuts", "2", "--bars", "60")
    assert said() == "Lookahead probe passed"


def test_a_strategy_that_asks_for_too_few_bars_is_told_so(folder: Path) -> None:
    """Its signals change when it is warmed from more."""
    outcome = recall(folder, "probe", *MARKET, "--strategy", f"{MINE}:Forgetful", "--cuts", "2", "--bars", "200")
    assert outcome.code == ExitCode.CHECK_FAILED
    assert (
        f"{MINE}:Forgetful needs a longer past than the 1 bars it asks for: its signals change up to" in outcome.error
    )
    assert "signals depend on how long the past was" in outcome.out


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            ("--strategy", "momentum"),
            "strategy 'momentum' is unknown; use memory_transformer, similarity, sma_cross, buy_and_hold, or your own "
            "class as package.module:Class",
        ),
        (
            ("--strategy", "nowhere.at_all:Mine"),
            "strategy 'nowhere.at_all:Mine' cannot be loaded: No module named 'nowhere'; check the name and that its "
            "folder is on PYTHONPATH",
        ),
        (
            ("--strategy", f"{MINE}:Missing"),
            f"strategy '{MINE}:Missing' cannot be loaded: module '{MINE}' has no attribute 'Missing'; check the name and "
            "that its folder is on PYTHONPATH",
        ),
        (
            ("--strategy", f"{MINE}:Unfinished"),
            f"strategy '{MINE}:Unfinished' is not a subclass of strategies.base.Strategy with all its methods",
        ),
        (
            ("--strategy", "pathlib:Path"),
            "strategy 'pathlib:Path' is not a subclass of strategies.base.Strategy with all its methods",
        ),
        (
            ("--strategy", f"{MINE}:BuyTheDip", "--set", "strategy.parameters.days=5"),
            f"strategy {MINE}:BuyTheDip does not take strategy.parameters {{'days': 5}}: BuyTheDip.__init__() got an "
            "unexpected keyword argument 'days'; it takes bars",
        ),
        (
            ("--strategy", "sma_cross", "--set", "strategy.parameters.fast=90"),
            "strategy sma_cross does not take strategy.parameters {'fast': 90}: sma_cross: fast is 90 and slow is 50; give "
            "1 <= fast < slow; it takes fast, slow, long_only",
        ),
    ],
)  # fmt: skip
def test_a_strategy_that_cannot_be_had_is_refused(options: tuple[str, ...], sentence: str, folder: Path) -> None:
    """Unknown, not importable, not there, unfinished, no strategy, or with parameters that it does not take."""
    outcome = recall(folder, "backtest", *MARKET, *options)
    assert outcome.code == ExitCode.USAGE
    assert outcome.error == sentence


@pytest.mark.parametrize("command", [("backtest",), ("paper", "--venue", "sandbox")])
def test_an_unknown_strategy_is_refused_before_anything_else_is_looked_at_or_begun(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    """Here are no candles, which would be the next thing to complain of, and no run is begun to be left behind."""
    outcome = recall(tmp_path, *command, "--strategy", "momentum")
    assert outcome.code == ExitCode.USAGE
    assert outcome.error.startswith("strategy 'momentum' is unknown; ")
    assert outcome.out == ""


def test_the_example_of_the_documents_works(folder: Path, tmp_path: Path) -> None:
    """The listing in docs/strategies.md, saved as it says and run with the commands it shows."""
    text = (PROJECT / "docs" / "strategies.md").read_text()
    (listing,) = re.findall(r"```python\n# (\w+\.py)\n(.*?)```", text, re.DOTALL)
    (tmp_path / listing[0]).write_text(listing[1])
    (tmp_path / "recall-data").symlink_to(folder / "recall-data")
    commands = [line.split()[1:] for line in re.findall(r"^PYTHONPATH=\. (recall .*)$", text, re.MULTILINE)]
    assert len(commands) >= 3
    for command in commands:
        outcome = run_process(tmp_path, *command, variables={"PYTHONPATH": f".:{PROJECT}"})
        assert outcome.code == 0, outcome.err
