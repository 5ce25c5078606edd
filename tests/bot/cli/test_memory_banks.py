"""Stored memories: counted, made again and compared, encoded anew, pruned, and taken elsewhere in a file."""

from __future__ import annotations

import shutil
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from bot.errors import ExitCode
from memory_store.registry import find_bank
from memory_store.transfer import export_bank
from strategies.bars import DAY_MS, format_time
from tests.bot.cli.terminal import ask, recall
from tests.bot.cli.test_contract import MARKET, TINY_MODEL
from tests.runs import INTERVAL, journal_connection, make_candles, time_of

SIMILARITY = ("--strategy", "similarity")
BOTH = ("--symbols", "BTCUSDT,ETHUSDT")
HOUR = 3_600_000
PAPER_BARS = 60


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Candles of two symbols, and a bank of them."""
    make_candles(tmp_path / "recall-data", ("BTCUSDT", "ETHUSDT"), 700)
    ask(tmp_path, "memory", "warm", *BOTH, *SIMILARITY, "--memory-size", "800", "--name", "bank")
    return tmp_path


@pytest.fixture(scope="module")
def traded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A paper run whose memory has turned: older moments made room for those of the run. Tests only look at it."""
    place = tmp_path_factory.mktemp("traded")
    paper = (
        "--set",
        "sandbox.history_bars=700",
        "--set",
        "signal.confidence_threshold=0.52",
        "--set",
        "signal.significance=1",
        "--memory-size",
        "400",
    )
    ask(place, "paper", *SIMILARITY, "--interval", INTERVAL, *paper, "--max-bars", str(PAPER_BARS))
    return place


def tampered(folder: Path, statement: str, into: Path) -> Path:
    """A copy of a folder with one change in its database."""
    shutil.copytree(folder, into, dirs_exist_ok=True)
    engine = journal_connection(into / "recall-data")
    with engine.begin() as connection:
        assert connection.exec_driver_sql(statement).rowcount == 1
    engine.dispose()
    return into


# -- stats ----------------------------------------------------------------------------------------------------------


def test_statistics_count_what_the_bank_holds(folder: Path) -> None:
    """Entries by symbol and regime, those that wait and those that may answer."""
    found = ask(folder, "memory", "stats", "bank")
    assert (found["held"], found["capacity"], found["evicted"]) == (800, 800, 0)
    assert found["symbols"] == {"BTCUSDT": 400, "ETHUSDT": 400} and sum(found["regimes"].values()) == 800
    assert (found["first_close"], found["last_close"]) == (time_of(301), time_of(700))
    assert found["pending"] == 2 * 24 and found["visible"] == 800 - 2 * (24 + 48)
    assert found["bytes_per_entry"] < 2.2 * found["bytes_per_key"]
    assert -1.0 < found["anisotropy"] < 1.0 and 1.0 <= found["effective_neighbours"] <= found["neighbours"] <= 32.0
    assert found["used"] == found["decisions_remembered"] == 0


def test_statistics_of_a_run_tell_which_moments_its_decisions_used(traded: Path) -> None:
    """Hits are neighbours of decisions."""
    found = ask(traded, "memory", "stats", "latest")
    used: Counter[tuple[str, int]] = Counter()
    for number in range(PAPER_BARS):
        seen = ask(traded, "why", str(number))["signal"]["explanation"]["neighbours"]
        used.update((each["symbol"], each["bar_open_time"]) for each in seen)
    assert found["held"] == 400 and found["evicted"] == PAPER_BARS
    assert found["decisions_remembered"] == PAPER_BARS
    assert found["hits"] <= used.total() and 0 < found["used"] <= len(used)
    for each in found["most_used"]:
        assert each["hits"] == used[each["symbol"], each["bar_open_time"]]
    credits = [each["credit"] for each in found["most_helpful"]]
    assert credits == sorted(credits, reverse=True) and min(credits) > 0.0
    assert all(each["credit"] < 0.0 for each in found["most_harmful"])


def test_every_memory_of_the_database_is_listed(folder: Path) -> None:
    """Banks and runs alike; an empty database says how to begin."""
    ask(folder, "memory", "rebuild", "bank", "--memory-size", "200", "--name", "small")
    listed = ask(folder, "memory", "stats")
    assert [(each["memory"], each["held"]) for each in listed] == [("bank", 800), ("small", 200)]
    shown = recall(folder, "memory", "stats").out
    assert "small" in shown and "800" in shown


