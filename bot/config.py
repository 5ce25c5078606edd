"""Configuration: typed sections with defaults, read from ``config.toml``, the environment and ``--set``.

Later layers win: defaults, then the file, then ``RECALL_<SECTION>__<KEY>``, then ``--set section.key=value``. Unknown keys,
wrong types and values out of range are refused in one sentence that names the key, the value, where it came from and what
is allowed.
"""

from __future__ import annotations

import os
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from bot.errors import UsageError
from bot.execution.fills import Costs
from bot.execution.instruments import Instrument
from bot.risk import LossAction, RiskLimits
from strategies.bars import Calendar, parse_interval

ENVIRONMENT_PREFIX: Final = "RECALL_"
DEFAULT_FILE: Final = Path("config.toml")
_RISK: Final = RiskLimits()
_COSTS: Final = Costs()


class Section(BaseModel):
    """Base of all sections: unknown keys are an error, values cannot be changed afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class StorageSection(Section):
    """Where everything that the bot writes goes."""

    data_dir: Path = Field(Path("recall-data"), description="folder of candles, journal, models and reports")
    database_url: str = Field("", description="SQLAlchemy URL of the journal; empty: SQLite in data_dir")


class MarketSection(Section):
    """What is traded."""

    symbols: tuple[str, ...] = Field(("BTCUSDT",), min_length=1, max_length=200, description="symbols, in fixed order")
    interval: str = Field("60", description="bar interval: 1 3 5 15 30 60 120 240 360 720 D W M")

    @field_validator("symbols", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("symbols")
    @classmethod
    def _distinct(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value):
            raise ValueError("every symbol may stand only once")
        return value

    @field_validator("interval", mode="before")
    @classmethod
    def _known(cls, value: Any) -> Any:
        return parse_interval(str(value))


class VenueSection(Section):
    """Which venue paper and live trading talk to."""

    name: Literal["sandbox", "bybit", "testnet", "demo"] = Field(
        "sandbox", description="sandbox, bybit, testnet or demo"
    )
    sandbox_url: str = Field("", description="URL of a sandbox that runs elsewhere; empty: start one inside")
    rest_timeout: float = Field(5.0, gt=0, le=60, description="seconds to wait for a REST reply")
    straggler_deadline: float = Field(
        3.0, gt=0, le=60, description="seconds to wait for symbols that close together before REST is asked"
    )


class SandboxSection(Section):
    """The embedded venue."""

    source: Literal["synthetic", "store"] = Field("synthetic", description="synthetic market, or the candle store")
    seed: int = Field(7, ge=0, description="seed of the synthetic market")
    speed: float = Field(
        0.0, ge=0, le=1_000_000, description="simulated seconds per second; 0: as fast as the bot decides"
    )
    pause: float = Field(
        0.0, ge=0, le=60, description="with speed 0: seconds to wait between bars, so that a person can watch"
    )
    start: str = Field("2024-01-01", description="synthetic market: the moment at which a new run starts (UTC)")
    history_bars: int = Field(
        6_000, ge=0, le=1_000_000, description="bars of the synthetic market before the moment of the start"
    )


class StrategySection(Section):
    """Which strategy decides."""

    name: str = Field(
        "memory_transformer",
        description="memory_transformer, similarity, sma_cross, buy_and_hold, or a class of yours as package.module:Class",
    )
    parameters: dict[str, Any] = Field(
        default_factory=dict, description="keyword arguments for sma_cross, buy_and_hold or a class of yours"
    )


class MemorySection(Section):
    """The memory of past market states."""

    memory_size: int = Field(
        100_000, ge=100, le=1_000_000, description="capacity in entries; recommended 50,000-200,000"
    )
    n_neighbors: int = Field(32, ge=1, le=1024, description="neighbours asked for; recommended 16-64")
    minimum_neighbors: int = Field(8, ge=1, le=1024, description="fewer visible neighbours mean: unknown, open nothing")
    horizons: tuple[int, ...] = Field((1, 4, 24), min_length=1, max_length=8, description="outcome horizons in bars")
    primary: int = Field(24, ge=1, description="the horizon that trading looks at; one of horizons")
    embargo: int = Field(48, ge=0, le=10_000, description="bars after settlement before a memory may be asked")

    @field_validator("horizons", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(int(part) for part in value.split(",")) if isinstance(value, str) else value

    @field_validator("horizons")
    @classmethod
    def _increasing(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if list(value) != sorted(set(value)) or value[0] < 1:
            raise ValueError("horizons must be positive and increasing")
        return value


class ModelSection(Section):
    """The memory transformer."""

    id: str = Field("latest", description="model to trade with: an id from recall train, or latest")
    d_model: int = Field(
        64, ge=8, le=512, description="width of the hidden state and of memory keys; recommended 64-128"
    )
    n_heads: int = Field(4, ge=1, le=32, description="attention heads")
    n_layers: int = Field(2, ge=1, le=12, description="layers of local attention")
    d_ff: int = Field(256, ge=8, le=4096, description="width of the feed-forward layers")
    dropout: float = Field(0.1, ge=0, lt=0.9, description="dropout in training")
    attention_window: int = Field(96, ge=2, le=128, description="bars that local attention sees")
    temperature: float = Field(
        0.07,
        gt=0,
        le=10,
        description="softmax temperature of the memory at the start of training; from 0.2 on nearly uniform (warned)",
    )
    gate_bias: float = Field(2.0, ge=-10, le=10, description="positive prefers the local state, negative the memory")
    output_type: Literal["regression", "direction", "portfolio"] = Field("regression", description="prediction head")


class TrainingSection(Section):
    """How models are trained."""

    epochs: int = Field(10, ge=1, le=10_000, description="passes over the training span")
    learning_rate: float = Field(1e-3, gt=0, le=1, description="peak learning rate of AdamW")
    weight_decay: float = Field(0.01, ge=0, le=1, description="weight decay of AdamW")
    validation_fraction: float = Field(0.15, gt=0, lt=0.9, description="tail of the span kept for early stopping")
    memory_dropout: float = Field(0.15, ge=0, lt=1, description="share of samples that train with an empty memory")
    patience: int = Field(5, ge=1, le=1000, description="epochs without progress before training stops")
    seed: int = Field(7, ge=0, description="seed of weights, order and dropout")


class SignalSection(Section):
    """How forecasts become exposure."""

    entry_threshold: float = Field(
        0.15, ge=0, le=1, description="memory_transformer: least confidence to hold a position"
    )
    confidence_threshold: float = Field(
        0.6, gt=0.5, lt=1, description="similarity: share of rising neighbours to go long"
    )
    read_temperature: float = Field(0.1, gt=0, le=10, description="softmax temperature of the memory's own vote")


class RiskSection(Section):
    """Limits of the account, as fractions of equity unless said otherwise."""

    max_position: float = Field(_RISK.max_position, gt=0, le=100, description="largest position of one symbol")
    max_leverage: float = Field(_RISK.max_leverage, gt=0, le=100, description="largest sum of all positions")
    no_trade_band: float = Field(_RISK.no_trade_band, ge=0, le=1, description="smaller changes are not traded")
    daily_loss_limit: float = Field(
        _RISK.daily_loss_limit, ge=0, lt=1, description="loss within a UTC day that halts; 0: off"
    )
    on_daily_loss: LossAction = Field(_RISK.on_daily_loss, description="flatten or reduce_only")
    stop_loss: float = Field(_RISK.stop_loss, ge=0, lt=1, description="stop distance as a fraction of price; 0: none")
    take_profit: float = Field(
        _RISK.take_profit, ge=0, le=10, description="target distance as a fraction of price; 0: none"
    )

    def limits(self) -> RiskLimits:
        """As the risk layer wants them."""
        return RiskLimits(**self.model_dump())


class CostsSection(Section):
    """Costs of trading, as fractions of notional or price."""

    taker_fee: Decimal = Field(_COSTS.taker_fee, ge=0, lt=1, description="fee of market orders, stops and targets")
    maker_fee: Decimal = Field(_COSTS.maker_fee, ge=-1, lt=1, description="fee of limit orders; negative: rebate")
    slippage: Decimal = Field(_COSTS.slippage, ge=0, lt=1, description="worsening of every taker price")

    @field_validator("*", mode="before")
    @classmethod
    def _exact(cls, value: Any) -> Any:
        return Decimal(repr(value)) if isinstance(value, float) else value

    def costs(self) -> Costs:
        """As the fill model wants them."""
        return Costs(self.taker_fee, self.maker_fee, self.slippage)


class AccountSection(Section):
    """The paper account."""

    initial_cash: Decimal = Field(Decimal(10_000), gt=0, description="cash at the start, in quote units")

    @field_validator("*", mode="before")
    @classmethod
    def _exact(cls, value: Any) -> Any:
        return Decimal(repr(value)) if isinstance(value, float) else value


class InstrumentSection(Section):
    """Trading rules of one symbol, where neither the venue nor a built-in table knows them."""

    tick_size: Decimal = Field(Decimal("0.01"), gt=0, description="step of prices")
    lot_size: Decimal = Field(Decimal("0.001"), gt=0, description="step of quantities")
    minimum_quantity: Decimal = Field(Decimal("0.001"), ge=0, description="smallest order, in base units")
    minimum_notional: Decimal = Field(Decimal(5), ge=0, description="smallest order, in quote units")

    @field_validator("*", mode="before")
    @classmethod
    def _exact(cls, value: Any) -> Any:
        return Decimal(repr(value)) if isinstance(value, float) else value


class LiveSection(Section):
    """Keys and switches of real trading."""

    mode: Literal["paper", "live"] = Field("paper", description="live, together with --real-money, trades real money")
    api_key: SecretStr = Field(SecretStr(""), description="from the environment only: RECALL_LIVE__API_KEY")
    api_secret: SecretStr = Field(SecretStr(""), description="from the environment only: RECALL_LIVE__API_SECRET")
    allow_withdrawal_key: bool = Field(False, description="accept a key that may withdraw; better not")


class LogSection(Section):
    """What is written about the run."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="least severity that is written")
    json_lines: bool = Field(False, description="one JSON object per line instead of text")


