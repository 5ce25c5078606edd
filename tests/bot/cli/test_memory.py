"""``recall memory``: asking a memory, of candles, of a run or of a bank, and never seeing what was not known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bot.errors import ExitCode
from bot.market.candles import CandleStore
from strategies.bars import close_time_of, format_time
from strategies.regimes import REGIME_NAMES
from tests.bot.cli.terminal import ask, recall, run_process
from tests.runs import INTERVAL, make_candles, time_of

BARS = 1500
SIMILARITY = ("--strategy", "similarity")
BOTH = ("--symbols", "BTCUSDT,ETHUSDT")
BTC = ("--symbol", "BTCUSDT")
BANK = "standing"
BANK_END = 1200
HORIZONS, PRIMARY, EMBARGO = (1, 4, 24), 24, 48
HOUR = 3_600_000


def at(bar: int) -> tuple[str, str]:
    """The option that means the bar of this number, by its close."""
    return ("--at", format_time(time_of(bar + 1)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Candles of two symbols, a bank, and a paper run with a memory."""
    place = tmp_path_factory.mktemp("memory")
    make_candles(place / "recall-data", ("BTCUSDT", "ETHUSDT"), BARS)
    ask(place, "memory", "warm", *BOTH, *SIMILARITY, "--end", format_time(time_of(BANK_END)), "--name", BANK)
    paper = (
        "--set",
        "sandbox.history_bars=700",
        "--set",
        "signal.confidence_threshold=0.52",
        "--set",
        "signal.significance=1",
    )
    ask(place, "paper", *SIMILARITY, "--interval", INTERVAL, *paper, "--max-bars", "40")
    return place


def search(folder: Path, *arguments: str) -> Any:
    return ask(folder, "memory", "search", *arguments)


def assert_known(found: Any, as_of: int) -> None:
    """Every neighbour had settled, embargo included, and shows only what had."""
    for neighbour in found["neighbours"]:
        for bars, followed in neighbour["followed"].items():
            known = neighbour["close_time"] + (int(bars) + EMBARGO) * HOUR <= as_of
            assert (followed is not None) == known
        assert neighbour["followed"][str(PRIMARY)] is not None


# -- asking ---------------------------------------------------------------------------------------------------------


def test_a_search_answers_with_dates_and_what_followed(folder: Path) -> None:
    """As the candles have it, and only what had settled at the moment's close."""
    found = search(folder, *at(1400), *BTC, *BOTH, *SIMILARITY)
    assert found["close_time"] == found["as_of"] == time_of(1401)
    assert found["bar_open_time"] == time_of(1400)
    assert len(found["neighbours"]) == 32 and {each["symbol"] for each in found["neighbours"]} <= {"BTCUSDT", "ETHUSDT"}
    assert_known(found, time_of(1401))
    store = CandleStore(folder / "recall-data" / "candles")
    for neighbour in found["neighbours"]:
        series = store.load(neighbour["symbol"], INTERVAL)
        place = int(np.searchsorted(series.open_time, neighbour["bar_open_time"]))
        assert neighbour["close_time"] == series.close_time[place]
        for bars in HORIZONS:
            expected = series.close[place + bars] / series.close[place] - 1.0
            assert neighbour["followed"][str(bars)] == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert sum(each["weight"] for each in found["neighbours"]) == pytest.approx(1.0)
    similarities = [each["similarity"] for each in found["neighbours"]]
    assert similarities == sorted(similarities, reverse=True)


def test_what_was_not_known_at_the_time_asked_is_not_shown(folder: Path) -> None:
    """However early the question: time travel never brings anything back from later."""
    moment = (*at(1400), *BTC, *BOTH, *SIMILARITY, "-k", "1000")
    counts = []
    for bar in (1400, 1100, 800, 500, 350, 300):
        found = search(folder, *moment, "--as-of", format_time(time_of(bar)))
        assert found["as_of"] == time_of(bar) and found["close_time"] == time_of(1401)
        assert_known(found, time_of(bar))
        counts.append(found["visible"])
    assert counts == sorted(counts, reverse=True) and counts[-1] < counts[0]


def test_the_past_answers_as_if_nothing_had_come_after_it(folder: Path, tmp_path: Path) -> None:
    """The same question to candles that end there gives the same neighbours."""
    make_candles(tmp_path / "recall-data", ("BTCUSDT", "ETHUSDT"), 1000)
    question = (*at(999), *BTC, *BOTH, *SIMILARITY)
    assert search(tmp_path, *question) == search(folder, *question)


