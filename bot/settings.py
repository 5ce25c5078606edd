"""The settings: every key with its type, range, default and meaning, section by section.

How a configuration is put together from files, the environment and the command line is ``bot.config``.
"""

from __future__ import annotations

import math
from dataclasses import fields
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationInfo, field_validator

from bot.execution.fills import PLAIN, BandAction, Costs, FillRules, MarginMode
from bot.execution.instruments import Category
from bot.risk import LossAction, RiskLimits
from memory_store.policy import RegimeRule, Scope
from memory_store.records import Eviction
from strategies.bars import parse_interval, parse_symbol, parse_time
from strategies.memory_rules import IndexRule, MemoryRules

_RISK: Final = RiskLimits()
_COSTS: Final = Costs()
_FILLS: Final = FillRules()
_RULES: Final = MemoryRules()

EARLIEST_START: Final = parse_time("1971-01-01")
LATEST_START: Final = parse_time("2100-01-01")

Exact = Annotated[Decimal, BeforeValidator(lambda value: Decimal(repr(value)) if isinstance(value, float) else value)]
"""Money: a number of a TOML file becomes the decimal that was written there."""


def _split(value: Any) -> Any:
    """A list that came as one text from the environment or the command line."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


class Section(BaseModel):
    """Base of all sections: unknown keys are an error, values cannot be changed afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        # Pydantic would take true for 1.
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise ValueError("true and false are no value for it")
        return value


class StorageSection(Section):
    """Where everything that the bot writes goes."""

    data_dir: Path = Field(Path("recall-data"), description="folder of candles, journal, models and reports")
    database_url: str = Field("", description="SQLAlchemy URL of the journal; empty: SQLite in data_dir")

    @field_validator("data_dir", mode="before")
    @classmethod
    def _is_named(cls, value: Any) -> Any:
        # An empty path is the present folder, which nobody means who leaves it empty.
        if value == "":
            raise ValueError("it must name a folder; . is the present one")
        return value

    @field_validator("database_url")
    @classmethod
    def _is_known(cls, value: str) -> str:
        if value and not value.startswith(("sqlite:///", "postgresql")):
            raise ValueError("it must be empty, sqlite:///PATH or postgresql+psycopg://USER:PASSWORD@HOST/NAME")
        return value