class Config(Section):
    """The whole configuration."""

    storage: StorageSection = StorageSection()
    market: MarketSection = MarketSection()
    venue: VenueSection = VenueSection()
    sandbox: SandboxSection = SandboxSection()
    strategy: StrategySection = StrategySection()
    memory: MemorySection = MemorySection()
    model: ModelSection = ModelSection()
    training: TrainingSection = TrainingSection()
    signal: SignalSection = SignalSection()
    risk: RiskSection = RiskSection()
    costs: CostsSection = CostsSection()
    account: AccountSection = AccountSection()
    instruments: dict[str, InstrumentSection] = Field(default_factory=dict)
    live: LiveSection = LiveSection()
    log: LogSection = LogSection()

    @property
    def candles_dir(self) -> Path:
        """Folder of the candle store."""
        return self.storage.data_dir / "candles"

    @property
    def models_dir(self) -> Path:
        """Folder of model bundles."""
        return self.storage.data_dir / "models"

    @property
    def reports_dir(self) -> Path:
        """Folder of plots and reports."""
        return self.storage.data_dir / "reports"

    @property
    def journal_url(self) -> str:
        """SQLAlchemy URL of the journal."""
        return self.storage.database_url or f"sqlite:///{(self.storage.data_dir / 'journal.sqlite').as_posix()}"

    @property
    def primary_index(self) -> int:
        """Position of the primary horizon in ``memory.horizons``."""
        return self.memory.horizons.index(self.memory.primary)

    def changed(self, layer: Mapping[str, Mapping[str, Any]], where: str) -> Config:
        """This configuration with some values replaced.

        Raises:
            UsageError: a new value is not allowed.
        """
        values: dict[str, Any] = self.model_dump()
        origin: dict[tuple[str, ...], str] = {}
        _merge(values, origin, layer, where)
        return _validated(values, origin)

    def masked(self) -> dict[str, Any]:
        """As plain values that can be shown or journalled: secrets are stars."""
        return self.model_dump(mode="json")


