"""Historical similarity: when the market had this shape before, what came next?

The specification's strategy under the contract of this project. Its vote is counted in independent moments and shrunk
towards one half, because ten look-alikes of one day are one observation and a few votes are mostly chance.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, exp, sqrt
from typing import ClassVar, Final, cast

import numpy as np
import numpy.typing as npt

from memory_store import BankConfig, MemoryBank, SearchResult
from memory_store.policy import Asker
from strategies.admission import AdmissionState
from strategies.bars import DAY_MS, Bar, BarSeries, interval_ms
from strategies.base import Explanation, Neighbour, Signal, Strategy
from strategies.errors import SettingsError
from strategies.features import FEATURE_NAMES, LOG_RETURN_FEATURE, FeatureState, feature_matrix
from strategies.memory_rules import EVERY_BAR, MemoryRules
from strategies.outcomes import trailing_volatility
from strategies.proposals import ProposalPlan
from strategies.readout import HasQuantiles, MemoryView, compile_read_out, neighbours, read_out
from strategies.recorder import Key, MemoryRecorder, Recall, recall_of
from strategies.regimes import RegimeState
from strategies.shape import SHAPE_DIMENSION, SHAPE_VERSION, SHAPE_WARMUP, SHAPE_WINDOW, shape_key, shape_keys

_STOP_PROBABILITY: Final = 0.05
_TARGET_PROBABILITY: Final = 0.1
_NEAREST: Final = 0.5  # of the volatility over the primary horizon: bounds of the stop and of the target
_FARTHEST: Final = 3.0
_LARGEST_DISTANCE: Final = 0.5
_DAILY_MOVE: Final = 0.03  # log return: the standard deviation of BTC's days, 2020 to 2025; a scale, not a forecast


@dataclass(frozen=True, slots=True)
class SimilaritySettings:
    """Settings of the similarity strategy.

    Raises:
        SettingsError: a value is out of range.
    """

    memory_size: int = 50_000
    """Moments remembered, of all symbols together."""
    n_neighbors: int = 32
    """Moments asked for per bar (the specification's ``n_similar`` is 10)."""
    minimum_neighbors: int = 8
    """Fewer than this many similar moments is no answer: the position is held and none is opened."""
    confidence_threshold: float = 0.7
    """Share of moments that must have gone one way, in (0.5, 1)."""
    significance: float = 0.2
    """A vote that as many coin flips would give more often than this is no vote; 1 takes every vote."""
    prior_strength: float = 1.0
    """Moments of either outcome that are assumed on top of those found (Beta prior)."""
    temperature: float = 0.07
    """Of the softmax over cosines; smaller listens to fewer neighbours."""
    horizons: tuple[int, ...] = (1, 4, 24)
    """Bars after which outcomes are recorded, increasing."""
    primary: int = 24
    """The horizon that is traded; one of ``horizons``."""
    embargo: int = 48
    """Bars between an outcome and the first decision that may use it."""
    rules: MemoryRules = field(default_factory=MemoryRules)
    """Who stays in the memory, and who of it may answer."""

    def __post_init__(self) -> None:
        checks = (
            ("memory_size", self.memory_size >= 1, "at least 1"),
            ("n_neighbors", self.n_neighbors >= 1, "at least 1"),
            ("minimum_neighbors", 1 <= self.minimum_neighbors <= self.n_neighbors, "between 1 and n_neighbors"),
            ("confidence_threshold", 0.5 < self.confidence_threshold < 1.0, "above 0.5 and below 1"),
            ("significance", 0.0 < self.significance <= 1.0, "above 0 and at most 1"),
            ("prior_strength", 0.0 <= self.prior_strength < float("inf"), "0 or more"),
            ("temperature", 0.0 < self.temperature < float("inf"), "above 0"),
            ("horizons", _increasing(self.horizons), "one or more bar counts in increasing order"),
            ("primary", self.primary in self.horizons, "one of horizons"),
            ("embargo", self.embargo >= 0, "0 or more"),
        )
        for name, sound, allowed in checks:
            if not sound:
                raise SettingsError(f"similarity: {name} is {getattr(self, name)}; it must be {allowed}")


def _increasing(horizons: tuple[int, ...]) -> bool:
    return bool(horizons) and horizons[0] >= 1 and list(horizons) == sorted(set(horizons))


@dataclass(frozen=True, slots=True, eq=False)
class _Moment:
    """What one bar looked like."""

    open_time: int
    features: tuple[float, ...]
    key: Key | None
    regime: int
    admitted: bool
    """Whether it may be remembered."""


class _SymbolState:
    """Everything about one symbol that is a function of its bars alone."""

    __slots__ = ("admission", "features", "moment", "regime", "returns", "seen")

    def __init__(self, glitch_wick: float) -> None:
        self.admission = AdmissionState(glitch_wick)
        self.features = FeatureState()
        self.regime = RegimeState()
        self.returns: deque[float] = deque(maxlen=SHAPE_WINDOW)
        self.seen = 0
        self.moment: _Moment | None = None

    def observe(self, bar: Bar) -> _Moment:
        """The moment of a bar; asking again about the same bar changes nothing."""
        if self.moment is not None and self.moment.open_time == bar.open_time:
            return self.moment
        features = self.features.update(bar)
        self.returns.append(features[LOG_RETURN_FEATURE])
        self.seen += 1
        key = shape_key(np.array(self.returns), np.array(features)) if self.seen >= SHAPE_WARMUP else None
        self.moment = _Moment(bar.open_time, features, key, self.regime.update(features), self.admission.admit(bar))
        return self.moment

    def catch_up(self, series: BarSeries) -> tuple[Key, npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """Observe a whole history at once; keys of its last bars, regimes of all, and which may be remembered."""
        matrix = feature_matrix(series)
        regimes = self.regime.update_many(matrix)
        self.features = FeatureState.after(series)
        self.returns.extend(matrix[-SHAPE_WINDOW:, LOG_RETURN_FEATURE].tolist())
        self.seen = len(series)
        keys = shape_keys(matrix)[max(0, SHAPE_WARMUP - SHAPE_WINDOW) :]
        return keys, regimes, self.admission.admit_many(series)

    def foresee(self, series: BarSeries) -> npt.NDArray[np.float32]:
        """Keys of bars to come, without observing them; zero rows for bars without a key."""
        features = copy.deepcopy(self.features)
        rows = np.array([features.update(bar) for bar in series.bars()])
        keys = np.zeros((len(series), SHAPE_DIMENSION), dtype=np.float32)
        if len(rows):
            known = shape_keys(rows, np.array(self.returns))
            keys[len(keys) - len(known) :] = known
        keys[: max(0, SHAPE_WARMUP - 1 - self.seen)] = 0.0
        return keys


class SimilarityStrategy(Strategy):
    """Long where enough similar moments were followed by a rise, short where by a fall, flat otherwise.

    Regime labels of new entries depend on where the history shown to ``warm`` begins (see ``strategies.regimes``); they
    are journalled with the entries and take part in the decision only under rules that look at regimes.

    Args:
        symbols: of the run; the memory is shared by all.
        interval: of the bars, Bybit's code.
        settings: see there.
        bank: the memory to use, of ``bank_config`` and ``SHAPE_VERSION``; an empty one by default.
    """

    name: ClassVar[str] = "similarity"
    feature_names: ClassVar[tuple[str, ...]] = FEATURE_NAMES

    def __init__(
        self,
        symbols: Sequence[str],
        interval: str,
        settings: SimilaritySettings | None = None,
        *,
        bank: MemoryBank | None = None,
    ) -> None:
        self.settings = settings or SimilaritySettings()
        self.symbols = tuple(symbols)
        self.interval = interval
        self._primary = self.settings.horizons.index(self.settings.primary)
        compile_read_out()
        self._cluster_ms = (SHAPE_WINDOW + self.settings.primary) * interval_ms(interval)
        self._policy = self.settings.rules.policy(temperature=self.settings.temperature, cluster_ms=self._cluster_ms)
        self._states = self._fresh_states()
        self._plan = ProposalPlan()
        self.attach_bank(MemoryBank(self.bank_config, encoder_version=SHAPE_VERSION) if bank is None else bank)

    @property
    def bank_config(self) -> BankConfig:
        """The shape and rules of this strategy's memory."""
        settings = self.settings
        span_ms = interval_ms(self.interval)
        return settings.rules.bank_config(
            capacity=settings.memory_size,
            dimension=SHAPE_DIMENSION,
            horizons=settings.horizons,
            primary=self._primary,
            embargo_ms=settings.embargo * span_ms,
            outcome_scale=_DAILY_MOVE * sqrt(settings.primary * span_ms / DAY_MS),
        )

    @property
    def required_bars(self) -> int:
        """Enough for ``minimum_neighbors`` moments of this symbol to be visible."""
        settings = self.settings
        return SHAPE_WARMUP + settings.primary + settings.embargo + settings.minimum_neighbors

    @property
    def history_bars(self) -> int:
        """Enough to fill the memory; all there are where it keeps others than the latest."""
        if not self.settings.rules.keeps_latest:
            return EVERY_BAR
        return max(self.required_bars, SHAPE_WARMUP + ceil(self.bank_config.holds / max(1, len(self.symbols))))

    def attach_bank(self, bank: MemoryBank) -> None:
        """See ``Strategy.attach_bank``.

        Raises:
            SettingsError: it was made by other settings or for other keys.
        """
        if bank.config != self.bank_config or bank.encoder_version != SHAPE_VERSION:
            raise SettingsError("similarity: this memory was made with other settings or features; start an empty one")
        self.bank: MemoryBank = bank
        self._recorder = MemoryRecorder(bank, self.settings.horizons)
        self._recalls: dict[str, Recall] = {}

    def warm(self, history: Mapping[str, BarSeries], *, remember: bool = True) -> None:
        """See ``Strategy.warm``."""
        self._plan = ProposalPlan()
        self._states = self._fresh_states()
        keys, regimes, admitted = {}, {}, {}
        for symbol, series in history.items():
            keys[symbol], regimes[symbol], admitted[symbol] = self._states[symbol].catch_up(series)
        if remember:
            self._recorder.warm(history, keys, regimes, admitted)
        else:
            self._recorder.resume(history)

    def preview(self, upcoming: Mapping[str, BarSeries]) -> None:
        """Have neighbours proposed in bulk, a chunk of bars at a time, as the replay gets there."""
        keys = {symbol: self._states[symbol].foresee(series) for symbol, series in upcoming.items()}
        self._plan = ProposalPlan(upcoming, keys)

    def settle(self, bars: Sequence[Bar]) -> None:
        """See ``Strategy.settle``."""
        self._recorder.settle(bars)

    def on_bar(self, bar: Bar) -> Signal:
        """Decide on one closed bar from the moments that looked most like it."""
        self._recorder.assert_may_ask(bar)
        moment = self._states[bar.symbol].observe(bar)
        if moment.key is None:
            return Signal(bar.symbol, bar.open_time, None, "too early to have a shape")
        settings = self.settings
        result = self._search(bar, moment.key, moment.regime)
        view = read_out(result, self._primary, temperature=settings.temperature, cluster_ms=self._cluster_ms)
        recall = recall_of(result, view.weights)
        explanation = Explanation(
            features=moment.features,
            model_id=SHAPE_VERSION,
            memory_size=result.visible,
            memory_mean=view.mean if view.count else None,
            neighbours=cast("tuple[Neighbour, ...]", neighbours(result, view, self._primary)),
            independent=view.effective,
            novelty=recall.novelty,
        )
        decided = view.count >= settings.minimum_neighbors
        self._recalls[bar.symbol] = recall if decided else recall.unused()
        if not decided:
            reason = f"only {view.count} similar moments known, {settings.minimum_neighbors} needed"
            return Signal(bar.symbol, bar.open_time, None, reason, explanation=explanation)
        return self._signal(bar, moment, view, explanation)

    def remember(self, bars: Sequence[Bar]) -> None:
        """See ``Strategy.remember``."""
        for bar in bars:
            moment = self._states[bar.symbol].observe(bar)
            key = moment.key if moment.admitted else None
            self._recorder.remember(bar, key, moment.regime, self._recalls.pop(bar.symbol, None))

    def _fresh_states(self) -> dict[str, _SymbolState]:
        return {symbol: _SymbolState(self.settings.rules.glitch_wick) for symbol in self.symbols}

    def _search(self, bar: Bar, key: Key, regime: int) -> SearchResult:
        k, policy = self.settings.n_neighbors, self._policy
        asker = None if policy is None else Asker(bar.symbol, regime, bar.open_time)
        proposal, row = self._plan.proposal(self.bank, bar, k)
        return self.bank.search(key, as_of=bar.close_time, k=k, policy=policy, asker=asker, proposal=proposal, row=row)

    def _signal(self, bar: Bar, moment: _Moment, view: MemoryView, explanation: Explanation) -> Signal:
        up = rise_probability(view, self.settings.prior_strength)
        threshold = self.settings.confidence_threshold
        side, confidence = 0, 0.0
        told = chance_of_vote(view) <= self.settings.significance
        if told and up > threshold:
            side, confidence = 1, up
        elif told and up < 1.0 - threshold:
            side, confidence = -1, 1.0 - up
        volatility = float(trailing_volatility(np.array(moment.features))) * sqrt(self.settings.primary)
        stop, target = exit_distances(view, side, volatility) if side else (None, None)
        return Signal(
            bar.symbol,
            bar.open_time,
            side * confidence,
            f"{up:.3f} of {view.effective:.1f} independent moments rose",
            view.mean,
            view.quantiles,
            stop,
            target,
            explanation,
        )


def rise_probability(view: MemoryView, prior_strength: float) -> float:
    """Probability of a rise: the share of positive moments under a Beta(a, a) prior, which pulls it to 1/2.

    The posterior mean (a + n p) / (2 a + n), n the effective number of independent moments and p their positive share.
    """
    return (prior_strength + view.effective * view.positive_ratio) / (2.0 * prior_strength + view.effective)


def chance_of_vote(view: MemoryView) -> float:
    """How often, at most, fair coin flips with the same weights would be as one-sided, either way.

    ``2 exp(-2 n (p - 1/2)^2)``, n = 1 / sum of squared weights: the bound of Hoeffding ("Probability inequalities for sums
    of bounded random variables", 1963) for a weighted sum. Ten neighbours of three days are three flips, not ten.
    """
    return min(1.0, 2.0 * exp(-2.0 * view.effective * (view.positive_ratio - 0.5) ** 2))


def exit_distances(view: HasQuantiles, side: int, volatility: float) -> tuple[float, float]:
    """Distances of stop and target from the entry, as fractions of price.

    The stop lies where 5 % of the moments ended worse, the target where 10 % ended better, both within 0.5 to 3 times
    the volatility.

    Args:
        view: outcomes of the neighbours, or another forecast.
        side: 1 for long, -1 for short.
        volatility: of the log return over the primary horizon.
    """
    if side > 0:
        adverse, favourable = -view.quantile(_STOP_PROBABILITY), view.quantile(1.0 - _TARGET_PROBABILITY)
    else:
        adverse, favourable = view.quantile(1.0 - _STOP_PROBABILITY), -view.quantile(_TARGET_PROBABILITY)
    return _fraction(-side, adverse, volatility), _fraction(side, favourable, volatility)


def _fraction(direction: int, move: float, volatility: float) -> float:
    """A log move in a direction as a fraction of price, bounded by the volatility."""
    bounded = min(max(move, _NEAREST * volatility), _FARTHEST * volatility)
    return min(exp(bounded) - 1.0 if direction > 0 else 1.0 - exp(-bounded), _LARGEST_DISTANCE)
