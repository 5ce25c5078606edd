"""Planted motifs: shapes in the returns whose consequence only a memory can know.

Every motif has a shape of its own and a hidden sign. Whenever it occurs, the return over the next bars leans that way. The
shapes that a model is tested on do not occur in its training span, so no weight can know their signs: what the forecast
explains beyond nothing comes from remembering earlier occurrences. `optimum` says how much can be known.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np
import numpy.typing as npt

from backtest.synthetic.candles import Floats, series_of
from backtest.synthetic.optimum import flip_filter, posterior_mean
from strategies.bars import BarSeries

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class MotifSettings:
    """What is planted.

    Raises:
        ValueError: a value is out of range, or motifs do not fit into the bars.
    """

    bars: int = 40_000
    training_bars: int = 30_000
    """Bars of the span that models are trained on; its motifs never come again."""
    training_motifs: int = 150
    vocabularies: int = 1
    """Parts of the training span, each with motifs of its own, as many in each: what a shape means then changes within the
    training span as it does after it, and a motif recurs as often as one of the test span where they are as long."""
    test_motifs: int = 40
    test_vocabularies: int = 1
    """Parts of the test span, likewise: every one is a test of its own of the same weights."""
    length: int = 8
    """Bars of a motif."""
    horizon: int = 8
    """Bars after it that lean."""
    gap: int = 4
    """Fewest bars between what one motif leans on and the next motif."""
    strength: float = 1.0
    """Lean over the horizon in units of the horizon's noise: drift / noise."""
    amplitude: float = 4.0
    """Size of a motif's returns in units of the background's."""
    jitter: float = 0.1
    """Noise on a motif's returns, as a share of the amplitude."""
    volatility: float = 0.002
    """Of the background, log return per bar."""
    flip_hazard: float = 0.0
    """Probability that a motif's sign flips between two of its occurrences."""
    decoys: float = 0.0
    """Share of motifs that have no consequence; they look like an informative one but for their last two bars."""
    hostile_motifs: int = 0
    """Motifs that first come in the last quarter of the test span: each resembles an older one and means the opposite."""
    resemblance: float = 0.8
    """Correlation of a hostile motif's shape with the older one's."""

    def __post_init__(self) -> None:
        slot = self.length + self.horizon + self.gap
        checks = (
            ("bars", self.bars > self.training_bars >= 0, "more than training_bars, which are 0 or more"),
            ("training_motifs", self.training_motifs >= 1, "at least 1"),
            ("vocabularies", 1 <= self.vocabularies <= self.training_motifs, "from 1 to training_motifs"),
            ("test_motifs", self.test_motifs >= 1, "at least 1"),
            ("test_vocabularies", 1 <= self.test_vocabularies <= self.test_motifs, "from 1 to test_motifs"),
            ("length", self.length >= 2, "at least 2"),
            ("horizon", self.horizon >= 1, "at least 1"),
            ("gap", self.gap >= 0, "0 or more"),
            ("strength", self.strength >= 0.0, "0 or more"),
            ("volatility", self.volatility > 0.0, "positive"),
            ("hostile_motifs", 0 <= self.hostile_motifs <= self.test_motifs, "from 0 to test_motifs"),
            ("resemblance", 0.0 <= self.resemblance < 1.0, "at least 0 and below 1"),
            ("flip_hazard", 0.0 <= self.flip_hazard <= 0.5, "between 0 and 0.5"),
            ("decoys", 0.0 <= self.decoys < 1.0, "at least 0 and below 1"),
        )
        for name, sound, allowed in checks:
            if not sound:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be {allowed}")
        if self.bars - self.training_bars < 2 * slot:
            raise ValueError(f"bars leaves {self.bars - self.training_bars} after training; a motif needs {slot}")

    @property
    def noise(self) -> float:
        """Standard deviation of the return over the horizon, the lean left out."""
        return self.volatility * sqrt(self.horizon)

    @property
    def drift(self) -> float:
        """Lean over the horizon, log return."""
        return self.strength * self.noise


