"""Bad data, bad settings and foreign models: one sentence that names the fix, exit code 2, and nothing is stored."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bot.errors import ExitCode
from tests.bot.cli.terminal import Outcome, ask, recall, run_process
from tests.bot.cli.test_contract import MARKET, TINY_MODEL
from tests.runs import make_candles, time_of

FETCH = ("fetch", "--source", "file")
BTC = ("--symbol", "BTCUSDT", "--interval", "60")


def hours(count: int = 6) -> pd.DataFrame:
    """Good bars."""
    rows = [(time_of(i), 100.0 + i, 102.0 + i, 99.0 + i, 101.0 + i, 5.0) for i in range(count)]
    return pd.DataFrame(rows, columns=["open_time", "open", "high", "low", "close", "volume"])


def refused(outcome: Outcome, folder: Path) -> str:
    """The sentence of a fetch that must have stored nothing."""
    assert outcome.code == ExitCode.USAGE == 2, outcome.err
    assert ask(folder, "data", "list") == []
    return outcome.error


def test_a_truncated_parquet_is_refused(tmp_path: Path) -> None:
    """By the real process: the file is named, and what to do."""
    file = tmp_path / "candles.parquet"
    pq.write_table(pa.Table.from_pandas(hours()), file)
    file.write_bytes(file.read_bytes()[:-40])
    error = refused(run_process(tmp_path, *FETCH, "candles.parquet", *BTC), tmp_path)
    assert error.startswith("candle file candles.parquet is not a complete Parquet file (")
    assert error.endswith("); download or write it again")


def test_a_csv_with_a_missing_column_is_refused(tmp_path: Path) -> None:
    """The column is named, and those that are there."""
    hours().drop(columns="close").to_csv(tmp_path / "candles.csv", index=False)
    assert refused(recall(tmp_path, *FETCH, "candles.csv", *BTC), tmp_path) == (
        "candle file candles.csv has no column 'close' (found: open_time, open, high, low, volume); rename or add it"
    )


def test_unordered_and_repeated_bars_are_put_right_and_reported(tmp_path: Path) -> None:
    """By the stated policy: sorted, and equal rows kept once."""
    good = hours()
    pd.concat([good.iloc[[3, 0, 1, 2]], good.iloc[[2, 4, 5]]]).to_csv(tmp_path / "candles.csv", index=False)
    outcome = recall(tmp_path, *FETCH, "candles.csv", *BTC)
    assert outcome.code == 0
    assert "unordered rows" in outcome.err and "duplicate rows" in outcome.err
    (stored,) = ask(tmp_path, "data", "list")
    assert (stored["bars"], stored["first_open"], stored["last_open"]) == (6, time_of(0), time_of(5))


def test_repeated_bars_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    """Nobody can know which of them is true."""
    rows = pd.concat([hours(), hours().iloc[[2]].assign(close=100.5)])
    rows.to_csv(tmp_path / "candles.csv", index=False)
    error = refused(recall(tmp_path, *FETCH, "candles.csv", *BTC), tmp_path)
    assert error.startswith("BTCUSDT 60: conflicting duplicates: 1, first at 2022-01-01T02:00Z")
    assert error.endswith("; remove the wrong row of each pair")


@pytest.mark.parametrize("price", ["nan", "-3.5", "0", "inf"])
def test_prices_that_are_no_prices_are_refused(price: str, tmp_path: Path) -> None:
    """Not a number, negative, zero or infinite: the place is named."""
    hours().astype({"low": object}).assign(low=["99", "100", price, "102", "103", "104"]).to_csv(
        tmp_path / "candles.csv", index=False
    )
    error = refused(recall(tmp_path, *FETCH, "candles.csv", *BTC), tmp_path)
    assert error.startswith("BTCUSDT 60: prices that are not positive numbers: 1, first at 2022-01-01T02:00Z")
    assert error.endswith("; mend or remove these rows")


def test_bars_that_contradict_themselves_are_refused_or_repaired_on_request(tmp_path: Path) -> None:
    """An open above the high."""
    rows = hours()
    rows.loc[2, "high"] = 101.0
    rows.loc[2, "open"] = 101.5
    rows.to_csv(tmp_path / "candles.csv", index=False)
    error = refused(recall(tmp_path, *FETCH, "candles.csv", *BTC), tmp_path)
    assert error.startswith("BTCUSDT 60: opens or closes outside [low, high]: 1")
    assert recall(tmp_path, *FETCH, "candles.csv", *BTC, "--repair").code == 0
    assert ask(tmp_path, "data", "check")[0]["sound"]


def test_an_interval_that_the_file_does_not_have_is_refused(tmp_path: Path) -> None:
    """Bars an hour apart are no quarter hours."""
    hours().to_csv(tmp_path / "candles.csv", index=False)
    error = refused(recall(tmp_path, *FETCH, "candles.csv", "--symbol", "BTCUSDT", "--interval", "15"), tmp_path)
    assert error == (
        "candle file candles.csv has bars 1 h apart, and the interval given is '15' (15 min); give the interval of the file"
    )


def test_an_unknown_symbol_is_refused(tmp_path: Path) -> None:
    """By commands on stored candles, and by the venue."""
    make_candles(tmp_path / "recall-data", ("BTCUSDT",), 200)
    outcome = recall(tmp_path, "backtest", "--symbols", "BTCUSDT,DOGEUSDT", "--interval", "60")
    assert outcome.code == ExitCode.USAGE
    assert outcome.error == (
        "DOGEUSDT has no stored candles of interval 60; get them with recall fetch --symbols DOGEUSDT --interval 60"
    )
    lower_case = recall(tmp_path, *FETCH, "candles.csv", "--symbol", "btc/usdt", "--interval", "60")
    assert lower_case.code == ExitCode.USAGE


def test_a_typo_in_the_file_is_refused_by_every_command(tmp_path: Path) -> None:
    """Also by those that would not have used the key."""
    (tmp_path / "config.toml").write_text("[risk]\nstop_los = 0.02\n")
    for command in ("config check", "status", "data list", "paper"):
        outcome = recall(tmp_path, *command.split())
        assert outcome.code == ExitCode.USAGE
        assert outcome.error == "risk.stop_los in config.toml is unknown; did you mean risk.stop_loss?"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with candles and a small model, and the model's id."""
    folder = tmp_path_factory.mktemp("trained")
    make_candles(folder / "recall-data", ("BTCUSDT",), 900)
    return folder, ask(folder, "train", *MARKET, *TINY_MODEL)["model_id"]