def test_a_moment_asked_later_says_so_and_may_find_itself(folder: Path) -> None:
    """Hindsight is allowed and told."""
    outcome = recall(
        folder, "memory", "search", *at(1000), *BTC, *BOTH, *SIMILARITY, "--as-of", format_time(time_of(1400))
    )
    assert outcome.code == 0
    assert "it holds what nobody knew then" in outcome.out and "itself" in outcome.out
    earlier = recall(
        folder, "memory", "search", *at(1000), *BTC, *BOTH, *SIMILARITY, "--as-of", format_time(time_of(900))
    )
    assert "before the moment: nothing later is in it" in earlier.out and "itself" not in earlier.out


def test_a_memory_that_knew_nothing_says_so(folder: Path) -> None:
    """As of before anything had settled."""
    early = ("--as-of", format_time(time_of(200)))
    for command in ("search", "explain", "regime"):
        outcome = recall(folder, "memory", command, *at(1000), *BTC, *BOTH, *SIMILARITY, *early)
        assert outcome.code == 0 and "known" in outcome.out
    assert search(folder, *at(1000), *BTC, *BOTH, *SIMILARITY, *early)["neighbours"] == []


def test_the_moment_is_the_bar_that_was_the_last_one_closed(folder: Path) -> None:
    """Half an hour later it still is."""
    exact = search(folder, *at(1400), *BTC, *SIMILARITY)
    between = search(folder, "--at", format_time(time_of(1401) + HOUR // 2), *BTC, *SIMILARITY)
    assert between == exact


def test_the_number_of_neighbours_is_what_was_asked(folder: Path) -> None:
    """In the document and on the screen."""
    assert len(search(folder, *at(1400), *BTC, *SIMILARITY, "-k", "3")["neighbours"]) == 3
    shown = recall(folder, "memory", "search", *at(1400), *BTC, *SIMILARITY, "-k", "14").out
    assert sum(line.startswith("2022-") for line in shown.splitlines()) == 14
    assert "Wanted:" not in shown


def test_rules_that_choose_neighbours_are_told(folder: Path) -> None:
    """So that nobody takes them for the nearest."""
    rules = ("--scope", "same", "--regimes", "prefer", "--age-half-life-days", "30", "--minimum-similarity", "0.2")
    outcome = recall(folder, "memory", "search", *at(1400), *BTC, *BOTH, *SIMILARITY, *rules, "--one-per-moment")
    assert outcome.code == 0
    (wanted,) = [line for line in outcome.out.splitlines() if line.startswith("Wanted: ")]
    assert wanted.startswith("Wanted: moments of the same symbol; rather in a ")
    assert wanted.endswith(
        "market (others at 37% of their weight); similarity of 0.200 or more; half the weight for every "
        "30 days of age; one of each time."
    )
    document = search(folder, *at(1400), *BTC, *BOTH, *SIMILARITY, *rules)
    assert document["policy"]["scope"] == "same" and document["policy"]["half_life_ms"] == 30 * 24 * HOUR


def test_a_bank_answers_as_the_candles_that_it_was_made_from(folder: Path) -> None:
    """Once all that matters has settled in both."""
    question = (*at(1150), *BTC, "--as-of", format_time(time_of(1150)))
    found, made = search(folder, *question, "--bank", BANK), search(folder, *question, *BOTH, *SIMILARITY)
    assert found.pop("memory") == f"bank {BANK}"
    assert made.pop("memory") == "similarity on stored candles of BTCUSDT, ETHUSDT"
    assert found == made


def test_a_bank_can_be_asked_about_moments_after_its_end(folder: Path) -> None:
    """Their keys are made from the stored candles; nothing later than the bank is in the answer."""
    found = search(folder, *at(1450), *BTC, "--bank", BANK)
    assert found["close_time"] == time_of(1451)
    assert all(each["bar_open_time"] < time_of(BANK_END) for each in found["neighbours"])


def test_the_memory_of_a_run_explains_its_decisions(folder: Path) -> None:
    """With the very neighbours that the decision was made with."""
    decision = ask(folder, "why", "last")
    found = ask(folder, "memory", "explain", "last", "--run", "latest")
    seen = decision["signal"]["explanation"]["neighbours"]
    voting = [each for each in found["neighbours"] if each["weight"] > 0.0]
    assert [(each["symbol"], each["bar_open_time"]) for each in voting] == [
        (each["symbol"], each["bar_open_time"]) for each in seen
    ]
    assert [each["weight"] for each in voting] == [each["weight"] for each in seen]
    assert found["as_of"] == decision["close_time"]
    assert found["sentences"] and found["seen_before"]
    assert ask(folder, "memory", "explain", str(decision["number"]))["neighbours"] == found["neighbours"]


def test_a_decision_is_explained_with_what_became_known_at_its_own_close(tmp_path: Path) -> None:
    """Without an embargo a step sees the outcomes that it settles itself, and so does the memory as of that step."""
    choices = ("embargo=0", "horizons=1", "primary=1", "age_half_life_days=0.05")
    sets = [part for choice in choices for part in ("--set", f"memory.{choice}")]
    history = ("--set", "sandbox.history_bars=700")
    ask(tmp_path, "paper", *SIMILARITY, "--interval", INTERVAL, *history, *sets, "--max-bars", "8")
    explained = [ask(tmp_path, "memory", "explain", str(number)) for number in range(8)]
    assert all(each["as_decided"] for each in explained)
    latest = [max(each["close_time"] for each in found["neighbours"]) for found in explained]
    assert [found["as_of"] - HOUR for found in explained] == latest


def test_an_explanation_tells_what_it_saw_and_what_came_of_it(folder: Path) -> None:
    """In words, with dates."""
    outcome = recall(folder, "memory", "explain", *at(1400), *BTC, *BOTH, *SIMILARITY)
    assert outcome.code == 0
    assert "When have we seen this before?" in outcome.out
    document = ask(folder, "memory", "explain", *at(1400), *BTC, *BOTH, *SIMILARITY)
    assert document["neighbours"] == search(folder, *at(1400), *BTC, *BOTH, *SIMILARITY)["neighbours"]
    best = max(document["neighbours"], key=lambda each: each["weight"])
    assert any(format_time(best["close_time"]) in line for line in document["seen_before"])


def test_regimes_are_a_distribution_with_a_winner_and_a_margin(folder: Path) -> None:
    """Of the neighbours of the search, by weight; the label of the bar itself beside it."""
    found = ask(folder, "memory", "regime", *at(1400), *BTC, *BOTH, *SIMILARITY)
    neighbours = search(folder, *at(1400), *BTC, *BOTH, *SIMILARITY)["neighbours"]
    for name, share in found["regimes"].items():
        assert share["share"] == pytest.approx(sum(each["weight"] for each in neighbours if each["regime"] == name))
    shares = sorted((each["share"] for each in found["regimes"].values()), reverse=True)
    assert found["regimes"][found["regime_vote"]]["share"] == shares[0]
    assert found["regime_margin"] == pytest.approx(shares[0] - (shares[1] if len(shares) > 1 else 0.0))
    assert found["regime"] in REGIME_NAMES


def test_the_interval_is_the_stored_one_where_the_configured_is_not(folder: Path) -> None:
    """And that is said."""
    outcome = recall(folder, "memory", "search", *at(1400), *BTC, *SIMILARITY, "--set", "market.interval=15")
    assert outcome.code == 0
    assert outcome.err.startswith("BTCUSDT has no stored candles of the configured interval 15: taking 60.")


def test_the_mean_of_what_followed_is_a_mean_of_percents_of_price(folder: Path) -> None:
    """Not the exponential of a mean of logarithms, which is always below it."""
    found = search(folder, *at(1400), *BTC, *BOTH, *SIMILARITY)
    (primary,) = [each for each in found["followed"] if each["primary"]]
    returns = np.array([each["followed"][str(PRIMARY)] for each in found["neighbours"]])
    weights = np.array([each["weight"] for each in found["neighbours"]])
    assert primary["mean"] == pytest.approx(weights @ returns)
    assert primary["deviation"] == pytest.approx(np.sqrt(weights @ (returns - weights @ returns) ** 2))


def test_a_memory_that_ends_long_before_the_question_says_when(folder: Path) -> None:
    """A bank asked about later moments, and candles asked about a time that they do not reach."""
    ended = format_time(time_of(BANK_END))
    bank = recall(folder, "memory", "search", *at(1450), *BTC, "--bank", BANK).out
    assert f"The memory ends {ended}, 10 days before the time asked: what came after that is missing from it." in bank
    assert search(folder, *at(1450), *BTC, "--bank", BANK)["stale_since"] == time_of(BANK_END)
    late = recall(folder, "memory", "search", *at(1400), *BTC, *SIMILARITY, "--as-of", "2030-01-01").out
    assert f"The memory ends {format_time(time_of(BARS))}, " in late
    assert search(folder, *at(1400), *BTC, *SIMILARITY)["stale_since"] is None


def test_how_new_a_moment_is_is_not_told_by_a_handful_of_others(folder: Path) -> None:
    """A percentile needs some moments to rest on."""
    found = search(folder, *at(275), *BTC, *SIMILARITY)
    assert 0 < found["visible"] < 30 and found["novelty_percentile"] is None
    assert "less familiar" not in recall(folder, "memory", "search", *at(275), *BTC, *SIMILARITY).out
    assert search(folder, *at(1400), *BTC, *SIMILARITY)["novelty_percentile"] is not None


@pytest.mark.parametrize("width", [60, 80, 100, 120])
def test_a_narrow_window_loses_columns_and_never_breaks_a_number(folder: Path, width: int) -> None:
    """The date and the outcome that counts stay, and what was left out is named."""
    question = ("memory", "search", *at(1400), *BTC, *BOTH, *SIMILARITY)
    shown = run_process(folder, *question, variables={"COLUMNS": str(width)})
    assert shown.code == 0 and "\x1b" not in shown.out
    rows = [line for line in shown.out.splitlines() if line.startswith("2022-")]
    assert len(rows) == 10
    for row, neighbour in zip(rows, search(folder, *question[2:])["neighbours"], strict=False):
        assert row.split()[0] == format_time(neighbour["close_time"])
        assert row.split()[-1].strip("+-") == f"{abs(neighbour['followed'][str(PRIMARY)]):.2%}"
    assert ("too narrow a window for: " in shown.out) == (width < 88)


# -- filling --------------------------------------------------------------------------------------------------------


def test_warming_stores_the_latest_moments_under_a_name(folder: Path, tmp_path: Path) -> None:
    """Up to the capacity; the name is what standard output says."""
    make_candles(tmp_path / "recall-data", ("BTCUSDT",), 900)
    outcome = recall(tmp_path, "memory", "warm", "--symbols", "BTCUSDT", *SIMILARITY, "--memory-size", "300")
    assert outcome.code == 0
    assert outcome.out == f"similarity-BTCUSDT-60-{format_time(time_of(900))[:10].replace('-', '')}\n"
    assert "300 moments of" in outcome.err
    found = search(tmp_path, *at(899), *BTC, "--bank", outcome.out.strip(), "-k", "1000")
    oldest = min(each["bar_open_time"] for each in found["neighbours"])
    assert oldest == time_of(600) and found["visible"] == 300 - PRIMARY - EMBARGO
    assert ask(tmp_path, "runs") == []


def test_warming_takes_the_only_interval_that_is_stored(folder: Path, tmp_path: Path) -> None:
    """As a search does, and says so."""
    make_candles(tmp_path / "recall-data", ("BTCUSDT",), 500)
    outcome = recall(tmp_path, "memory", "warm", *SIMILARITY, "--set", "market.interval=15", "--name", "bank")
    assert outcome.code == 0 and outcome.out == "bank\n"
    assert outcome.err.startswith("BTCUSDT has no stored candles of the configured interval 15: taking 60.")


def test_a_bank_is_never_overwritten(folder: Path) -> None:
    """Nor is a run."""
    outcome = recall(folder, "memory", "warm", *BOTH, *SIMILARITY, "--name", BANK)
    assert outcome.code == ExitCode.USAGE
    assert outcome.error == f"there is a memory named {BANK} already, and it stays as it is; give another --name"


BAD = {
    "search --symbol BTCUSDT": "--at is missing: it names the moment to ask about, such as --at 2024-08-05T06:00",
    "search --at soon --symbol BTCUSDT": "--at: date 'soon' is not understood; write 2024-01-31 or 2024-01-31T06:00 (UTC)",
    "search --at 2022-02-01 --as-of 2022-02-30": "--as-of: date '2022-02-30' is not understood; write 2024-01-31 or "
    "2024-01-31T06:00 (UTC)",
    "search --at 2022-02-01 --symbol SOLUSDT": "SOLUSDT has no stored candles of interval 60; get them with "
    "recall fetch --symbols SOLUSDT --interval 60",
    "search --at 2022-02-01 --set market.symbols=BTCUSDT,ETHUSDT": "--symbol is missing: the configuration names BTCUSDT, "
    "ETHUSDT; choose one of them",
    "search --at 2024-08-05T06:00 --symbol BTCUSDT --strategy similarity": "BTCUSDT interval 60 has no bar that closes at "
    "2024-08-05T06:00Z: the last one before closed at 2022-03-04T12:00Z; ask about that time, or get more with "
    "recall fetch",
    "search --at 2021-08-05 --symbol BTCUSDT --strategy similarity": "no bar of BTCUSDT interval 60 was closed at "
    "2021-08-05T00:00Z: the first one closed at 2022-01-01T01:00Z; ask about a later time",
    "search --at 2022-01-02 --symbol BTCUSDT --strategy similarity": "BTCUSDT at 2022-01-02T00:00Z is only bar 24 of its "
    "history, too early for similarity to compare it with others; ask about a later time, or get earlier candles with "
    "recall fetch --symbols BTCUSDT --interval 60 --prepend",
    "search --at 2022-02-01 --symbol BTCUSDT --strategy sma_cross": "strategy sma_cross has no memory; choose one that has "
    "with --strategy memory_transformer or --strategy similarity",
    "search --at 2022-02-01 --run latest --bank standing": "--run and --bank exclude each other: each names the memory "
    "that is asked; choose one",
    "search --at 2022-02-01 --bank standing --memory-size 500": "--memory-size describes a memory made from candles, and "
    "the one of standing is what it is; leave out either",
    "search --at 2022-02-01 --bank nowhere": "there is no memory named 'nowhere' in the journal; see recall memory stats",
    "search --at 2022-02-01 --symbol BTCUSDT --regime-penalty 2": "--regime-penalty is what another regime costs with "
    "--regimes prefer; give that too",
    "explain last --at 2022-02-01": "DECISION names the moment, so --at, --symbol and --as-of have nothing to say; leave "
    "them out",
    "explain 4711": "has made 40 decisions, the last is number 39; there is no 4711",
    "warm --strategy sma_cross": "strategy sma_cross has no memory; choose one that has with --strategy memory_transformer "
    "or --strategy similarity",
    "warm --strategy similarity --name my/bank": "--name 'my/bank' cannot name a bank; use up to 64 letters, digits, '.', "
    "'_', '+', ':' or '-'",
}


@pytest.mark.parametrize(("command", "sentence"), BAD.items(), ids=BAD)
def test_bad_usage_is_one_sentence(command: str, sentence: str, folder: Path) -> None:
    """Exit code 2, what is wrong, and the fix."""
    outcome = recall(folder, "memory", *command.split())
    assert outcome.code == ExitCode.USAGE
    assert sentence in outcome.error
    assert outcome.out == ""


def test_without_a_model_the_way_on_is_told(folder: Path) -> None:
    """Train one, or ask without."""
    error = recall(folder, "memory", "search", *at(1400), *BTC).error
    assert "there is no model for interval 60" in error
    assert error.endswith("; or ask with --strategy similarity, which needs no model")


# -- real hours -----------------------------------------------------------------------------------------------------


def test_real_hours_are_remembered_as_of_any_date_and_never_ahead_of_it(real_data: Path, tmp_path: Path) -> None:
    """The crash of August 2024, asked at its own time and as of earlier years."""
    file = str(real_data / "bybit_linear_BTCUSDT_1h.parquet")
    ask(tmp_path, "fetch", "--source", "file", file, "--symbol", "BTCUSDT", "--interval", "60")
    question = ("--at", "2024-08-05T06:00", "--symbol", "BTCUSDT", *SIMILARITY)
    found = search(tmp_path, *question)
    assert format_time(found["as_of"]) == "2024-08-05T06:00Z" and found["regime"] == "bear volatile"
    assert len(found["neighbours"]) == 32 and found["visible"] > 30_000
    assert_known(found, found["as_of"])
    assert 0.0 <= found["novelty_percentile"] <= 1.0
    for date in ("2021-01-01", "2024-08-05"):
        earlier = search(tmp_path, *question, "--as-of", date, "-k", "64")
        assert len(earlier["neighbours"]) == 64
        assert_known(earlier, earlier["as_of"])
    assert close_time_of(found["bar_open_time"], "60") == found["close_time"]