def test_an_empty_database_says_how_to_begin(tmp_path: Path) -> None:
    """Not an empty table."""
    assert recall(tmp_path, "memory", "stats").out.startswith(
        "There is no memory in the database yet: recall memory warm"
    )
    assert ask(tmp_path, "memory", "stats") == []


def test_an_approximate_memory_tells_how_many_true_neighbours_it_finds(tmp_path: Path) -> None:
    """Measured on its own moments, as it has answered nothing else; an exact one has nothing to tell."""
    make_candles(tmp_path / "recall-data", ("BTCUSDT",), 9000)
    for index in ("exact", "approximate"):
        warm = ("memory", "warm", "--symbols", "BTCUSDT", *SIMILARITY, "--memory-size", "8500", "--name", index)
        ask(tmp_path, *warm, "--set", f"memory.index={index}")
    assert ask(tmp_path, "memory", "stats", "exact")["recall"] is None
    found = ask(tmp_path, "memory", "stats", "approximate")["recall"]
    assert 0.9 < found["share"] <= 1.0 and found["worst"] <= found["share"]
    assert found["asked"] == 64 and not found["alarm"]
    shown = recall(tmp_path, "memory", "stats", "approximate").out
    assert f"approximate, {found['share']:.1%} of the true neighbours found" in shown


# -- check ----------------------------------------------------------------------------------------------------------


def test_a_bank_is_what_its_candles_make(folder: Path) -> None:
    """Every entry and every outcome."""
    found = ask(folder, "memory", "check", "bank")
    assert (found["differences"], found["entries"]) == (0, 800)
    assert found["outcomes"] == 2 * (399 + 396 + 376)


def test_the_memory_of_a_run_is_what_its_bars_and_decisions_make(traded: Path) -> None:
    """Evicted entries and what decisions remembered included."""
    found = ask(traded, "memory", "check", "latest")
    assert (found["differences"], found["entries"], found["recollections"]) == (0, 400 + PAPER_BARS, PAPER_BARS)


TAMPERED = {
    "UPDATE memory_entries SET regime = regime + 1 WHERE entry_id = 50": "regime",
    "UPDATE memory_entries SET key = zeroblob(length(key)) WHERE entry_id = 50": "key",
    "UPDATE memory_entries SET novelty = 0.5 WHERE entry_id = 50": "novelty",
    "UPDATE memory_settlements SET outcome = outcome + 1e-12 WHERE entry_id = 50 AND horizon = 1": "outcomes[1]",
    "UPDATE memory_settlements SET settled_time = settled_time - 1 WHERE entry_id = 50 AND horizon = 2": "settled_times[2]",
    "DELETE FROM memory_settlements WHERE entry_id = 50 AND horizon = 0": "settlements[0]",
    "UPDATE memory_banks SET embargo_ms = 0 WHERE id = 1": "embargo_ms",
}


@pytest.mark.parametrize(("statement", "field"), TAMPERED.items(), ids=TAMPERED.values())
def test_whatever_was_changed_in_a_memory_is_named(traded: Path, statement: str, field: str, tmp_path: Path) -> None:
    """Exit code 1, the entry and the field."""
    outcome = recall(tampered(traded, statement, tmp_path), "memory", "check", "latest", "--json")
    assert outcome.code == ExitCode.CHECK_FAILED
    document = outcome.document
    assert document["differences"] == 1 and document["first_differences"][0]["field"] == field
    assert "entry 50" in document["first_differences"][0]["where"] or field == "embargo_ms"
    assert outcome.error.endswith("is not what its candles and its model make: 1 fields differ")


def test_what_a_decision_remembered_is_compared_too(traded: Path, tmp_path: Path) -> None:
    """The neighbours of one of them."""
    statement = "DELETE FROM memory_recollections WHERE asker_id = 410"
    outcome = recall(tampered(traded, statement, tmp_path), "memory", "check", "latest")
    assert outcome.code == ExitCode.CHECK_FAILED
    assert "memory of entry 410: recollection is missing, its candles give there" in outcome.out


# -- rebuild --------------------------------------------------------------------------------------------------------


