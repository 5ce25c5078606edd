"""The documents are true: what they link, name, tabulate and show exists, parses and runs."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import click
import pytest

from backtest.probe import probe
from backtest.replay import replay
from bot.cli.app import recall
from bot.engine import SimulatedEngine
from bot.errors import ExitCode
from bot.execution.fills import Costs
from bot.journal import schema
from bot.orders import Verdict
from bot.portfolio import ClosedTrade
from bot.settings import Settings
from examples.breakout import Breakout
from memory_store.storage import memory_metadata
from strategies.errors import SettingsError
from strategies.memory_transformer.config import RECOMMENDED
from tests.bot.scenes import A, B, bar, engine_of, walk

PROJECT = Path(__file__).parents[2]
DOCUMENTS = [path for path in (PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))) if path.is_file()]
OUR_FOLDERS = "backtest|benchmarks|bot|docs|examples|memory_store|strategies|tests"

_FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
_INLINE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_MENTION = re.compile(rf"(?:{OUR_FOLDERS})/[\w./-]*(?:::\w+)?")
_PLACEHOLDERS = ("COMMAND", "...")
"""Words that stand for any command."""


@cache
def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def prose_of(path: Path) -> str:
    """A document without its listings."""
    return _FENCE.sub("", text_of(path))


def listings_of(path: Path) -> list[tuple[str, str]]:
    """Language and content of every listing."""
    return _FENCE.findall(text_of(path))


def table_of(path: Path, *headings: str) -> list[list[str]]:
    """The cells of every table with these first headings, code marks taken off the first cell."""
    rows: list[list[str]] = []
    reading = False
    for line in prose_of(path).splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")] if line.startswith("|") else []
        if not cells:
            reading = False
        elif tuple(cells[: len(headings)]) == headings:
            reading = True
        elif reading and not set(line) <= set("|- :"):
            rows.append([cells[0].strip("`"), *cells[1:]])
    assert rows, f"{path.name} has no table {headings}"
    return rows


def anchors_of(path: Path) -> set[str]:
    """Names of headings as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose_of(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands_of(path: Path) -> Iterator[str]:
    """Every call of ``recall`` in listings and in running text."""
    for _, content in listings_of(path):
        for line in content.replace("\\\n", " ").splitlines():
            words = re.match(r"\s*(?:\$ )?(?:\w+=\S+ )*(recall .*)", line)
            if words:
                yield words[1]
    for code in _INLINE.findall(prose_of(path)):
        if code.startswith("recall "):
            yield code


def parse(words: list[str]) -> None:
    """Read a command line as click would, without running it."""
    command: click.Command = recall
    context = click.Context(recall, info_name="recall")
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(context, words[0])
        assert found is not None, f"there is no command {words[0]}"
        command, words = found, words[1:]
        context = click.Context(command, info_name=command.name, parent=context)
    try:
        command.make_context(command.name, list(words), parent=context.parent)
    except click.exceptions.Exit as done:
        assert done.exit_code == 0  # --help and --version end here
    except click.exceptions.NoArgsIsHelpError:
        pass  # a group that is only named


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_relative_link_leads_somewhere(path: Path) -> None:
    """To a file of the project and, where it names a heading, to that heading."""
    for target in _LINK.findall(prose_of(path)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        place = (path.parent / name).resolve() if name else path
        assert place.exists(), f"{path.name} links {target}"
        assert not anchor or anchor in anchors_of(place), f"{path.name} links {target}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_file_class_function_and_test_that_is_named_exists(path: Path) -> None:
    """``folder/file.py`` is there, and ``folder/file.py::name`` defines the name."""
    for code in _INLINE.findall(prose_of(path)):
        for mention in _MENTION.findall(code):
            name, _, member = mention.partition("::")
            place = PROJECT / name
            assert place.exists(), f"{path.name} names {mention}"
            if member:
                defined = rf"^\s*(?:(?:async )?def|class) {member}\b|^{member}\b\s*[:=]"
                assert re.search(defined, place.read_text(), re.MULTILINE), f"{path.name} names {mention}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_that_is_shown_can_be_typed(path: Path) -> None:
    """The command exists and takes these options and arguments."""
    for line in commands_of(path):
        words = shlex.split(re.split(r"\s[|>&]+\s", line)[0], comments=True)[1:]
        if words and words[0] not in _PLACEHOLDERS:
            try:
                parse(words)
            except (click.ClickException, AssertionError) as problem:
                pytest.fail(f"{path.name} shows {line!r}: {problem}")


def test_a_wrong_command_would_be_noticed() -> None:
    """The check above sees unknown commands, options and values."""
    with pytest.raises(AssertionError):
        parse(["nonsense"])
    with pytest.raises(click.NoSuchOption):
        parse(["backtest", "--nonsense"])
    with pytest.raises(click.BadParameter):
        parse(["paper", "--max-bars", "none"])


def test_the_table_of_exit_codes_is_the_one_of_the_code() -> None:
    """Every code with its name, in order."""
    rows = table_of(PROJECT / "docs" / "architecture.md", "code", "name", "meaning")
    assert [(int(row[0]), row[1].strip("`")) for row in rows] == [(code.value, code.name) for code in ExitCode]


def test_the_table_of_the_journal_is_its_schema() -> None:
    """Every table is described, and no other."""
    rows = table_of(PROJECT / "docs" / "architecture.md", "table", "what it holds")
    assert sorted(row[0] for row in rows) == sorted([*schema.metadata.tables, *memory_metadata.tables])


def test_the_table_of_verdicts_is_the_one_of_the_code() -> None:
    """Every verdict, in order."""
    rows = table_of(PROJECT / "docs" / "strategies.md", "verdict", "meaning")
    assert [row[0] for row in rows] == [verdict.value for verdict in Verdict]


def as_written(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


@pytest.mark.parametrize("name", ["assumptions.md", "model.md"])
def test_defaults_are_those_of_the_settings(name: str) -> None:
    """Every option that a table names exists and has that default."""
    for option, default, *_ in table_of(PROJECT / "docs" / name, "option", "default"):
        section, key = option.split(".")
        assert as_written(getattr(getattr(Settings(), section), key)) == default, option


def test_recommended_ranges_are_those_that_the_model_warns_about() -> None:
    """For the options outside of whose range a warning is given."""
    rows = table_of(PROJECT / "docs" / "model.md", "option", "default", "recommended")
    shown = {row[0].split(".")[1]: row[2] for row in rows}
    for name, (lowest, highest) in RECOMMENDED.items():
        assert shown[name] == f"{lowest} to {highest}"


def test_the_listing_is_the_example() -> None:
    """What is shown can be copied from the folder of examples, and the other way round."""
    listings = [
        content for language, content in listings_of(PROJECT / "docs" / "strategies.md") if language == "python"
    ]
    assert listings == [f"# breakout.py\n{text_of(PROJECT / 'examples' / 'breakout.py')}"]


def warmed(**parameters: float) -> SimulatedEngine:
    strategy = Breakout(bars=12, **parameters)
    strategy.warm({A: walk(600, 1).slice(0, 60), B: walk(600, 2, B).slice(0, 60)})
    return engine_of(strategy, A, B, costs=Costs())


def test_the_example_trades_in_replay_and_repeats_itself() -> None:
    """On two symbols, with the same decisions every time."""
    series = {A: walk(600, 1).slice(60, 600), B: walk(600, 2, B).slice(60, 600)}
    trades: list[ClosedTrade] = []
    first, second = (replay(warmed(), series, trades=trades, keep_all_decisions=True) for _ in range(2))
    assert first.bars == 1080 and len(first.executions) > 10
    assert first.decisions_sha256 == second.decisions_sha256
    assert {decision.signal.target_exposure for decision in first.decisions} == {1.0, 0.0, None}


def test_the_example_does_not_look_ahead() -> None:
    """The probe finds nothing."""
    series = {A: walk(600, 1).slice(60, 600), B: walk(600, 2, B).slice(60, 600)}
    assert probe(warmed, series, cuts=6, seed=3).leaks == 0


def test_the_state_of_the_example_is_a_function_of_the_bars_shown() -> None:
    """Warming with more bars is having been shown them."""
    bars = walk(120, 4)
    warm, cold = Breakout(bars=12), Breakout(bars=12)
    cold.warm({A: bars.slice(0, 50)})
    for each in bars.slice(50, 100).bars():
        cold.on_bar(each)
    warm.warm({A: bars.slice(0, 100)})
    for each in bars.slice(100, 120).bars():
        assert warm.on_bar(each) == cold.on_bar(each)


def test_the_example_says_unknown_before_it_has_a_range_and_refuses_senseless_parameters() -> None:
    """As the document tells its readers to do."""
    assert Breakout().on_bar(bar(0)).target_exposure is None
    with pytest.raises(SettingsError, match="bars is 1"):
        Breakout(bars=1)
    with pytest.raises(SettingsError, match="stop is 1"):
        Breakout(stop=1.0)


def test_the_example_can_be_imported_without_the_bot() -> None:
    """A strategy needs the floors below it only."""
    code = "import sys, examples.breakout; assert not any(name.split('.')[0] == 'bot' for name in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=False).returncode == 0