def load_config(
    file: Path | None = None,
    *,
    overrides: Iterable[str] = (),
    environment: Mapping[str, str] | None = None,
    defaults: Mapping[str, Mapping[str, Any]] | None = None,
) -> Config:
    """Read the configuration.

    Args:
        file: the TOML file; ``None`` takes ``config.toml`` of the working directory where it exists.
        overrides: ``section.key=value`` texts, strongest of all.
        environment: the process environment by default.
        defaults: values of a command that are weaker than the file.

    Raises:
        UsageError: something in it is unknown, of a wrong type or out of range.
    """
    layers: dict[str, dict[str, Any]] = {}
    origin: dict[tuple[str, ...], str] = {}
    _merge(layers, origin, defaults or {}, "the command's defaults")
    path = DEFAULT_FILE if file is None else file
    if path.is_file():
        _merge(layers, origin, _read_toml(path), str(path))
    elif file is not None:
        raise UsageError(f"config file {file} does not exist; give --config an existing TOML file")
    _merge(layers, origin, _from_environment(os.environ if environment is None else environment), "the environment")
    for text in overrides:
        _merge(layers, origin, _from_override(text), "--set")
    return _validated(layers, origin)


def builtin_instrument(symbol: str, calendar: Calendar) -> Instrument:
    """Trading rules for replays of a symbol that no venue was asked about.

    Crypto symbols get a fine grid; stocks one cent and one share. Values for the most traded perpetuals are Bybit's of
    August 2026 (https://bybit-exchange.github.io/docs/v5/market/instrument).
    """
    grids = {
        "BTCUSDT": ("0.1", "0.001"),
        "ETHUSDT": ("0.01", "0.01"),
        "SOLUSDT": ("0.01", "0.1"),
        "BNBUSDT": ("0.1", "0.01"),
        "XRPUSDT": ("0.0001", "0.1"),
        "DOGEUSDT": ("0.00001", "1"),
    }
    if calendar is Calendar.SESSIONS:
        tick, lot, notional = "0.01", "1", "1"
    else:
        tick, lot = grids.get(symbol, ("0.00000001", "0.000001"))
        notional = "5"
    return Instrument(
        symbol,
        tick_size=Decimal(tick),
        lot_size=Decimal(lot),
        minimum_quantity=Decimal(lot),
        minimum_notional=Decimal(notional),
        calendar=calendar,
    )


