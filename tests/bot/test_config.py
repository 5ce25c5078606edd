"""The configuration: layers, and what a user reads when something in it is wrong."""

from __future__ import annotations

import re
import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from bot.config import Config, load_config, read_layers, stored_config
from bot.errors import UsageError
from bot.refusals import SYMBOL, allowed, known_fields, known_keys

SHIPPED = Path(__file__).parents[2] / "config.toml"
SECRETS = ("live.api_key", "live.api_secret")


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text, errors="surrogateescape")
    return path


def refused(*overrides: str, file: Path | None = None, environment: dict[str, str] | None = None) -> str:
    """The sentence with which a configuration is refused."""
    with pytest.raises(UsageError) as caught:
        load_config(file, overrides=overrides, environment=environment or {})
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory without a config.toml."""
    monkeypatch.chdir(tmp_path)


def test_later_layers_win(tmp_path: Path) -> None:
    """Defaults, then the file, then the environment, then --set."""
    file = write(tmp_path, "[risk]\nstop_loss = 0.01\ntake_profit = 0.01\nmax_position = 0.01\n")
    environment = {"RECALL_RISK__TAKE_PROFIT": "0.02", "RECALL_RISK__MAX_POSITION": "0.02"}
    config = load_config(file, overrides=["risk.max_position=0.03"], environment=environment)
    assert (config.risk.stop_loss, config.risk.take_profit, config.risk.max_position) == (0.01, 0.02, 0.03)
    assert config.risk.no_trade_band == Config().risk.no_trade_band


def test_config_toml_of_the_working_directory_is_read_unless_another_is_named(tmp_path: Path) -> None:
    """So the project's file counts where one works in the project, and nowhere else."""
    (tmp_path / "config.toml").write_text('[market]\ninterval = "5"\n')
    assert load_config(environment={}).market.interval == "5"
    assert load_config(write(tmp_path, ""), environment={}).market.interval == "60"


def test_every_value_knows_where_it_comes_from(tmp_path: Path) -> None:
    """The default, a file, a variable by its name, or --set."""
    file = write(tmp_path, "[risk]\nstop_loss = 0.01\n")
    layers = read_layers(file, overrides=["market.symbols=A,B"], environment={"RECALL_LOG__LEVEL": "debug"})
    assert layers.source_of("risk.stop_loss") == str(file)
    assert layers.source_of("log.level") == "environment variable RECALL_LOG__LEVEL"
    assert layers.source_of("market.symbols") == "--set"
    assert layers.source_of("risk.take_profit") == "default"


def test_lists_come_as_one_text_from_environment_and_command_line() -> None:
    """Separated by commas, spaces around them ignored."""
    config = load_config(overrides=["memory.horizons=2, 6,24"], environment={"RECALL_MARKET__SYMBOLS": "BTCUSDT,AAPL"})
    assert config.market.symbols == ("BTCUSDT", "AAPL")
    assert config.memory.horizons == (2, 6, 24)


def test_the_rules_of_one_instrument_can_be_overridden_everywhere() -> None:
    """By variable, whose symbol is upper case, and by --set, where a symbol may hold a dot."""
    config = load_config(
        overrides=["instruments.BRK.B.tick_size=0.05"],
        environment={"RECALL_INSTRUMENTS__BTCUSDT__LOT_SIZE": "0.01"},
    )
    assert config.instruments["BTCUSDT"].lot_size == Decimal("0.01")
    assert config.instruments["BRK.B"].tick_size == Decimal("0.05")


def test_parameters_of_a_strategy_keep_their_types() -> None:
    """They are free-form: TOML where the text is TOML, else the text."""
    config = load_config(
        overrides=["strategy.parameters.fast=5", "strategy.parameters.long_only=true", "strategy.parameters.mode=wild"],
        environment={},
    )
    assert config.strategy.parameters == {"fast": 5, "long_only": True, "mode": "wild"}


