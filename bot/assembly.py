"""From configuration to working parts: which folder, which instruments, which strategy with which model."""

from __future__ import annotations

import hashlib
import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import msgspec

from bot.config import Config
from bot.engine import AccountSettings
from bot.errors import UsageError
from bot.execution.builtin import builtin_instrument
from bot.execution.funding import FundingSchedule
from bot.execution.instruments import Instrument
from bot.market.candles import CandleStore
from bot.market.funding import FundingStore
from bot.market.instrument_book import InstrumentBook
from bot.market.margin_tiers import MarginTierStore, Tiers
from bot.risk import SPOT_EXPOSURE
from strategies.bars import Calendar
from strategies.base import Strategy
from strategies.baselines import BuyAndHold, SmaCross
from strategies.memory_rules import MemoryRules
from strategies.similarity import SimilaritySettings, SimilarityStrategy

BASELINES: Final[dict[str, type[Strategy]]] = {"sma_cross": SmaCross, "buy_and_hold": BuyAndHold}
WITH_A_MEMORY: Final = ("memory_transformer", "similarity")
"""Strategies that the configuration of memory and model makes, not parameters of their own."""
LATEST: Final = "latest"


@dataclass(frozen=True, slots=True)
class Home:
    """The folders of one market: candles and models of different venues never mix."""

    root: Path
    name: str
    """Path below data_dir; empty for the real market."""

    @property
    def candles(self) -> CandleStore:
        """The candle store."""
        return CandleStore(self.root / "candles")

    @property
    def funding(self) -> FundingStore:
        """The funding rates."""
        return FundingStore(self.root / "funding")

    @property
    def instruments(self) -> InstrumentBook:
        """The trading rules that the venue told last."""
        return InstrumentBook(self.root / "instruments.json")

    @property
    def margin_tiers(self) -> MarginTierStore:
        """The margin tiers that were fetched."""
        return MarginTierStore(self.root / "margin_tiers.json")

    @property
    def models(self) -> Path:
        """Folder of model bundles."""
        return self.root / "models"

    @property
    def snapshots(self) -> Path:
        """Folder of snapshots that memories are opened from; may be deleted at any time."""
        return self.root / "snapshots"


def home_of(config: Config, *, venue: str | None = None) -> Home:
    """Where the candles and models of a venue lie; the real market's for ``None``.

    A sandbox that plays the candle store shares the real market's. The testnet has its own, and so has every synthetic
    market, which is told by its seed, its start and its history, and every sandbox that runs elsewhere, told by its URL.
    The spot market of each lies in a folder below.
    """
    name = ""
    if venue == "sandbox" and config.venue.sandbox_url:
        name = f"sandbox/at-{hashlib.sha256(config.venue.sandbox_url.rstrip('/').encode()).hexdigest()[:8]}"
    elif venue == "sandbox" and config.sandbox.source == "synthetic":
        sandbox = config.sandbox
        start = "".join(character for character in sandbox.start if character.isalnum())
        name = f"sandbox/{sandbox.seed}-{start}-{sandbox.history_bars}"
    elif venue == "testnet":
        name = "testnet"
    if config.market.category == "spot":
        name = f"{name}/spot" if name else "spot"
    return home_named(config, name)


def home_named(config: Config, name: str) -> Home:
    """The folders that a run recorded."""
    return Home(config.storage.data_dir / name if name else config.storage.data_dir, name)


def instruments_of(
    config: Config,
    symbols: tuple[str, ...],
    calendars: Mapping[str, Calendar],
    venue: Mapping[str, Instrument] | None = None,
    tiers: Mapping[str, Tiers] | None = None,
) -> dict[str, Instrument]:
    """Trading rules in the order of symbols: from the configuration, else the venue, else the built-in table.

    Margin tiers are those that come with the rules, else those of ``tiers``.
    """
    found: dict[str, Instrument] = {}
    for symbol in symbols:
        section = config.instruments.get(symbol)
        if section is not None:
            found[symbol] = Instrument(symbol, calendar=calendars[symbol], **section.model_dump())
        elif venue is not None and symbol in venue:
            found[symbol] = venue[symbol]
        else:
            found[symbol] = builtin_instrument(symbol, calendars[symbol])
        if config.market.category == "spot":
            found[symbol] = msgspec.structs.replace(found[symbol], is_spot=True, maximum_leverage=Decimal(1))
        elif tiers and not found[symbol].margin_tiers:
            found[symbol] = msgspec.structs.replace(found[symbol], margin_tiers=tiers.get(symbol, ()))
    return found


def account_of(config: Config) -> AccountSettings:
    """What the account starts with, pays and may risk."""
    limits = config.risk.limits()
    if config.market.category == "spot":
        limits = replace(limits, max_leverage=min(limits.max_leverage, SPOT_EXPOSURE))
    return AccountSettings(
        config.account.initial_cash,
        config.costs.costs(),
        limits,
        config.fills.rules(config.risk.max_position),
    )


def funding_of(config: Config, home: Home, instruments: Mapping[str, Instrument]) -> FundingSchedule:
    """When positions pay funding, and how much: at the stored rates, else at the configured one."""
    rates = {symbol: home.funding.load(symbol) for symbol in instruments}
    return FundingSchedule(instruments, rates, config.fills.funding_rate)


def needs_model(config: Config) -> bool:
    """Whether the configured strategy trades with a trained model."""
    return config.strategy.name == "memory_transformer"