class MarketSection(Section):
    """What is traded."""

    category: Category = Field("linear", description="linear: perpetuals; spot: the coins themselves")
    symbols: Annotated[tuple[str, ...], BeforeValidator(_split)] = Field(
        ("BTCUSDT",), min_length=1, max_length=200, description="symbols, in fixed order"
    )
    interval: str = Field("60", description="bar interval: 1 3 5 15 30 60 120 240 360 720 D W M")

    @field_validator("symbols")
    @classmethod
    def _distinct(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for symbol in value:
            parse_symbol(symbol)
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
    rest_url: str = Field("", description="with name = bybit: another REST host of Bybit's, such as a regional one")
    stream_url: str = Field("", description="with name = bybit: the host of the streams that belongs to it")
    rest_timeout: float = Field(5.0, gt=0, le=60, description="seconds to wait for a REST reply")
    straggler_deadline: float = Field(
        3.0, gt=0, le=60, description="seconds to wait for symbols that close together before REST is asked"
    )

    @field_validator("sandbox_url")
    @classmethod
    def _is_url(cls, value: str) -> str:
        if value and not value.startswith("http://"):
            raise ValueError("it must be empty or begin with http://")
        return value

    @field_validator("rest_url", "stream_url")
    @classmethod
    def _is_secure_url(cls, value: str, about: ValidationInfo) -> str:
        scheme = "https://" if about.field_name == "rest_url" else "wss://"
        if value and not value.startswith(scheme):
            raise ValueError(f"it must be empty or begin with {scheme}")
        return value.rstrip("/")


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
        6_000, ge=1, le=1_000_000, description="bars of the synthetic market before the moment of the start"
    )

    @field_validator("start", mode="before")
    @classmethod
    def _is_time(cls, value: Any) -> Any:
        moment = parse_time(str(value))
        if not EARLIEST_START <= moment < LATEST_START:
            raise ValueError("it must lie in the years 1971 to 2099")
        return str(value)


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

    enabled: bool = Field(True, description="memory_transformer: remember and ask; false: the model decides alone")
    memory_size: int = Field(
        100_000, ge=100, le=1_000_000, description="capacity in entries; recommended 50,000-200,000"
    )
    n_neighbors: int = Field(32, ge=1, le=1024, description="neighbours asked for; recommended 16-64")
    minimum_neighbors: int = Field(8, ge=1, le=1024, description="fewer visible neighbours mean: unknown, open nothing")
    horizons: Annotated[tuple[int, ...], BeforeValidator(_split)] = Field(
        (1, 4, 24), min_length=1, max_length=8, description="outcome horizons in bars"
    )
    primary: int = Field(24, ge=1, description="the horizon that trading looks at; one of horizons")
    embargo: int = Field(48, ge=0, le=10_000, description="bars after settlement before a memory may be asked")
    eviction: Eviction = Field(
        _RULES.eviction,
        description="who makes room: fifo (the oldest), importance (the least important) or reservoir (that of the "
        "largest regime)",
    )
    eviction_half_life_days: float = Field(
        _RULES.eviction_half_life_days,
        gt=0,
        le=1_000_000,
        description="importance and reservoir: days longer that a moment of double importance stays",
    )
    index: IndexRule = Field(
        _RULES.index,
        description="how neighbours are found: exact, approximate (nearly all, faster) or auto (exact up to 262144 moments)",
    )
    sealed_size: int = Field(
        _RULES.sealed_size,
        ge=0,
        le=1_000_000_000,
        description="moments kept on disk beyond memory_size, in sealed segments that are asked too; 0 keeps none",
    )
    age_half_life_days: float = Field(
        _RULES.age_half_life_days,
        ge=0,
        le=1_000_000,
        description="age that halves a neighbour's weight, in days; 0: off",
    )
    scope: Scope = Field(_RULES.scope, description="whose moments answer: all, same (the asking symbol's own) or other")
    regimes: RegimeRule = Field(
        _RULES.regimes, description="any, same (only moments of the present regime) or prefer (others are penalised)"
    )
    regime_penalty: float = Field(
        _RULES.regime_penalty, ge=0, le=100, description="regimes = prefer: e-folds of weight that another regime costs"
    )
    minimum_similarity: float = Field(
        _RULES.minimum_similarity, ge=-1, le=1, description="cosine below which a moment is no neighbour; -1: all are"
    )
    one_per_moment: bool = Field(
        _RULES.one_per_moment, description="of neighbours that overlap in time only the best answers"
    )
    glitch_wick: float = Field(
        _RULES.glitch_wick,
        ge=0,
        le=1000,
        description="bars with a wick of this many median ranges, and nothing behind it, are not remembered; 0: off",
    )

    @field_validator("horizons")
    @classmethod
    def _increasing(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if list(value) != sorted(set(value)) or value[0] < 1:
            raise ValueError("horizons must be 1 or more and increasing")
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
        ge=0.01,
        le=10,
        description="softmax temperature of the memory at the start of training; from 0.2 on nearly uniform (warned)",
    )
    whitening: str = Field(
        "auto", description="shrinkage of the keys' whitening, 0.001 to 1 (centring only); auto: chosen on validation"
    )
    gate_bias: float = Field(2.0, ge=-10, le=10, description="positive prefers the local state, negative the memory")
    kernel_size: int = Field(3, ge=1, le=128, description="bars that the token convolution sees")
    linear_window: int = Field(0, ge=0, le=128, description="bars that a linear map sees; 0: none")
    output_type: Literal["regression", "direction", "portfolio", "path"] = Field(
        "regression", description="prediction head"
    )
    in_sample: bool = Field(False, description="allow decisions on bars that the model has learned from")

    @field_validator("whitening", mode="before")
    @classmethod
    def _is_shrinkage(cls, value: Any) -> Any:
        text = str(value).strip()
        try:
            sound = text == "auto" or 0.001 <= float(text) <= 1.0
        except ValueError:
            sound = False
        if not sound:
            raise ValueError("it must be auto, or a number from 0.001 to 1")
        return text

    @property
    def shrinkage(self) -> float | None:
        """That of ``whitening``; ``None`` where training chooses."""
        return None if self.whitening == "auto" else float(self.whitening)


