"""The command contract: help with examples, one JSON document, exit codes, and never a traceback."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from bot.cli.app import COMMANDS
from bot.cli.app import recall as root
from bot.errors import ExitCode
from tests.bot.cli.terminal import PROJECT, SHORT, ask, interrupt, recall, run_process, start
from tests.runs import INTERVAL, make_candles

MARKET = ("--symbols", "BTCUSDT", "--interval", INTERVAL)
TINY_MODEL = (
    "--epochs", "1", "--threads", "1", "--memory-size", "1000", "--set", "model.d_model=16", "--set", "model.d_ff=16",
    "--set", "model.n_layers=1", "--set", "model.attention_window=16",
)  # fmt: skip


def all_commands() -> Iterator[tuple[str, ...]]:
    """The words of every command and group."""
    context = click.Context(root)
    for name in COMMANDS:
        command = root.get_command(context, name)
        yield (name,)
        if isinstance(command, click.Group):
            yield from ((name, below) for below in command.list_commands(context))


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with candles, a model, a replay and a paper run that was stopped."""
    folder = tmp_path_factory.mktemp("workplace")
    make_candles(folder / "recall-data", ("BTCUSDT",), 900)
    ask(folder, "train", *MARKET, *TINY_MODEL)
    ask(folder, "backtest", *MARKET, "--strategy", "sma_cross", "--no-plot")
    ask(folder, "paper", "--strategy", "sma_cross", *SHORT, "--max-bars", "30")
    return folder


@pytest.mark.parametrize("words", list(all_commands()), ids=" ".join)
def test_help_of_every_command_has_an_example(words: tuple[str, ...], tmp_path: Path) -> None:
    """Of that very command, on a line of its own, ready to be pasted."""
    outcome = recall(tmp_path, *words, "--help")
    assert outcome.code == 0 and outcome.err == ""
    examples = outcome.out.partition("\nExample")[2].splitlines()[1:]
    # A variable may stand before the command.
    assert examples and all(re.match(rf"  (\w+=\S+ )?recall {' '.join(words)}\b", line) for line in examples)


def test_the_list_of_commands_says_what_their_own_help_says(tmp_path: Path) -> None:
    """The list is kept apart so that it loads nothing; this keeps the two the same."""
    for name, entry in COMMANDS.items():
        command = root.get_command(click.Context(root), name)
        assert command is not None
        assert command.get_short_help_str(200) == entry.summary, name
        assert entry.summary in re.sub(r"\n {10,}", " ", recall(tmp_path, "--help").out), name