def test_a_rebuilt_bank_stands_beside_the_old_one_and_answers_the_same(folder: Path) -> None:
    """Nothing is written in place."""
    question = ("memory", "search", "--at", format_time(time_of(690)), "--symbol", "BTCUSDT", "--bank")
    before = ask(folder, *question, "bank")
    report = ask(folder, "memory", "rebuild", "bank")
    assert report["bank"] == "bank-rebuilt" and report["entries"] == 800
    assert {**ask(folder, *question, "bank-rebuilt"), "memory": ""} == {**before, "memory": ""}
    assert ask(folder, *question, "bank") == before
    again = recall(folder, "memory", "rebuild", "bank")
    assert again.code == ExitCode.USAGE and again.error.startswith("there is a memory named bank-rebuilt already")


def test_the_memory_of_a_run_can_be_rebuilt_from_the_bars_it_was_shown(traded: Path) -> None:
    """Also those that only its journal has; and the rebuilt bank can be checked and rebuilt in turn."""
    report = ask(traded, "memory", "rebuild", "latest", "--name", "of-run")
    latest = ask(traded, "memory", "stats", "latest")
    rebuilt = ask(traded, "memory", "stats", "of-run")
    for name in ("held", "first_close", "last_close", "regimes", "pending"):
        assert rebuilt[name] == latest[name], name
    assert report["entries"] == 400 and rebuilt["used"] == 0
    assert ask(traded, "memory", "check", "of-run")["differences"] == 0
    ask(traded, "memory", "rebuild", "of-run", "--memory-size", "300", "--name", "of-bank")
    assert ask(traded, "memory", "check", "of-bank")["entries"] == 300


def test_a_new_model_encodes_a_bank_anew(tmp_path: Path) -> None:
    """Its keys are those of that model, and both banks check."""
    make_candles(tmp_path / "recall-data", ("BTCUSDT",), 700)
    first = ask(tmp_path, "train", *MARKET, *TINY_MODEL)["model_id"]
    ask(tmp_path, "memory", "warm", *MARKET, "--memory-size", "400", "--name", "bank")
    second = ask(tmp_path, "train", *MARKET, *TINY_MODEL, "--set", "training.seed=8")["model_id"]
    report = ask(tmp_path, "memory", "rebuild", "bank", "--model", "latest")
    assert report["encoder_version"] == report["model_id"] == second != first
    assert ask(tmp_path, "memory", "stats", "bank")["encoder_version"] == first
    for name in ("bank", "bank-rebuilt"):
        assert ask(tmp_path, "memory", "check", name)["differences"] == 0
    found = ask(tmp_path, "memory", "search", "--at", format_time(time_of(650)), "--bank", "bank-rebuilt")
    assert found["neighbours"]
    shown = recall(tmp_path, "memory", "search", "--at", format_time(time_of(650)), "--bank", "bank-rebuilt")
    assert "what it finds alike is hindsight" in shown.out


# -- prune ----------------------------------------------------------------------------------------------------------


def test_a_dry_run_says_what_would_go_and_changes_nothing(folder: Path) -> None:
    """Then the same moments go, and no others."""
    rule = ("--unused-days", "10")
    planned = ask(folder, "memory", "prune", "bank", *rule, "--dry-run")
    assert ask(folder, "memory", "stats", "bank")["held"] == 800
    assert (
        planned["pruned"] == sum(each["bar_open_time"] < time_of(700) - 10 * DAY_MS for each in planned["entries"]) > 0
    )
    pruned = ask(folder, "memory", "prune", "bank", *rule)
    assert pruned["entries"] == planned["entries"] and pruned["held"] == 800 - planned["pruned"]
    after = ask(folder, "memory", "stats", "bank")
    assert (after["held"], after["evicted"]) == (pruned["held"], pruned["pruned"])
    assert after["first_close"] == time_of(700) - 10 * DAY_MS + HOUR
    assert ask(folder, "memory", "prune", "bank", *rule)["pruned"] == 0
    assert ask(folder, "memory", "check", "bank")["differences"] == 0


def test_the_memory_of_a_finished_run_is_not_pruned(traded: Path, tmp_path: Path) -> None:
    """It stays as its decisions saw it; what would go can be looked at."""
    traded = tampered(traded, "UPDATE runs SET status = 'finished' WHERE kind = 'paper'", tmp_path)
    worst = ask(traded, "memory", "stats", "latest")["most_harmful"][0]
    rule = ("--credit-below", str(worst["credit"] / 2))
    planned = ask(traded, "memory", "prune", "latest", *rule, "--dry-run")
    assert worst in planned["entries"]
    outcome = recall(traded, "memory", "prune", "latest", *rule)
    assert outcome.code == ExitCode.USAGE
    assert "is finished, so its memory stays as its decisions saw it; prune a copy" in outcome.error
    assert ask(traded, "memory", "check", "latest")["differences"] == 0