def _validated(values: Mapping[str, Any], origin: Mapping[tuple[str, ...], str]) -> Config:
    try:
        config = Config.model_validate(values)
    except ValidationError as problem:
        raise UsageError(_sentence(problem, origin)) from None
    if config.memory.primary not in config.memory.horizons:
        raise UsageError(
            f"memory.primary was {config.memory.primary}, which is none of memory.horizons "
            f"{list(config.memory.horizons)}; name one of them"
        )
    if config.model.d_model % config.model.n_heads:
        raise UsageError(
            f"model.d_model was {config.model.d_model}, which model.n_heads {config.model.n_heads} does not divide; "
            "choose a multiple"
        )
    return config


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise UsageError(f"{path} is not valid TOML: {problem}; mend that line") from None
    except OSError as problem:
        raise UsageError(f"{path} cannot be read: {problem.strerror}; check the file and its rights") from None


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in environment.items():
        if not name.startswith(ENVIRONMENT_PREFIX) or "__" not in name:
            continue
        keys = name.removeprefix(ENVIRONMENT_PREFIX).split("__")
        # Symbols are upper case, sections and keys lower case.
        path = [
            key.upper() if keys[0].lower() == "instruments" and i == 1 else key.lower() for i, key in enumerate(keys)
        ]
        _place(found, path, value)
    return found


def _from_override(text: str) -> dict[str, Any]:
    path, separator, value = text.partition("=")
    keys = path.strip().split(".")
    if not separator or len(keys) < 2:
        raise UsageError(f"--set {text!r} is not understood; write --set section.key=value")
    found: dict[str, Any] = {}
    _place(found, keys, value)
    return found


def _place(target: dict[str, Any], path: list[str], value: Any) -> None:
    for key in path[:-1]:
        target = target.setdefault(key, {})
    target[path[-1]] = _plain(value) if path[0] == "parameters" or "parameters" in path else value


def _plain(text: str) -> Any:
    """A free-form parameter from text: TOML where it parses, else the text itself."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _merge(
    into: dict[str, Any],
    origin: dict[tuple[str, ...], str],
    layer: Mapping[str, Any],
    where: str,
    path: tuple[str, ...] = (),
) -> None:
    for key, value in layer.items():
        if isinstance(value, Mapping):
            below = into.setdefault(key, {})
            if isinstance(below, dict):
                _merge(below, origin, value, where, (*path, key))
                continue
        into[key] = value
        origin[(*path, key)] = where


def _sentence(problem: ValidationError, origin: Mapping[tuple[str, ...], str]) -> str:
    error = problem.errors(include_url=False)[0]
    location = tuple(str(part) for part in error["loc"])
    named = next((location[:n] for n in range(len(location), 0, -1) if location[:n] in origin), location)
    where = origin.get(named) or next((o for p, o in origin.items() if p[: len(named)] == named), "the configuration")
    key = ".".join(named)
    if error["type"] == "extra_forbidden":
        return f"{key} in {where} is unknown; {_suggestion(named)}"
    secret = any(part.startswith("api_") for part in named)
    value = "***" if secret else repr(error.get("input"))
    message = error["msg"].removeprefix("Value error, ")
    return f"{key} was {value} in {where}, which is not allowed: {message[0].lower()}{message[1:]}"


def _suggestion(path: tuple[str, ...]) -> str:
    import difflib

    known = known_keys()
    name = ".".join(path)
    sections = sorted({key.split(".")[0] for key in known})
    if path[0] not in sections:
        near = difflib.get_close_matches(path[0], sections, 1)
        return f"did you mean section {near[0]}?" if near else f"sections are {', '.join(sections)}"
    near = difflib.get_close_matches(name, known, 1, 0.5)
    keys = [key.split(".", 1)[1] for key in known if key.startswith(path[0] + ".")]
    return f"did you mean {near[0]}?" if near else f"keys of {path[0]} are {', '.join(keys)}"


def known_keys() -> dict[str, str]:
    """Every key, as ``section.key``, with its description."""
    found: dict[str, str] = {}
    for section, field in Config.model_fields.items():
        kind = field.annotation
        if isinstance(kind, types.GenericAlias):
            kind, prefix = typing.get_args(kind)[1], f"{section}.SYMBOL"
        else:
            prefix = section
        assert isinstance(kind, type) and issubclass(kind, BaseModel)
        for key, below in kind.model_fields.items():
            found[f"{prefix}.{key}"] = below.description or ""
    return found