def needs_skill(config: Config) -> bool:
    """Whether a model whose direction has shown no skill on validation is left alone: by default where money is real."""
    unproven = config.signal.unproven
    return unproven == "abstain" or (unproven == "auto" and config.live.mode == "live")


def find_model(models: Path, model_id: str, interval: str) -> Path | None:
    """The folder of a model; ``latest`` is the promoted or else the newest one of that interval, ``None`` without any.

    Raises:
        UsageError: a model that was asked for by name does not exist.
        StrategyError: the promoted model does not exist.
    """
    # Imported here so that strategies without a model never load torch.
    from strategies.memory_transformer.catalogue import list_models
    from strategies.memory_transformer.promotion import latest_model

    if model_id == LATEST:
        latest = latest_model(models, interval)
        return None if latest is None else latest.path
    path = models / model_id
    if not path.is_dir():
        found = list_models(models)
        hint = (
            f"there are {', '.join(each.model_id for each in found)}"
            if found
            else "there are none yet: run recall train"
        )
        raise UsageError(f"model {model_id!r} is not in {models}; {hint}")
    return path


def build_strategy(
    config: Config, symbols: tuple[str, ...], interval: str, models: Path, *, model_id: str | None = None
) -> tuple[Strategy, str]:
    """The configured strategy, cold, and the id of its model (empty where it has none).

    Raises:
        UsageError: the strategy or its model cannot be had.
    """
    name = config.strategy.name
    if name == "memory_transformer":
        return _memory_transformer(config, symbols, interval, models, model_id or config.model.id)
    if name == "similarity":
        if not config.memory.enabled:
            raise UsageError(
                "memory.enabled is false, and similarity is nothing but its memory; choose another strategy"
            )
        return SimilarityStrategy(symbols, interval, _similarity_settings(config)), ""
    kind = _plain_kind(name)
    try:
        return kind(**config.strategy.parameters), ""
    except (TypeError, ValueError) as problem:
        raise UsageError(
            f"strategy {name} does not take strategy.parameters {config.strategy.parameters}: {problem}; "
            f"it takes {_signature(kind)}"
        ) from None


def _similarity_settings(config: Config) -> SimilaritySettings:
    memory = config.memory
    return SimilaritySettings(
        memory_size=memory.memory_size,
        n_neighbors=memory.n_neighbors,
        minimum_neighbors=memory.minimum_neighbors,
        confidence_threshold=config.signal.confidence_threshold,
        significance=config.signal.significance,
        temperature=config.signal.read_temperature,
        horizons=memory.horizons,
        primary=memory.primary,
        embargo=memory.embargo,
        rules=_memory_rules(config),
    )


def _memory_rules(config: Config) -> MemoryRules:
    names = [field.name for field in fields(MemoryRules)]
    return MemoryRules(**{name: getattr(config.memory, name) for name in names})


def _memory_transformer(
    config: Config, symbols: tuple[str, ...], interval: str, models: Path, model_id: str
) -> tuple[Strategy, str]:
    # Imported here because torch takes seconds to load and the other strategies do without.
    from strategies.memory_transformer.bundle import load_bundle
    from strategies.memory_transformer.settings import ExitRule, MemoryTransformerSettings
    from strategies.memory_transformer.strategy import MemoryTransformerStrategy

    path = find_model(models, model_id, interval)
    if path is None:
        raise UsageError(
            f"there is no model for interval {interval} in {models}; train one with "
            f"recall train --symbols {','.join(symbols)} --interval {interval}"
        )
    bundle = load_bundle(path, interval=interval)
    settings = MemoryTransformerSettings(
        memory_size=config.memory.memory_size,
        n_neighbors=config.memory.n_neighbors,
        minimum_neighbors=config.memory.minimum_neighbors,
        entry_threshold=config.signal.entry_threshold,
        holding_bars=config.signal.holding_bars,
        exits=ExitRule(config.signal.exits),
        target_volatility=config.signal.target_volatility,
        abstains=config.signal.abstain,
        needs_skill=needs_skill(config),
        uses_memory=config.memory.enabled,
        stop_multiple=config.signal.stop_multiple,
        target_multiple=config.signal.target_multiple,
        rules=_memory_rules(config),
    )
    return MemoryTransformerStrategy(bundle, symbols, settings), path.name


def check_strategy(name: str) -> None:
    """Refuse the name of a strategy that is not there, before anything is begun for it.

    Raises:
        UsageError: it is unknown, or a class that cannot be loaded.
    """
    if name not in WITH_A_MEMORY:
        _plain_kind(name)


def _plain_kind(name: str) -> type[Strategy]:
    """The class of a strategy that is made of its parameters alone."""
    return BASELINES.get(name) or _user_class(name)


def _user_class(name: str) -> type[Strategy]:
    module_name, separator, class_name = name.partition(":")
    if not separator:
        raise UsageError(
            f"strategy {name!r} is unknown; use {', '.join((*WITH_A_MEMORY, *BASELINES))}, "
            "or your own class as package.module:Class"
        )
    try:
        found: Any = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as problem:
        raise UsageError(
            f"strategy {name!r} cannot be loaded: {problem}; check the name and that its folder is on PYTHONPATH"
        ) from None
    if not (inspect.isclass(found) and issubclass(found, Strategy)) or inspect.isabstract(found):
        raise UsageError(f"strategy {name!r} is not a subclass of strategies.base.Strategy with all its methods")
    return found


def _signature(kind: type[Strategy]) -> str:
    names = [name for name in inspect.signature(kind.__init__).parameters if name != "self"]
    return ", ".join(names) or "none"