def test_money_is_taken_as_written() -> None:
    """A fee of 0.00055 is exactly that, not the nearest binary fraction."""
    config = load_config(overrides=["costs.taker_fee=0.00055"], environment={})
    assert config.costs.taker_fee == Decimal("0.00055")


def test_variables_of_other_programs_are_left_alone() -> None:
    """Only RECALL_ with a double underscore means a key."""
    assert load_config(environment={"RECALL_DEBUG": "1", "RECALLS__X": "1", "PATH": "x"}) == Config()


REFUSALS = {
    "risk.max_position=500": "risk.max_position was '500' in --set; it must be a number, above 0, at most 100",
    "risk.max_position=much": "risk.max_position was 'much' in --set; it must be a number, above 0, at most 100",
    "memory.memory_size=1.5": "memory.memory_size was '1.5' in --set; it must be a whole number, 100 or more, "
    "at most 1000000",
    "venue.name=binance": "venue.name was 'binance' in --set; it must be one of sandbox, bybit, testnet, demo",
    "risk.on_daily_loss=pray": "risk.on_daily_loss was 'pray' in --set; it must be one of flatten, reduce_only",
    "account.initial_cash=nan": "account.initial_cash was 'nan' in --set; it must be a number, above 0",
    "instruments.X.lot_size=-3": "instruments.X.lot_size was '-3' in --set; it must be a number, above 0",
    "instruments.X=3": "instruments.X was '3' in --set; it must be a section with keys, written as section.key",
    "memory.horizons=1,x": "memory.horizons was 'x' in --set; it must be a list of whole numbers, 1 or more of them, "
    "at most 8",
    "memory.horizons=4,1": "memory.horizons was '4,1' in --set, which is not allowed: horizons must be 1 or more and "
    "increasing",
    "market.symbols=A,A": "market.symbols was 'A,A' in --set, which is not allowed: every symbol may stand only once",
    "market.symbols=BTC/USDT": "market.symbols was 'BTC/USDT' in --set, which is not allowed: symbol 'BTC/USDT' needs up to "
    "40 capitals, digits, '.', '_' or '-', such as BTCUSDT",
    "storage.data_dir=": "storage.data_dir was '' in --set, which is not allowed: it must name a folder; . is the present "
    "one",
    "market.interval=7": "market.interval was '7' in --set, which is not allowed: interval '7' is unknown; use one of "
    "1, 3, 5, 15, 30, 60, 120, 240, 360, 720, D, W, M (minutes, or D, W, M)",
    "sandbox.start=soon": "sandbox.start was 'soon' in --set, which is not allowed: date 'soon' is not understood; "
    "write 2024-01-31 or 2024-01-31T06:00 (UTC)",
    "sandbox.start=2999-01-01": "sandbox.start was '2999-01-01' in --set, which is not allowed: it must lie in the years "
    "1971 to 2099",
    "storage.database_url=mysql://me:secret@db/x": "storage.database_url was 'mysql://me:***@db/x' in --set, which is not "
    "allowed: it must be empty, sqlite:///PATH or postgresql+psycopg://USER:PASSWORD@HOST/NAME",
    "risk.max_positon=1": "risk.max_positon in --set is unknown; did you mean risk.max_position?",
    "rsk.stop_loss=1": "rsk in --set is unknown; did you mean section risk?",
    "instruments.X.lot=1": "instruments.X.lot in --set is unknown; did you mean instruments.X.lot_size?",
    "risk.stop_loss.x=1": "risk.stop_loss was {'x': '1'} in --set; it must be a number, 0 or more, below 1",
    "memory.primary=5": "memory.primary was 5, which is none of memory.horizons [1, 4, 24]; name one of them",
    "memory.minimum_neighbors=64": "memory.minimum_neighbors was 64, which is more than memory.n_neighbors 32; it must "
    "be at most as many",
    "model.whitening=2": "model.whitening was '2' in --set, which is not allowed: it must be auto, or a number from 0.001 "
    "to 1",
    "model.d_model=65": "model.d_model was 65, which model.n_heads 4 does not divide; choose a multiple",
    "stop_loss=1": "--set 'stop_loss' is not understood; write --set section.key=value",
}