def test_pruning_what_no_decision_ever_asked_says_that_it_goes_by_age(folder: Path) -> None:
    """Of a bank that was filled from candles every moment is unused."""
    outcome = recall(folder, "memory", "prune", "bank", "--unused-days", "10", "--dry-run")
    assert outcome.out.startswith(
        "No decision ever asked bank: every moment of it counts as unused, so this goes by age"
    )
    by_credit = recall(folder, "memory", "prune", "bank", "--credit-below", "-0.1", "--dry-run")
    assert by_credit.out.startswith("0 moments would be evicted from bank")


def test_pruning_needs_a_rule(folder: Path) -> None:
    """Nothing is pruned by default."""
    assert recall(folder, "memory", "prune", "bank").error == (
        "nothing says what to prune; give --unused-days, --credit-below or both"
    )


# -- export and import ----------------------------------------------------------------------------------------------


def test_a_bank_can_be_taken_elsewhere_in_a_file(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """There it answers the same, and where the candles are it can be checked."""
    written = ask(folder, "memory", "export", "bank", "taken.parquet")
    assert written["entries"] == 800
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "taken.parquet").write_bytes((folder / "taken.parquet").read_bytes())
    outcome = recall(elsewhere, "memory", "import", "taken.parquet")
    assert (outcome.code, outcome.out) == (0, "taken\n"), outcome.err
    missing = recall(elsewhere, "memory", "check", "taken")
    assert missing.code == ExitCode.USAGE and "are not those that run taken was warmed from" in missing.error
    make_candles(elsewhere / "recall-data", ("BTCUSDT", "ETHUSDT"), 700)
    assert ask(elsewhere, "memory", "check", "taken")["differences"] == 0
    question = ("memory", "search", "--at", format_time(time_of(690)), "--symbol", "BTCUSDT", "--bank")
    here, there = ask(folder, *question, "bank"), ask(elsewhere, *question, "taken")
    assert {**here, "memory": ""} == {**there, "memory": ""}