class TrainingSection(Section):
    """How models are trained."""

    epochs: int = Field(10, ge=1, le=10_000, description="passes over the training span")
    read_epochs: int = Field(
        0, ge=0, le=10_000, description="passes after these in which only what reads the memory learns"
    )
    linear_start: bool = Field(False, description="fit what is linear in closed form first, and leave it so")
    learning_rate: float = Field(1e-3, gt=0, le=1, description="peak learning rate of AdamW")
    weight_decay: float = Field(0.01, ge=0, le=1, description="weight decay of AdamW")
    validation_fraction: float = Field(0.15, gt=0, lt=0.9, description="tail of the span kept for early stopping")
    key_loss: float = Field(0, ge=0, le=100, description="weight of the objective that near keys mean alike outcomes")
    key_pace: float = Field(
        1, gt=0, le=10, description="learning rate of what keys are made by, in units of the others'"
    )
    averaging: float = Field(
        0, ge=0, lt=1, description="share that a step leaves of the running mean of the weights, in the read epochs"
    )
    mirrored: float = Field(0, ge=0, le=0.5, description="share of samples shown in the mirror")
    precision: float = Field(
        0, ge=0, le=2, description="power of one over its forecast volatility that a sample counts by"
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="what to train on; auto: a GPU where there is one"
    )
    memory_dropout: float = Field(0.15, ge=0, lt=1, description="share of samples that train with an empty memory")
    patience: int = Field(5, ge=1, le=1000, description="epochs without progress before training stops")
    seed: int = Field(7, ge=0, description="seed of weights, order and dropout")


class RetrainingSection(Section):
    """Training a new model while a paper run goes on; it takes over where it is not worse."""

    every_bars: int = Field(
        0, ge=0, le=10_000_000, description="bars of a symbol after which a model is trained anew; 0: never"
    )
    on_drift: bool = Field(False, description="also train when forecasts have become worse than they were")
    drift_threshold: float = Field(
        5.0, gt=0, le=1000, description="evidence that sets the drift alarm off, in standard deviations (CUSUM)"
    )
    train_bars: int = Field(
        20_000, ge=0, le=10_000_000, description="newest bars of every symbol to train on; 0: all that the run has seen"
    )
    judge_bars: int = Field(
        1_000, ge=1, le=1_000_000, description="newest bars of every symbol, kept apart to compare both models on"
    )
    epochs: int = Field(5, ge=1, le=10_000, description="passes over them")
    tolerance: float = Field(
        0.0, ge=0, le=10, description="standard errors by which the new model may be behind and still take over"
    )


class SignalSection(Section):
    """How forecasts become exposure."""

    entry_threshold: float = Field(
        0.4, ge=0, le=1, description="memory_transformer: least confidence to hold a position"
    )
    holding_bars: int = Field(
        24, ge=1, le=10_000, description="memory_transformer: bars that a forecast is held for; 1: until the next"
    )
    target_volatility: float = Field(
        0.8, ge=0, le=100, description="memory_transformer: volatility per year of a whole position; 0: any"
    )
    abstain: bool = Field(True, description="memory_transformer: leave forecasts that validation found too uncertain")
    unproven: Literal["auto", "trade", "abstain"] = Field(
        "auto",
        description="memory_transformer: a model whose direction showed no skill on validation; auto: abstain with real money",
    )
    exits: Literal["forecast", "memory", "volatility", "risk"] = Field(
        "forecast",
        description="memory_transformer: stop and target from the forecast's quantiles, from the neighbours' outcomes, "
        "from volatility, or risk's own",
    )
    stop_multiple: float = Field(1.0, gt=0, le=20, description="exits = volatility: stop distance in volatilities")
    target_multiple: float = Field(1.5, gt=0, le=20, description="exits = volatility: target distance in volatilities")
    confidence_threshold: float = Field(
        0.7, gt=0.5, lt=1, description="similarity: share of rising neighbours to go long"
    )
    significance: float = Field(
        0.2, gt=0, le=1, description="similarity: votes that coin flips give more often than this abstain; 1: none do"
    )
    read_temperature: float = Field(0.07, gt=0, le=10, description="similarity: softmax temperature of the vote")


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

    taker_fee: Exact = Field(_COSTS.taker_fee, ge=0, lt=1, description="fee of market orders, stops and targets")
    maker_fee: Exact = Field(_COSTS.maker_fee, ge=-1, lt=1, description="fee of limit orders; negative: rebate")
    slippage: Exact = Field(_COSTS.slippage, ge=0, lt=1, description="worsening of every taker price")
    spread: Exact = Field(_COSTS.spread, ge=0, lt=1, description="distance of bid and ask; a taker pays half of it")

    def costs(self) -> Costs:
        """As the fill model wants them."""
        return Costs(self.taker_fee, self.maker_fee, self.slippage, self.spread)