@dataclass(frozen=True, slots=True, eq=False)
class MotifEvents:
    """The occurrences, in order of time. All arrays are ``[n]``."""

    bar: Integers
    """Position of the last bar of the motif: at its close the consequence is asked for."""
    motif: Integers
    informative: npt.NDArray[np.bool_]
    matured: Integers
    """Earlier occurrences of the motif."""
    outcome: Floats
    """Log return over the horizon after it."""
    lean: Floats
    """What of the outcome the motif brings; the rest is noise."""
    best: Floats
    """The best forecast of the outcome from the outcomes of earlier occurrences; 0 for decoys."""
    in_training: npt.NDArray[np.bool_]
    hostile: npt.NDArray[np.bool_]
    """It resembles an older motif and means the opposite."""


@dataclass(frozen=True, slots=True, eq=False)
class MotifTask:
    """A series with planted motifs, and where they are."""

    settings: MotifSettings
    series: BarSeries
    events: MotifEvents


def motif_task(seed: int, settings: MotifSettings | None = None, *, symbol: str = "MOTIFUSDT") -> MotifTask:
    """Plant motifs in a random walk. The same seed gives the same bars."""
    settings = settings or MotifSettings()
    generator = np.random.default_rng(seed)
    returns = settings.volatility * generator.standard_normal(settings.bars)
    shapes, informative = _shapes(settings, generator)
    bars, motifs = _places(settings, generator)
    signs = _signs(settings, motifs, generator)
    first_hostile = settings.training_motifs + settings.test_motifs
    lean = np.where(informative[motifs], signs * settings.drift / settings.horizon, 0.0)
    for bar, motif, step in zip(bars.tolist(), motifs.tolist(), lean.tolist(), strict=True):
        noise = settings.jitter * generator.standard_normal(settings.length)
        window = slice(bar + 1 - settings.length, bar + 1)
        returns[window] = settings.amplitude * settings.volatility * (shapes[motif] + noise)
        returns[bar + 1 : bar + 1 + settings.horizon] += step
    sums = np.concatenate(([0.0], np.cumsum(returns)))
    outcome = sums[bars + 1 + settings.horizon] - sums[bars + 1]
    matured, best = _knowledge(settings, motifs, informative, outcome)
    events = MotifEvents(
        bars,
        motifs,
        informative[motifs],
        matured,
        outcome,
        lean * settings.horizon,
        best,
        bars + settings.horizon < settings.training_bars,
        motifs >= first_hostile,
    )
    return MotifTask(settings, series_of(symbol, returns, generator), events)