@pytest.mark.parametrize(("override", "sentence"), REFUSALS.items(), ids=REFUSALS)
def test_a_refusal_names_key_value_origin_and_what_is_allowed(override: str, sentence: str) -> None:
    """One sentence that can be acted on."""
    assert refused(override) == sentence


@pytest.mark.parametrize("switch", ["retraining.every_bars=1", "retraining.on_drift=true"])
def test_a_retraining_that_could_never_be_judged_is_refused(switch: str) -> None:
    """Five stretches of horizon plus embargo, and the horizon until the last outcome is known."""
    few = {"retraining": {"judge_bars": 383}}
    config = load_config(overrides=["retraining.judge_bars=384", switch], environment={})
    assert config.changed({"retraining": {"every_bars": 0, "on_drift": False, "judge_bars": 1}}, "a test")
    with pytest.raises(UsageError, match="judge_bars was 383, too few to compare two models on"):
        config.changed(few, "a test")


def test_a_refusal_names_the_file_or_the_variable(tmp_path: Path) -> None:
    """Wherever the value stands."""
    file = write(tmp_path, "[risk]\nstop_loss = true\n")
    assert refused(file=file) == (
        f"risk.stop_loss was True in {file}, which is not allowed: true and false are no value for it"
    )
    assert refused(environment={"RECALL_LOG__LEVEL": "loud"}) == (
        "log.level was 'loud' in environment variable RECALL_LOG__LEVEL; it must be one of debug, info, warning, error"
    )


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("[risk\n", "is not valid TOML: "),
        ("risk = 3\n", "risk was 3 in "),
        ("[risk]\nx = {}\n", "risk.x in "),
        ("#\udcff\n", "is not UTF-8 at byte 1, as TOML has to be; save it as UTF-8"),
    ],
)
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, text: str, part: str) -> None:
    """Broken syntax, a value where a section belongs, and an unknown table."""
    sentence = refused(file=write(tmp_path, text))
    assert part in sentence and "mine.toml" in sentence


def test_a_folder_in_the_place_of_a_file_is_refused(tmp_path: Path) -> None:
    """Also in the place of the default file."""
    (tmp_path / "config.toml").mkdir()
    sentence = "config file config.toml is not a file; give --config an existing TOML file"
    assert refused(file=Path("config.toml")) == sentence == refused()


def test_a_variable_that_nearly_means_a_key_is_refused(tmp_path: Path) -> None:
    """One underscore too few, and a stop loss would silently not be set; other variables of that prefix are let be."""
    assert refused(environment={"RECALL_RISK_STOP_LOSS": "0.02"}) == (
        "environment variable RECALL_RISK_STOP_LOSS means no key; two underscores part section and key: "
        "RECALL_RISK__STOP_LOSS"
    )
    assert load_config(environment={"RECALL_DEBUG": "1", "RECALL_TEST_DATA": "x"}).risk == Config().risk


def test_a_file_that_is_not_there_is_refused() -> None:
    """Only the default file may be missing."""
    assert refused(file=Path("nowhere.toml")) == (
        "config file nowhere.toml does not exist; give --config an existing TOML file"
    )


@pytest.mark.parametrize("override", ["live.api_key.x=hunter22", "live.api_kye=hunter22", "hunter=hunter22"])
def test_no_refusal_repeats_a_secret(override: str) -> None:
    """Not even one that stands in the wrong place."""
    assert "hunter22" not in refused(override)


def test_shown_values_hide_secrets() -> None:
    """Keys are stars, and so is the password of the journal's database."""
    config = load_config(
        overrides=["live.api_key=hunter22", "storage.database_url=postgresql+psycopg://me:hunter23@db/recall"],
        environment={"RECALL_LIVE__API_SECRET": "hunter24"},
    )
    shown = str(config.masked())
    assert not re.search("hunter2[234]", shown)
    assert config.masked()["storage"]["database_url"] == "postgresql+psycopg://me:***@db/recall"
    assert set(config.secrets()) == {"hunter22", "hunter23", "hunter24"}
    assert not re.search("hunter2[24]", repr(config.live))