def test_a_model_of_another_feature_set_is_refused(trained: tuple[Path, str]) -> None:
    """A bundle that is whole and says so itself, but from a program that computed other features."""
    folder, model_id = trained
    models = folder / "recall-data" / "models"
    content = json.loads((models / model_id / "bundle.json").read_text()) | {"feature_set": "f-0"}
    del content["model_id"]
    other_id = f"mt-{hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]}"
    other = models / other_id
    other.mkdir()
    (other / "bundle.json").write_text(json.dumps({"model_id": other_id, **content}))
    (other / "weights.safetensors").write_bytes((models / model_id / "weights.safetensors").read_bytes())
    outcome = recall(folder, "backtest", *MARKET, "--model", other_id)
    assert outcome.code == ExitCode.USAGE
    assert outcome.error == (
        f"model recall-data/models/{other_id} was trained on another feature set than this program computes; train it again"
    )


def test_a_model_that_was_tampered_with_is_refused(trained: tuple[Path, str]) -> None:
    """Its description no longer matches its id."""
    folder, model_id = trained
    file = folder / "recall-data" / "models" / model_id / "bundle.json"
    content = file.read_text()
    file.write_text(content.replace('"seed": 7', '"seed": 8'))
    try:
        outcome = recall(folder, "backtest", *MARKET, "--model", model_id)
    finally:
        file.write_text(content)
    assert outcome.code == ExitCode.USAGE
    assert outcome.error == (f"model recall-data/models/{model_id}: bundle.json does not match its id; train it again")


def test_models_that_do_not_fit_are_named(trained: tuple[Path, str]) -> None:
    """An id that is not there, and an interval without a model."""
    folder, model_id = trained
    missing = recall(folder, "backtest", *MARKET, "--model", "mt-0")
    assert missing.code == ExitCode.USAGE
    assert "model 'mt-0' is not in recall-data/models; there are " in missing.error and model_id in missing.error
    make_candles(folder / "elsewhere", ("BTCUSDT",), 300)
    none = recall(folder, "backtest", *MARKET, "--set", "storage.data_dir=elsewhere")
    assert none.error == (
        "there is no model for interval 60 in elsewhere/models; train one with "
        "recall train --symbols BTCUSDT --interval 60"
    )


def test_too_little_history_names_what_is_needed(trained: tuple[Path, str]) -> None:
    """Before --start there have to be enough bars to warm up on."""
    folder, _ = trained
    outcome = recall(folder, "backtest", *MARKET, "--strategy", "sma_cross", "--start", "2022-01-01T10:00")
    assert outcome.code == ExitCode.USAGE
    assert "BTCUSDT" in outcome.error and "10" in outcome.error and "50" in outcome.error


def test_a_span_without_candles_is_refused(trained: tuple[Path, str]) -> None:
    """Nothing is journalled for it."""
    folder, _ = trained
    before = ask(folder, "runs")
    outcome = recall(folder, "backtest", *MARKET, "--strategy", "sma_cross", "--start", "2030-01-01")
    assert outcome.error == (
        "there are no stored candles of BTCUSDT in that span; see what there is with recall data list"
    )
    assert ask(folder, "runs") == before


def test_a_replay_of_a_single_bar_is_no_error(trained: tuple[Path, str]) -> None:
    """Its figures are null where one bar says nothing, and there is nothing to plot."""
    folder, _ = trained
    options = ("--strategy", "buy_and_hold", "--start", "2022-01-02", "--end", "2022-01-02T01:00")
    document = ask(folder, "backtest", *MARKET, *options)
    assert document["bars"] == 1
    assert document["sharpe_ratio"] is None and document["win_rate"] is None and "plot" not in document


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """A file stands where data_dir should be."""
    (tmp_path / "recall-data").write_text("")
    outcome = recall(tmp_path, "paper", "--strategy", "sma_cross")
    assert outcome.code == ExitCode.USAGE
    assert outcome.error.startswith("the system refused recall-data: ")


def test_two_bots_in_one_folder_are_one_too_many(tmp_path: Path) -> None:
    """The second is told so at once, and the first goes on."""
    from bot.cli.instance import single_instance

    with single_instance(tmp_path / "recall-data"):
        outcome = run_process(tmp_path, "paper", "--strategy", "sma_cross")
    assert outcome.code == ExitCode.USAGE
    assert outcome.error == (
        "another bot is running in recall-data; stop it, or give this one its own with --set storage.data_dir=..."
    )