def _shapes(settings: MotifSettings, generator: np.random.Generator) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Shapes ``[motifs, length]`` of root mean square one that sum to zero, and which of them have a consequence.

    A shape that sums to zero leaves the price where it was, so that no trend gives the motif away. Decoys share all but
    the last two bars, which are swapped, with an informative motif.
    """
    count = settings.training_motifs + settings.test_motifs
    shapes = generator.standard_normal((count, settings.length))
    shapes -= shapes.mean(axis=1, keepdims=True)
    shapes /= np.sqrt((shapes**2).mean(axis=1, keepdims=True))
    informative = np.ones(count, dtype=np.bool_)
    for first, last in ((0, settings.training_motifs), (settings.training_motifs, count)):
        decoys = int(settings.decoys * (last - first))
        for place in range(decoys):
            copied = first + decoys + place % max(1, last - first - decoys)
            shapes[first + place] = shapes[copied]
            shapes[first + place, -2:] = -shapes[copied, -2:][::-1]
            informative[first + place] = False
    hostile = shapes[settings.training_motifs : settings.training_motifs + settings.hostile_motifs]
    other = generator.standard_normal(hostile.shape)
    other -= other.mean(axis=1, keepdims=True)
    other -= (other * hostile).mean(axis=1, keepdims=True) * hostile
    other /= np.sqrt((other**2).mean(axis=1, keepdims=True))
    alike = settings.resemblance * hostile + np.sqrt(1.0 - settings.resemblance**2) * other
    kinds = informative[settings.training_motifs : settings.training_motifs + settings.hostile_motifs]
    return np.concatenate((shapes, alike)), np.concatenate((informative, kinds))


def _places(settings: MotifSettings, generator: np.random.Generator) -> tuple[Integers, Integers]:
    """Last bars of all occurrences and which motif each is: no motif of the test span in the training span."""
    slot = settings.length + settings.horizon + settings.gap
    bars, motifs = [], []
    known = settings.training_motifs + settings.test_motifs
    turn = settings.bars
    if settings.hostile_motifs:
        turn -= (settings.bars - settings.training_bars) // 4
    spans = [
        *_parts(0, settings.training_bars, 0, settings.training_motifs, settings.vocabularies),
        *_parts(
            settings.training_bars, turn, settings.training_motifs, settings.test_motifs, settings.test_vocabularies
        ),
        (turn, settings.bars, known, settings.hostile_motifs),
    ]
    for start, stop, first, count in spans:
        if not count:
            continue
        starts = np.arange(start, stop - slot + 1, slot) + generator.integers(0, settings.gap + 1)
        starts = starts[starts + slot <= stop]
        rounds = -(-len(starts) // count)
        order = np.concatenate([generator.permutation(count) for _ in range(max(1, rounds))])[: len(starts)]
        bars.append(starts + settings.length - 1)
        motifs.append(first + order)
    return np.concatenate(bars).astype(np.int64), np.concatenate(motifs).astype(np.int64)


def _parts(start: int, stop: int, first: int, count: int, parts: int) -> list[tuple[int, int, int, int]]:
    """Bars from ``start`` to ``stop`` in as many parts: where each begins and ends, its first motif and how many it has."""
    edges = [start + (stop - start) * part // parts for part in range(parts + 1)]
    owners = [first + count * part // parts for part in range(parts + 1)]
    return list(zip(edges[:-1], edges[1:], owners[:-1], np.diff(owners).tolist(), strict=True))


def _signs(settings: MotifSettings, motifs: Integers, generator: np.random.Generator) -> Floats:
    """Sign at every occurrence; a motif's stays unless it flips."""
    signs = np.empty(len(motifs))
    current = generator.choice((-1.0, 1.0), size=settings.training_motifs + settings.test_motifs)
    older = slice(settings.training_motifs, settings.training_motifs + settings.hostile_motifs)
    current = np.concatenate((current, -current[older]))
    seen = np.zeros(len(current), dtype=np.bool_)
    flips = generator.random(len(motifs)) < settings.flip_hazard
    for place, motif in enumerate(motifs.tolist()):
        if seen[motif] and flips[place]:
            current[motif] = -current[motif]
        seen[motif] = True
        signs[place] = current[motif]
    return signs


def _knowledge(
    settings: MotifSettings, motifs: Integers, informative: npt.NDArray[np.bool_], outcome: Floats
) -> tuple[Integers, Floats]:
    """How often every occurrence's motif came before, and the best forecast from those outcomes."""
    matured = np.zeros(len(motifs), dtype=np.int64)
    best = np.zeros(len(motifs))
    for motif in np.unique(motifs).tolist():
        places = np.flatnonzero(motifs == motif)
        matured[places] = np.arange(len(places))
        if not informative[motif]:
            continue
        if settings.flip_hazard > 0.0:
            best[places] = flip_filter(outcome[places], settings.drift, settings.noise, settings.flip_hazard)
        else:
            sums = np.concatenate(([0.0], np.cumsum(outcome[places])[:-1]))
            best[places] = [posterior_mean(total, settings.drift, settings.noise) for total in sums.tolist()]
    return matured, best