def test_a_changed_configuration_is_checked_again() -> None:
    """Flags of a command go the same way as everything else."""
    assert Config().changed({"memory": {"memory_size": 500}}, "the command line").memory.memory_size == 500
    with pytest.raises(UsageError, match=r"memory\.memory_size was 5 in the command line; it must be"):
        Config().changed({"memory": {"memory_size": 5}}, "the command line")


def test_the_configuration_of_an_earlier_run_is_understood_or_refused() -> None:
    """It comes back from the journal as it was; one of another version is named."""
    config = load_config(overrides=["instruments.X.lot_size=2", "costs.slippage=0.0003"], environment={})
    assert stored_config(config.masked(), "paper-1") == config
    with pytest.raises(UsageError, match=r"risk\.magic in the record of run paper-1 is unknown"):
        stored_config(config.masked() | {"risk": {"magic": 1}}, "paper-1")


# -- the file that comes with the project ---------------------------------------------------------------------------


def documented_keys() -> dict[str, tuple[str, str | None]]:
    """Key -> (the comment right above it, its value as written; ``None`` where it is only a comment)."""
    found: dict[str, tuple[str, str | None]] = {}
    section, comment = "", ""
    for line in SHIPPED.read_text().splitlines():
        header = re.fullmatch(r"(?:# )?\[([\w.]+)\]", line)
        key = re.fullmatch(r"(# )?(\w+) = (.*)", line)
        if header:
            section, comment = header[1].replace("BTCUSDT", SYMBOL), ""
        elif key:
            found[f"{section}.{key[2]}"] = (comment, None if key[1] else key[3])
            comment = ""
        elif line.startswith("#"):
            comment += line.removeprefix("#").strip() + " "
        else:
            comment = ""
    return found


def test_the_shipped_file_has_every_key_and_no_other() -> None:
    """Secrets and the rules of single instruments stand there as comments."""
    documented = documented_keys()
    assert list(documented) == list(known_keys())
    only_told = {key for key, (_, value) in documented.items() if value is None}
    assert only_told == {*SECRETS, *(key for key in documented if SYMBOL in key)}


def test_the_shipped_file_says_of_every_key_what_it_takes() -> None:
    """In the words of the refusals, so that the two can never disagree."""
    fields = dict(known_fields())
    for key, (comment, _) in documented_keys().items():
        assert f"Takes: {allowed(fields[key])}." in comment, key
        assert len(comment) > len(f"Takes: {allowed(fields[key])}.") + 15, f"{key} is not explained"
    for key in SECRETS:
        assert f"RECALL_{key.replace('.', '__').upper()}" in documented_keys()[key][0]


def test_the_shipped_file_differs_from_the_defaults_only_where_it_says_so() -> None:
    """What makes the first run pleasant: short bars, and a pause between them so that a person can watch."""
    config = load_config(SHIPPED, environment={})
    mine, defaults = config.model_dump(), Config().model_dump()
    different = {
        f"{section}.{key}"
        for section, values in mine.items()
        for key, value in values.items()
        if value != defaults[section][key]
    }
    assert different == {"market.interval", "sandbox.pause"}
    assert all("Here " in documented_keys()[key][0] for key in different)
    assert config.strategy.name == "memory_transformer"
    assert config.venue.name == "sandbox" and config.sandbox.source == "synthetic"
    assert 0.05 <= config.sandbox.pause <= 0.2
    assert 50_000 <= config.memory.memory_size <= 200_000


def test_the_shipped_file_writes_every_value_that_it_means() -> None:
    """No key is left to a default that might change."""
    values: dict[str, Any] = tomllib.loads(SHIPPED.read_text())
    written = {f"{section}.{key}" for section, keys in values.items() for key in keys}
    assert written == {key for key in known_keys() if key not in SECRETS and SYMBOL not in key}