class FillsSection(Section):
    """How orders meet bars, where candles do not tell."""

    impact: float = Field(_FILLS.impact, ge=0, le=100, description="factor of the square-root law of market impact")
    latency_ms: int = Field(
        _FILLS.latency_ms, ge=0, le=3_600_000, description="milliseconds from a decision to the market"
    )
    delay_bars: int = Field(_FILLS.delay_bars, ge=0, le=1_000, description="bars that pass before an order meets one")
    participation: float = Field(
        _FILLS.participation, ge=0, le=1, description="share of a bar's volume that orders may be filled with; 0: any"
    )
    share_exits: bool = Field(
        _FILLS.share_exits, description="stops and targets share that volume too; false: they close all at once"
    )
    queue: float = Field(
        _FILLS.queue, ge=0, le=100, description="share of a bar's volume that stands before a new limit order"
    )
    improve_limits: bool = Field(
        _FILLS.improve_limits, description="limit orders that take get the market's price, not their limit"
    )
    price_band: BandAction = Field(
        _FILLS.price_band, description="limit prices beyond the venue's band: move or reject"
    )
    margin: MarginMode = Field(_FILLS.margin, description="none (no liquidation), isolated or cross")
    leverage: Exact = Field(
        _FILLS.leverage, ge=0, le=200, description="of isolated positions; 0: the least that risk.max_position needs"
    )
    maintenance_rate: Exact = Field(
        _FILLS.maintenance_rate, ge=0, lt=1, description="maintenance margin where the instrument names none"
    )
    funding_rate: Exact = Field(
        Decimal("0.0001"), ge=0, lt=1, description="paid by every position at a settlement whose rate is not stored"
    )

    def rules(self, max_position: float) -> FillRules:
        """As the fill model wants them, for positions of at most that multiple of equity."""
        leverage = self.leverage or Decimal(max(1, math.ceil(max_position)))
        return FillRules(**{**self.model_dump(exclude={"funding_rate"}), "leverage": leverage})


PLAIN_FILLS: Final = FillsSection(
    **{field.name: getattr(PLAIN, field.name) for field in fields(PLAIN)}, funding_rate=Decimal(0)
)
"""What runs were filled by that were recorded before there was a section, or a key of it."""


class AccountSection(Section):
    """The paper account."""

    initial_cash: Exact = Field(Decimal(10_000), gt=0, description="cash at the start, in quote units")


class InstrumentSection(Section):
    """Trading rules of one symbol, where neither the venue nor a built-in table knows them."""

    tick_size: Exact = Field(Decimal("0.01"), gt=0, description="step of prices")
    lot_size: Exact = Field(Decimal("0.001"), gt=0, description="step of quantities")
    minimum_quantity: Exact = Field(Decimal("0.001"), ge=0, description="smallest order, in base units")
    minimum_notional: Exact = Field(Decimal(5), ge=0, description="smallest order, in quote units")
    price_limit: Exact = Field(
        Decimal(0), ge=0, lt=1, description="how far beyond the market a limit order may go, as a fraction; 0: any"
    )
    maximum_leverage: Exact = Field(Decimal(1), gt=0, description="largest position, as a multiple of equity")


class LiveSection(Section):
    """Keys and switches of real trading."""

    mode: Literal["paper", "live"] = Field("paper", description="live, together with --real-money, trades real money")
    api_key: SecretStr = Field(SecretStr(""), description="better from the environment: RECALL_LIVE__API_KEY")
    api_secret: SecretStr = Field(SecretStr(""), description="better from the environment: RECALL_LIVE__API_SECRET")
    allow_withdrawal_key: bool = Field(False, description="accept a key that may withdraw; better not")
    order_entry: Literal["websocket", "rest"] = Field("websocket", description="how orders reach the venue")
    capital: Exact = Field(Decimal(0), ge=0, description="USDT of the wallet that a run trades with; 0: all of it")
    positions: Literal["refuse", "adopt"] = Field(
        "refuse", description="positions found when a run begins: refuse to start, or adopt them"
    )
    require_stop_loss: bool = Field(True, description="refuse to start with risk.stop_loss = 0")
    reconcile_every: float = Field(
        30.0, ge=1, le=3600, description="seconds between two comparisons of the journal with the venue"
    )


class LogSection(Section):
    """What is written about the run."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="least severity that is written")
    json_lines: bool = Field(False, description="one JSON object per line instead of text")


class Settings(Section):
    """All sections together, and what follows from them."""

    storage: StorageSection = StorageSection()
    market: MarketSection = MarketSection()
    venue: VenueSection = VenueSection()
    sandbox: SandboxSection = SandboxSection()
    strategy: StrategySection = StrategySection()
    memory: MemorySection = MemorySection()
    model: ModelSection = ModelSection()
    training: TrainingSection = TrainingSection()
    retraining: RetrainingSection = RetrainingSection()
    signal: SignalSection = SignalSection()
    risk: RiskSection = RiskSection()
    costs: CostsSection = CostsSection()
    fills: FillsSection = FillsSection()
    account: AccountSection = AccountSection()
    instruments: dict[str, InstrumentSection] = Field(default_factory=dict)
    live: LiveSection = LiveSection()
    log: LogSection = LogSection()

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