def test_the_memory_of_a_run_becomes_a_copy_that_can_be_asked_and_pruned(
    traded: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """With hits and credits as they were; it cannot be made again without the run."""
    file = tmp_path_factory.mktemp("copy") / "run.parquet"
    ask(traded, "memory", "export", "latest", str(file))
    ask(traded, "memory", "import", str(file), "--name", "copy")
    latest, copy = ask(traded, "memory", "stats", "latest"), ask(traded, "memory", "stats", "copy")
    assert {**copy, "memory": ""} == {**latest, "memory": ""}
    for command in ("check", "rebuild"):
        refused = recall(traded, "memory", command, "copy")
        assert refused.code == ExitCode.USAGE and "can be asked, but not be made again from candles" in refused.error
    worst = latest["most_harmful"][0]
    pruned = ask(traded, "memory", "prune", "copy", "--credit-below", str(worst["credit"] / 2))
    assert worst in pruned["entries"]
    assert ask(traded, "memory", "stats", "copy")["held"] == 400 - pruned["pruned"]


def test_an_export_of_another_program_needs_to_be_told_what_made_it(folder: Path) -> None:
    """Its encoder is compared with the configured strategy's."""
    engine = journal_connection(folder / "recall-data")
    with engine.connect() as connection:
        bank_id = find_bank(connection, "bank")
        assert bank_id is not None
        export_bank(connection, bank_id, folder / "foreign.parquet")
    engine.dispose()
    wrong = recall(folder, "memory", "import", "foreign.parquet", "--strategy", "sma_cross")
    assert wrong.code == ExitCode.USAGE
    ask(folder, "memory", "import", "foreign.parquet", *SIMILARITY, "--interval", "60")
    found = ask(
        folder, "memory", "search", "--at", format_time(time_of(690)), "--symbol", "BTCUSDT", "--bank", "foreign"
    )
    assert found["neighbours"]


def test_a_file_that_is_no_export_is_refused_and_leaves_nothing(folder: Path) -> None:
    """Candles, for example; or a file cut short."""
    ask(folder, "memory", "export", "bank", "whole.parquet")
    whole = (folder / "whole.parquet").read_bytes()
    (folder / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    table = pq.read_table(folder / "whole.parquet")
    pq.write_table(table.select(["symbol", "bar_time"]).replace_schema_metadata({}), folder / "other.parquet")
    for name in ("cut.parquet", "other.parquet", "missing.parquet"):
        outcome = recall(folder, "memory", "import", name)
        assert outcome.code == ExitCode.USAGE and name in outcome.error
    assert [each["memory"] for each in ask(folder, "memory", "stats")] == ["bank"]


def test_a_name_that_is_taken_is_refused(folder: Path) -> None:
    """By a bank, in import as in warm."""
    ask(folder, "memory", "export", "bank", "bank.parquet")
    assert recall(folder, "memory", "import", "bank.parquet").error.startswith("there is a memory named bank already")


def test_a_memory_that_is_not_there_is_named(folder: Path) -> None:
    """By every command that takes one."""
    ask(folder, "backtest", *MARKET, "--strategy", "sma_cross", "--no-plot")
    for command in (("stats",), ("check",), ("rebuild",), ("prune", "--unused-days", "1"), ("export", "x.parquet")):
        words = ("memory", command[0], "nowhere", *command[1:])
        assert (
            recall(folder, *words).error == "there is no memory named 'nowhere' in the journal; see recall memory stats"
        )
    run_id = ask(folder, "runs")[0]["run_id"]
    assert recall(folder, "memory", "check", run_id).error == (
        f"run {run_id} has no memory in the journal: a replay keeps its memory to itself; see recall memory stats"
    )


def test_a_server_keeps_banks_as_a_file_does(folder: Path, postgres_url: str) -> None:
    """Filled, asked, checked, pruned, written to a file and read again on PostgreSQL."""
    server = ("--set", f"storage.database_url={postgres_url}")
    ask(folder, "memory", "warm", *BOTH, *SIMILARITY, "--memory-size", "800", "--name", "served", *server)
    question = ("memory", "search", "--at", format_time(time_of(690)), "--symbol", "BTCUSDT", "--bank")
    here, there = ask(folder, *question, "bank"), ask(folder, *question, "served", *server)
    assert {**here, "memory": ""} == {**there, "memory": ""}
    assert ask(folder, "memory", "check", "served", *server)["differences"] == 0
    ask(folder, "memory", "export", "served", "served.parquet", *server)
    ask(folder, "memory", "import", "served.parquet", "--name", "again", *server)
    assert ask(folder, "memory", "prune", "again", "--unused-days", "10", *server)["pruned"] > 0
    assert ask(folder, "memory", "check", "again", *server)["differences"] == 0


# -- rules ----------------------------------------------------------------------------------------------------------


def test_the_rules_of_a_question_choose_its_neighbours(folder: Path) -> None:
    """The same flags for a bank and for a memory made on the spot."""
    moment = ("memory", "search", "--at", format_time(time_of(690)), "--symbol", "BTCUSDT")
    for of in (("--bank", "bank"), (*BOTH, *SIMILARITY, "--memory-size", "800")):

        def neighbours(*rules: str, of: tuple[str, ...] = of) -> list[Any]:
            return list(ask(folder, *moment, *of, *rules)["neighbours"])

        everyone = neighbours()
        assert {each["symbol"] for each in neighbours("--scope", "same")} == {"BTCUSDT"}
        assert {each["symbol"] for each in neighbours("--scope", "other")} == {"ETHUSDT"}
        least = everyone[5]["similarity"]
        assert neighbours("--minimum-similarity", str(least)) and all(
            each["similarity"] >= least for each in neighbours("--minimum-similarity", str(least))
        )
        times = sorted(each["bar_open_time"] for each in neighbours("--one-per-moment"))
        assert all(later - earlier >= 48 * HOUR for earlier, later in pairwise(times))
        own = ask(folder, *moment, *of)["regime"]
        assert {each["regime"] for each in neighbours("--regimes", "same")} <= {own}
        younger = neighbours("--age-half-life-days", "1")
        assert sum(each["close_time"] for each in younger) > sum(each["close_time"] for each in everyone)


def test_the_unknown_rule_is_refused(folder: Path) -> None:
    """In the words of the configuration or of the command line."""
    moment = ("memory", "search", "--at", format_time(time_of(690)), "--symbol", "BTCUSDT", "--bank", "bank")
    assert recall(folder, *moment, "--scope", "mine").code == ExitCode.USAGE
    assert "memory.age_half_life_days was -1" in recall(folder, *moment, "--age-half-life-days", "-1").error
