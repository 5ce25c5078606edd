"""The memory transformer as a strategy: model and memory each say where the price goes, and the two are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, exp, sqrt
from typing import ClassVar, Final, NamedTuple, cast

import msgspec
import numpy as np

from memory_store import BankConfig, MemoryBank
from strategies.bars import Bar, BarSeries, interval_ms
from strategies.base import Explanation, Neighbour, Signal, Strategy
from strategies.errors import SettingsError
from strategies.features import FEATURE_NAMES
from strategies.memory_rules import EVERY_BAR
from strategies.memory_transformer.appraisal import Appraiser
from strategies.memory_transformer.bar_kernel import BarKernel
from strategies.memory_transformer.bundle import Bundle
from strategies.memory_transformer.decision import combine, distances, volatility_share
from strategies.memory_transformer.overlap import OverlappingTargets, StrategyState
from strategies.memory_transformer.prospect import Appraisal
from strategies.memory_transformer.settings import MemoryTransformerSettings
from strategies.memory_transformer.symbol_state import ObservedBar, SymbolState
from strategies.readout import QUANTILES
from strategies.recorder import MemoryRecorder, Recall
from strategies.uncertainty.calibration import Score
from strategies.uncertainty.online import CalibratedForecast, OnlineUncertainty, RawForecast

_LOW: Final = QUANTILES.index(0.1)
_HIGH: Final = QUANTILES.index(0.9)


class _Outlook(NamedTuple):
    """What is forecast over the primary horizon."""

    volatility: float
    """That the trailing volatility lets expect, a log return; positive, as the next."""
    expected_volatility: float
    """That the model expects."""
    spread: float
    """See ``Score.SPREAD``."""
    calibrated: CalibratedForecast


class MemoryTransformerStrategy(Strategy):
    """Trades where the model's forecast is strong enough, more where the memory agrees with it.

    Args:
        bundle: the trained model.
        symbols: of the run; the memory is shared by all.
        settings: see there.
        bank: the memory to use, of ``bank_config`` and the bundle's id; an empty one by default.
    """

    name: ClassVar[str] = "memory_transformer"
    feature_names: ClassVar[tuple[str, ...]] = FEATURE_NAMES

    def __init__(
        self,
        bundle: Bundle,
        symbols: Sequence[str],
        settings: MemoryTransformerSettings | None = None,
        *,
        bank: MemoryBank | None = None,
    ) -> None:
        self.bundle = bundle
        self.symbols = tuple(symbols)
        self.settings = settings or MemoryTransformerSettings()
        config = bundle.config
        neighbors = self.settings.n_neighbors or config.n_neighbors
        if self.settings.minimum_neighbors > neighbors:
            raise SettingsError(
                f"memory_transformer: minimum_neighbors is {self.settings.minimum_neighbors}; "
                f"it must be at most n_neighbors, {neighbors}"
            )
        self._kernel = BarKernel(bundle.model.encoder)
        self._horizon_ms = config.primary_horizon * interval_ms(bundle.interval)
        self._appraiser = Appraiser(bundle, neighbors, len(self.symbols), self.settings.rules)
        self._states = self._fresh_states()
        self._uncertainty = OnlineUncertainty(bundle.calibration)
        self._calibrated: dict[str, tuple[CalibratedForecast, ...]] = {}
        self._targets = OverlappingTargets(self.settings.holding_bars)
        self.attach_bank(MemoryBank(self.bank_config, encoder_version=bundle.model_id) if bank is None else bank)

    @property
    def bank_config(self) -> BankConfig:
        """The shape and rules of this strategy's memory."""
        config = self.bundle.config
        return self.settings.rules.bank_config(
            capacity=self.settings.memory_size or config.memory_size,
            dimension=config.d_model,
            horizons=config.horizons,
            primary=config.primary,
            embargo_ms=config.embargo * interval_ms(self.bundle.interval),
            outcome_scale=float(self.bundle.outcome_scale[config.primary]),
        )

    @property
    def learned_until(self) -> int:
        """See ``Strategy.learned_until``."""
        return self.bundle.training_span[1]

    @property
    def required_bars(self) -> int:
        """Enough for ``minimum_neighbors`` moments of this symbol to be visible."""
        config = self.bundle.config
        return config.warmup + config.primary_horizon + config.embargo + self.settings.minimum_neighbors

    @property
    def history_bars(self) -> int:
        """Enough to fill the memory; all there are where it keeps others than the latest."""
        if not self.settings.rules.keeps_latest:
            return EVERY_BAR
        share = ceil(self.bank_config.holds / max(1, len(self.symbols)))
        return max(self.required_bars, self.bundle.config.warmup + share)

    def attach_bank(self, bank: MemoryBank) -> None:
        """See ``Strategy.attach_bank``.

        Raises:
            SettingsError: it was made by another model or with other settings.
        """
        if bank.encoder_version != self.bundle.model_id:
            raise SettingsError(
                f"memory_transformer: this memory holds keys of model {bank.encoder_version}, not of "
                f"{self.bundle.model_id}; start an empty one and warm it from stored candles"
            )
        if bank.config != self.bank_config:
            raise SettingsError("memory_transformer: this memory was made with other settings; start an empty one")
        self.bank: MemoryBank = bank
        self._recorder = MemoryRecorder(bank, self.bundle.config.horizons)
        self._recalls: dict[str, Recall] = {}

    def warm(self, history: Mapping[str, BarSeries], *, remember: bool = True) -> None:
        """See ``Strategy.warm``."""
        self._states = self._fresh_states()
        wanted = self.bank.config.holds if self.settings.rules.keeps_latest else EVERY_BAR
        keys, regimes, admitted = {}, {}, {}
        for symbol, series in history.items():
            caught_up = self._states[symbol].catch_up(series, wanted if remember else 0)
            keys[symbol], regimes[symbol], admitted[symbol] = caught_up
            if not self.settings.uses_memory:
                admitted[symbol] = np.zeros_like(admitted[symbol])
        if remember:
            self._recorder.warm(history, keys, regimes, admitted)
        else:
            self._recorder.resume(history)

    def preview(self, upcoming: Mapping[str, BarSeries]) -> None:
        """Have whole blocks encoded, and neighbours proposed for all their bars at once, as the replay gets there."""
        for symbol, series in upcoming.items():
            self._states[symbol].foresee(series)

    def settle(self, bars: Sequence[Bar]) -> None:
        """See ``Strategy.settle``."""
        self._recorder.settle(bars)
        for bar in bars:
            self._uncertainty.settle(bar.symbol, bar.close)

    def on_bar(self, bar: Bar) -> Signal:
        """Decide on one closed bar."""
        self._recorder.assert_may_ask(bar)
        state = self._states[bar.symbol]
        observed = state.observe(bar, self.bank.second_thread)
        if observed.encoded is None:
            return Signal(bar.symbol, bar.open_time, None, "too early to have a key")
        appraisal = self._appraiser.appraise(
            self.bank, bar, observed.encoded, observed.volatility, state.ordinal, state.prospect, observed.regime
        )
        outlook = self._outlook(bar.symbol, observed, appraisal)
        self._calibrated[bar.symbol] = (outlook.calibrated,)
        explanation = self._explain(observed, appraisal, outlook)
        known, needed = appraisal.view.count, self.settings.minimum_neighbors
        self._recalls[bar.symbol] = appraisal.recall if known >= needed else appraisal.recall.unused()
        if known < needed and self.settings.uses_memory:
            reason = f"only {known} neighbours known, {needed} needed"
            return Signal(bar.symbol, bar.open_time, None, reason, explanation=explanation)
        return self._signal(bar, appraisal, outlook, explanation)

    def remember(self, bars: Sequence[Bar]) -> None:
        """See ``Strategy.remember``."""
        for bar in bars:
            observed = self._states[bar.symbol].observe(bar)
            remembers = observed.admitted and self.settings.uses_memory
            key = observed.encoded.key if observed.encoded is not None and remembers else None
            self._recorder.remember(bar, key, observed.regime, self._recalls.pop(bar.symbol, None))
            self._uncertainty.remember(bar.symbol, bar.close, self._calibrated.pop(bar.symbol, ()))

    def state(self) -> bytes:
        """What its forecasts taught the calibration, and what the last of them wanted; see ``Strategy.state``."""
        return msgspec.msgpack.encode(StrategyState(self._uncertainty.state(), self._targets.state()))

    def restore(self, state: bytes) -> None:
        """See ``Strategy.restore``."""
        stored = msgspec.msgpack.decode(state, type=StrategyState)
        self._uncertainty.restore(stored.uncertainty)
        self._targets.restore(stored.wanted)

    def _fresh_states(self) -> dict[str, SymbolState]:
        glitch_wick = self.settings.rules.glitch_wick
        return {
            symbol: SymbolState(self._kernel, self.bundle.scaler, glitch_wick=glitch_wick) for symbol in self.symbols
        }

    def _outlook(self, symbol: str, observed: ObservedBar, appraisal: Appraisal) -> _Outlook:
        """The forecast over the primary horizon in log returns, calibrated by what came of earlier ones."""
        config, forecast = self.bundle.config, appraisal.forecast
        volatility = observed.volatility * sqrt(config.primary_horizon)
        levels = forecast.quantiles
        raw = RawForecast([level * volatility for level in levels], volatility)
        (calibrated,) = self._uncertainty.calibrate(symbol, (raw,))
        return _Outlook(
            volatility,
            volatility * exp(forecast.log_volatility),
            levels[_HIGH] - levels[_LOW],
            calibrated,
        )

    def _explain(self, observed: ObservedBar, appraisal: Appraisal, outlook: _Outlook) -> Explanation:
        view, forecast = appraisal.view, appraisal.forecast
        return Explanation(
            features=observed.features,
            model_id=self.bundle.model_id,
            memory_size=appraisal.visible,
            prediction=forecast.prediction,
            memory_mean=view.mean if view.count else None,
            gate=forecast.gate,
            neighbours=cast("tuple[Neighbour, ...]", appraisal.neighbours),
            independent=view.effective,
            novelty=appraisal.recall.novelty,
            rise_probability=outlook.calibrated.rise_probability,
            volatility=outlook.expected_volatility,
        )

    def _signal(self, bar: Bar, appraisal: Appraisal, outlook: _Outlook, explanation: Explanation) -> Signal:
        view, prediction, volatility = appraisal.view, appraisal.forecast.prediction, outlook.volatility
        config, settings = self.bundle.config, self.settings
        memory_mean = view.mean / volatility if settings.uses_memory else None
        decision = combine(prediction, memory_mean)
        reason = f"model {prediction:+.3f}"
        if memory_mean is not None:
            reason += f", memory {memory_mean:+.3f}, {'agree' if decision.agree else 'disagree'}"
        rule = self.bundle.calibration.abstention if settings.abstains else None
        if rule is not None and rule.score is Score.NOVELTY and not settings.uses_memory:
            rule = None  # Without a memory everything is new, and says nothing.
        enters = decision.side != 0 and decision.confidence >= settings.entry_threshold
        if settings.needs_skill and not self.bundle.knows_direction:
            enters, reason = False, f"{reason}: its direction has shown no skill on validation"
        elif not enters:
            reason += ": below the entry threshold"
        elif rule is not None and rule.abstains(
            {Score.SPREAD: outlook.spread, Score.NOVELTY: appraisal.recall.novelty}
        ):
            enters, reason = False, f"{reason}: too uncertain by its {rule.score.value}"
        share = volatility_share(outlook.expected_volatility, self._horizon_ms, settings.target_volatility)
        exposure = self._targets.target(bar.symbol, decision.side * decision.confidence * share if enters else 0.0)
        side = (exposure > 0.0) - (exposure < 0.0)
        stop, target = (
            distances(view, outlook.calibrated, side, volatility, outlook.expected_volatility, settings)
            if side
            else (None, None)
        )
        # Where the head forecasts no return, the memory's mean is the expectation.
        predicts_return = config.output_type.forecasts_returns
        return Signal(
            bar.symbol,
            bar.open_time,
            exposure,
            reason,
            prediction * volatility if predicts_return else view.mean if view.count else None,
            outlook.calibrated.quantiles,
            stop,
            target,
            explanation,
        )
