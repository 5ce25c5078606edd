"""What a memory knows of planted patterns: the product's bank asked at their ends, and a read-out of a few numbers.

Bars go by one after the other. The key of a bar is the shape of the last returns; what came over the horizon is attached when
it is known, and not before. So the bank can only tell what was to be known, whatever the read-out makes of it.

The read-out is the filter of :mod:`backtest.synthetic.optimum` over what was recalled: every neighbour speaks for or against a
rise, as loudly as it is near, and what is older may have changed its mind since. Its numbers are fitted to the patterns of
a training span, none of which occurs again. There is no network in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Final

import numpy as np
import numpy.typing as npt

from backtest.synthetic.candles import Floats
from memory_store import BankConfig, MemoryBank, Metric
from memory_store.policy import RetrievalPolicy
from memory_store.records import Eviction
from strategies.bars import BarSeries, interval_ms

Integers = npt.NDArray[np.int64]

_LOUDNESS: Final = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
_HAZARDS: Final = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2)
_BANDWIDTHS: Final = (0.0625, 0.125, 0.25, 0.375, 0.5, 0.75, 1.0, 2.0, 4.0)
_SCALES: Final = (0.5, 0.7, 1.0)
_DECOYS: Final = (0.0, 0.25, 0.5, 0.75)
_LIMIT: Final = 300.0
_HARDLY: Final = 0.005
"""Share of the squared outcomes that a wider bandwidth has to explain beyond a narrower one."""


@dataclass(frozen=True, slots=True)
class RecallSettings:
    """How the memory is kept and asked."""

    length: int
    """Bars that a key is made of, its own the last; those before have no entry."""
    horizon: int
    """Bars until the outcome is known."""
    unit: float
    """What a return is measured in, so that keys and outcomes are numbers around one; of the training span."""
    neighbours: int = 32
    capacity: int = 1_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Recollections:
    """What the memory said at some bars. Rows without a neighbour have an infinite distance."""

    distance: Floats
    """``[n, k]`` mean squared difference of key and query."""
    outcome: Floats
    """``[n, k]`` log return over the horizon after the neighbour; 0 where there is none."""
    time: Integers
    """``[n, k]`` milliseconds of the neighbour's bar."""

    def of(self, rows: npt.NDArray[np.bool_]) -> Recollections:
        """Those of some rows."""
        return Recollections(self.distance[rows], self.outcome[rows], self.time[rows])


def recollect(
    series: Mapping[str, BarSeries],
    symbol: str,
    asked: Integers,
    settings: RecallSettings,
    *,
    keys: Mapping[str, Floats] | None = None,
) -> Recollections:
    """Go through the bars of all symbols with one bank, and ask it at some bars of one of them.

    Of moments that overlap only the nearest answers: two symbols that did the same are one observation.

    Args:
        series: bars of the same times.
        symbol: who asks.
        asked: ``[n]`` positions of bars, increasing.
        settings: of the memory.
        keys: ``[bars, dimension]`` of every symbol, each from its bar and those before it; the shapes of returns by default.
    """
    keys = {name: shapes(bars, settings) for name, bars in series.items()} if keys is None else keys
    log_close = {name: np.log(bars.close) for name, bars in series.items()}
    close_time = series[symbol].close_time
    horizon, k = settings.horizon, settings.neighbours
    step = interval_ms(series[symbol].interval)
    policy = RetrievalPolicy(one_per_moment=True, cluster_ms=horizon * step)
    bank = MemoryBank(_bank_config(settings, len(series), keys[symbol].shape[1]), encoder_version="shapes")
    bank.stop_recording()
    found = Recollections(
        np.full((len(asked), k), np.inf), np.zeros((len(asked), k)), np.zeros((len(asked), k), dtype=np.int64)
    )
    ids = {name: np.full(len(close_time), -1, dtype=np.int64) for name in series}
    place = 0
    for bar, now in enumerate(close_time.tolist()):
        known = bar - horizon
        if known >= settings.length:
            for name, price in log_close.items():
                if ids[name][known] >= 0:
                    bank.settle(int(ids[name][known]), 0, float(price[bar] - price[known]), now)
        if bar < settings.length:
            place += int(place < len(asked) and asked[place] == bar)
            continue
        if place < len(asked) and asked[place] == bar:
            _ask(bank, keys[symbol][bar], now, policy, found, place)
            place += 1
        for name in series:
            ids[name][bar] = bank.append(_stored(keys[name][bar]), symbol=name, bar_time=int(now) - step)
    return found


def _ask(bank: MemoryBank, query: Floats, now: int, policy: RetrievalPolicy, found: Recollections, place: int) -> None:
    """The neighbours of one bar, into a row of what was found."""
    result = bank.search(np.append(query, 1.0).astype(np.float32), as_of=now, k=found.distance.shape[1], policy=policy)
    seen, width = result.mask, len(query)
    scores = np.asarray(result.scores, dtype=np.float64)
    found.distance[place, seen] = np.maximum(query @ query - 2.0 * scores[seen], 0.0) / width
    found.outcome[place, seen] = result.outcomes[seen, 0]
    found.time[place, seen] = result.bar_times[seen]