@pytest.mark.parametrize(
    ("arguments", "most_modules"),
    [
        (["--help"], {"numpy", "pydantic", "rich", "sqlalchemy", "pyarrow"}),
        (["config", "show"], {"sqlalchemy", "pyarrow"}),
        (["status"], {"pyarrow"}),
        (["paper", "--help"], set()),
        (["models", "list"], set()),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_light_commands_load_nothing_heavy(arguments: list[str], most_modules: set[str], tmp_path: Path) -> None:
    """Seconds of imports have no place before a line of text."""
    script = (
        "import sys\nfrom bot.cli.app import run\n"
        f"run({arguments!r})\nprint('LOADED', *sorted(m for m in sys.modules if '.' not in m))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={"PYTHONPATH": str(PROJECT), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(done.stdout.rpartition("LOADED")[2].split())
    assert not loaded & ({"torch", "faiss", "pandas", "matplotlib", "yfinance"} | most_modules)


@pytest.mark.parametrize(
    "arguments",
    [
        ("config", "check"),
        ("config", "show"),
        ("data", "list"),
        ("data", "check", *MARKET),
        ("models", "list"),
        ("models", "show"),
        ("backtest", *MARKET, "--strategy", "sma_cross"),
        ("probe", *MARKET, "--strategy", "sma_cross", "--cuts", "2", "--bars", "60"),
        ("paper", "--strategy", "sma_cross", *SHORT, "--max-bars", "2"),
        ("runs",),
        ("status",),
        ("positions",),
        ("why", "last"),
        ("halt",),
        ("resume",),
        ("flatten",),
        ("audit",),
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_json_is_exactly_one_document_on_standard_output(arguments: tuple[str, ...], workplace: Path) -> None:
    """Everything else that is said goes to standard error."""
    outcome = recall(workplace, *arguments, "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.document is not None
    assert "NaN" not in outcome.out and "Infinity" not in outcome.out


def test_people_get_tables_that_cut_nothing(workplace: Path) -> None:
    """Run ids stay whole, headings have no ellipsis and no line is wider than a narrow terminal."""
    run_id = ask(workplace, "status")["run_id"]
    commands = [["runs"], ["status"], ["positions"], ["why", "last"], ["models", "list"], ["data", "list"]]
    script = f"from bot.cli.app import run\nfor words in {commands!r}:\n    assert run(words) == 0"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=workplace,
        env={"PYTHONPATH": str(PROJECT), "PATH": "", "COLUMNS": "80"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.count(run_id) == 2
    assert "…" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


# -- exit codes -----------------------------------------------------------------------------------------------------


def test_done_is_0(tmp_path: Path) -> None:
    """Through the real process as well."""
    assert recall(tmp_path, "config", "check").code == ExitCode.DONE == 0
    assert run_process(tmp_path, "--version").code == 0


def test_a_check_that_finds_something_is_1(tmp_path: Path) -> None:
    """Stored candles are refused when bad, so a strategy that looks ahead is the check that fails here."""
    make_candles(tmp_path / "recall-data", ("BTCUSDT",), 400)
    arguments = ("probe", *MARKET, "--strategy", "tests.bot.cli.strategies:Peeks", "--cuts", "2", "--bars", "100")
    outcome = recall(tmp_path, *arguments)
    assert outcome.code == ExitCode.CHECK_FAILED == 1
    assert outcome.error.startswith("tests.bot.cli.strategies:Peeks looks ahead: BTCUSDT 2022-01-")


BAD_USAGE = {
    "trade": "No such command 'trade'; see recall --help",
    "paper --max-bars 0": "Invalid value for '--max-bars': 0 is not in the range x>=1; see recall paper --help",
    "status": "there is no run in the journal yet; start one with recall paper or recall backtest",
    "audit paper-1": "there is no run in the journal yet; start one with recall paper or recall backtest",
    "doctor": "the sandbox that starts inside recall paper and recall live has no account to look at; give --venue "
    "testnet, demo or bybit, or start recall sandbox and set venue.sandbox_url to its URL",
    "models show": "there is no model yet; see recall models list, or run recall train",
    "data check": "the candle store is empty: get some with recall fetch",
    "data check --symbols X --interval 60": "X has no stored candles of interval 60; get them with "
    "recall fetch --symbols X --interval 60",
    "backtest --start 2024-02-30": "date '2024-02-30' is not understood; write 2024-01-31 or 2024-01-31T06:00 (UTC)",
    "backtest --start 2024-01-02 --end 2024-01-01": "--start 2024-01-02 is not before --end 2024-01-01; swap them or "
    "widen the span",
    "backtest --symbols ,": "--symbols is empty; name at least one symbol, such as BTCUSDT",
    "backtest --symbols A,B,A": "--symbols names one symbol twice: A,B,A",
    "paper --interval 7": "--interval: interval '7' is unknown; use one of 1, 3, 5, 15, 30, 60, 120, 240, 360, 720, D, "
    "W, M (minutes, or D, W, M)",
    "paper --interval M": "the synthetic market has no monthly bars; give an --interval of a week or less",
    "paper --memory-size 5": "memory.memory_size was 5 in the command line; it must be a whole number, 100 or more, "
    "at most 1000000",
    "paper --venue bybit --end 2024-01-01": "--start and --end choose what the embedded sandbox plays; leave them out "
    "for another venue",
    "paper --set sandbox.source=store --strategy sma_cross": "BTCUSDT has no stored candles of interval 60; get them with "
    "recall fetch --symbols BTCUSDT --interval 60",
    "paper --set sandbox.history_bars=10 --strategy sma_cross": "sma_cross needs 50 bars to warm up on, and "
    "sandbox.history_bars is 10; raise it",
    "sandbox --stepped --speed 2": "--speed and --stepped exclude each other; choose one",
    "sandbox --speed 0": "--speed was 0.0; it must be greater than 0, or use --stepped",
    "fetch candles.csv": "PATH candles.csv goes with --source file; leave it out or add --source file",
    "fetch --source file candles.csv --symbols A,B": "--source file takes one PATH and exactly one --symbol",
    "config show --set risk.stop_los=1": "risk.stop_los in --set is unknown; did you mean risk.stop_loss?",
    "config show --config nowhere.toml": "config file nowhere.toml does not exist; give --config an existing TOML file",
}


@pytest.mark.parametrize(("command", "sentence"), BAD_USAGE.items(), ids=BAD_USAGE)
def test_bad_usage_is_2_and_one_sentence(command: str, sentence: str, tmp_path: Path) -> None:
    """What is wrong, and the fix."""
    outcome = recall(tmp_path, *command.split())
    assert outcome.code == ExitCode.USAGE == 2
    assert outcome.error == sentence
    assert outcome.out == ""


def test_a_venue_that_does_not_answer_is_3(tmp_path: Path) -> None:
    """Nothing listens at that address."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    arguments = (
        "paper",
        "--strategy",
        "sma_cross",
        "--set",
        f"venue.sandbox_url={url}",
        "--set",
        "venue.rest_timeout=0.2",
    )
    outcome = run_process(tmp_path, *arguments)
    assert outcome.code == ExitCode.VENUE == 3
    assert url in outcome.error and outcome.out == ""


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        ("Broken", "ZeroDivisionError: division by zero"),
        ("Confused", "ValueError: cannot make sense of BTCUSDT at all"),
    ],
)
@pytest.mark.parametrize("command", ["backtest", "paper"])
def test_what_nobody_expected_is_4_and_still_one_sentence(
    command: str, strategy: str, message: str, tmp_path: Path
) -> None:
    """A bug in a user's strategy; RECALL_DEBUG shows where it is."""
    make_candles(tmp_path / "recall-data", ("BTCUSDT",), 300)
    name = f"tests.bot.cli.strategies:{strategy}"
    options = MARKET if command == "backtest" else (*SHORT, "--max-bars", "3")
    outcome = recall(tmp_path, command, *options, "--strategy", name)
    assert outcome.code == ExitCode.INTERNAL == 4
    assert outcome.error == (
        f"an internal error happened: {message}; set RECALL_DEBUG=1 to see where, and please report it"
    )


def test_recall_debug_shows_where_it_happened(tmp_path: Path) -> None:
    """For whoever has to mend it."""
    make_candles(tmp_path / "recall-data", ("BTCUSDT",), 300)
    arguments = ("backtest", *MARKET, "--strategy", "tests.bot.cli.strategies:Broken")
    outcome = run_process(tmp_path, *arguments, variables={"RECALL_DEBUG": "1"})
    assert outcome.code == 4
    assert "Traceback" in outcome.err and "return Signal(bar.symbol, bar.open_time, 1 / 0)" in outcome.err


def test_interrupted_work_is_130(tmp_path: Path) -> None:
    """Ctrl-C in the middle of a replay, which leaves no run behind."""
    make_candles(tmp_path / "recall-data", ("BTCUSDT",), 300)
    outcome = recall(tmp_path, "backtest", *MARKET, "--strategy", "tests.bot.cli.strategies:Impatient")
    assert outcome.code == ExitCode.INTERRUPTED == 130
    assert outcome.err.splitlines()[-1] == "stopped: interrupted"
    assert ask(tmp_path, "runs") == []


def test_ctrl_c_stops_paper_trading_cleanly(tmp_path: Path) -> None:
    """That is its normal end: 0, a summary, and a run that can go on."""
    with start(tmp_path, "paper", "--strategy", "sma_cross", *SHORT, "--set", "sandbox.pause=0.05") as process:
        assert process.stderr is not None
        while "bar 1 " not in process.stderr.readline():
            assert process.poll() is None
        outcome = interrupt(process)
    assert outcome.code == 0, outcome.err
    assert "The same command goes on with this run." in outcome.out
    assert ask(tmp_path, "status")["status"] == "stopped"


def test_the_sandbox_says_where_it_listens_and_stops_on_ctrl_c(tmp_path: Path) -> None:
    """With --json as one document that a script can read."""
    with start(tmp_path, "sandbox", "--synthetic", "3", "--port", "0", "--stepped", "--json") as process:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "}\n")
        assert '"rest_url": "http://127.0.0.1:' in "".join(lines)
        assert interrupt(process).code == 0


@pytest.mark.parametrize("group", [(), ("data",), ("memory",)])
def test_a_group_without_a_command_shows_its_help(group: tuple[str, ...], tmp_path: Path) -> None:
    """In full and on standard error, because nothing was done."""
    outcome = recall(tmp_path, *group)
    assert (outcome.code, outcome.out) == (ExitCode.USAGE, "")
    assert "Usage: recall" in outcome.err and "error:" not in outcome.err
    assert len(outcome.err.splitlines()) > 10


def test_an_unknown_option_points_at_the_help(tmp_path: Path) -> None:
    """In the words of the library that reads the command line."""
    outcome = recall(tmp_path, "status", "--loud")
    assert outcome.code == 2
    assert "--loud" in outcome.error and outcome.error.endswith("; see recall status --help")


@pytest.mark.parametrize("arguments", [(), ("--json",)])
def test_a_reader_that_goes_away_is_no_error(arguments: tuple[str, ...], workplace: Path) -> None:
    """As in ``recall config show | head -1``."""
    with start(workplace, "config", "show", *arguments) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 0