def shapes(bars: BarSeries, settings: RecallSettings) -> Floats:
    """``[n, length]`` last returns of every bar in units; of the first bars, which have fewer, zeros."""
    moves = np.diff(np.log(bars.close), prepend=np.log(bars.open[0])) / settings.unit
    keys = np.zeros((len(moves), settings.length))
    view = np.lib.stride_tricks.sliding_window_view(moves, settings.length)
    keys[settings.length - 1 :] = view
    return keys


def _stored(key: Floats) -> npt.NDArray[np.float32]:
    """The key as the bank keeps it: its inner product with ``[query, 1]`` orders by distance.

    ``q k - |k|^2 / 2 = (|q|^2 - |q - k|^2) / 2`` (Bachrach et al., "Speeding up the Xbox recommender system", 2014).
    """
    return np.append(key, -0.5 * (key @ key)).astype(np.float32)


def _bank_config(settings: RecallSettings, symbols: int, dimension: int) -> BankConfig:
    return BankConfig(
        capacity=settings.capacity * symbols,
        dimension=dimension + 1,
        horizons=(settings.horizon,),
        primary=0,
        embargo_ms=0,
        metric=Metric.INNER_PRODUCT,
        eviction=Eviction.FIFO,
        half_life_ms=0,
        outcome_scale=settings.unit,
    )


@dataclass(frozen=True, slots=True)
class SignReadout:
    """From what was recalled to an expected return."""

    size: float
    """Of the expected return where the sign is certain, log return."""
    loudness: float
    """Expected return over its noise, both of an outcome in units of ``scale``: what moves the odds."""
    scale: float
    """What outcomes are measured in, log return."""
    hazard: float
    """Probability that the sign flips from one recalled occurrence to the next."""
    bandwidth: float
    """Distance at which a neighbour speaks with a weight of ``1 / e``."""
    decoys: float = 0.0
    """Share of patterns that mean nothing."""

    def belief(self, recalled: Recollections) -> Floats:
        """Expected sign, ``[n]`` in (-1, 1): the filter over the neighbours, oldest first; 0 where there are none."""
        order = np.argsort(recalled.time, axis=1, kind="stable")
        weights = np.exp(-np.square(np.take_along_axis(recalled.distance, order, axis=1) / self.bandwidth))
        outcome = np.take_along_axis(recalled.outcome, order, axis=1) / self.scale
        rise = np.full(len(outcome), 0.5 * (1.0 - self.decoys))
        fall, nothing = rise.copy(), np.full(len(outcome), self.decoys)
        for column in range(outcome.shape[1]):
            # What is hardly the same pattern is hardly an occurrence: neither evidence nor a chance to have flipped.
            loud = self.loudness * weights[:, column]
            evidence, price = loud * outcome[:, column], 0.5 * self.loudness * loud
            rise = rise * np.exp(np.clip(evidence - price, -_LIMIT, _LIMIT))
            fall = fall * np.exp(np.clip(-evidence - price, -_LIMIT, _LIMIT))
            flip = self.hazard * weights[:, column]
            rise, fall = (1.0 - flip) * rise + flip * fall, (1.0 - flip) * fall + flip * rise
            total = rise + fall + nothing
            rise, fall, nothing = rise / total, fall / total, nothing / total
        belief: Floats = rise - fall
        return belief

    def forecast(self, recalled: Recollections) -> Floats:
        """Expected returns, ``[n]``."""
        return self.size * self.belief(recalled)

    def without_decay(self) -> SignReadout:
        """The same that believes what is old as what is new."""
        return replace(self, hazard=0.0)


def fit_readout(recalled: Recollections, outcome: Floats) -> SignReadout:
    """The read-out with the smallest squared error on some bars, over a grid: first who speaks, then what is believed.

    Of bandwidths that hardly differ the narrowest is taken: nothing in the training span warns of look-alikes.

    Args:
        recalled: what was recalled at these bars.
        outcome: ``[n]`` what came, log returns.
    """
    spread = float(np.sqrt(np.mean(np.square(outcome))))
    fits = []
    for bandwidth in _BANDWIDTHS:
        grid = [SignReadout(1.0, loud, spread, hazard, bandwidth) for loud, hazard in product(_LOUDNESS, _HAZARDS)]
        fits.append(_best(grid, recalled, outcome))
    errors = [float(np.square(outcome - fit.forecast(recalled)).sum()) for fit in fits]
    tolerable = min(errors) + _HARDLY * float(outcome @ outcome)
    found = next(fit for fit, error in zip(fits, errors, strict=True) if error <= tolerable)
    second = [
        replace(found, size=1.0, loudness=loudness, scale=spread * scale, decoys=decoys)
        for loudness, scale, decoys in product(_LOUDNESS, _SCALES, _DECOYS)
    ]
    return _best([*second, found], recalled, outcome)


def _best(candidates: Sequence[SignReadout], recalled: Recollections, outcome: Floats) -> SignReadout:
    """The candidate with the smallest squared error, each with the size that suits it best."""
    best, smallest = replace(candidates[0], size=0.0), float(outcome @ outcome)
    for candidate in candidates:
        belief = candidate.belief(recalled)
        energy = float(belief @ belief)
        size = max(0.0, float(belief @ outcome) / energy) if energy > 0.0 else 0.0
        error = float(np.square(outcome - size * belief).sum())
        if error < smallest:
            best, smallest = replace(candidate, size=size), error
    return best
