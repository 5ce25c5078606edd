"""A synthetic market without end: every bar is a function of the seed, the symbol, the interval and its absolute number.

Bars are made in chunks that need no earlier chunk, so that any moment can be asked for at once and history and future
agree whoever asks first. The log price at chunk borders is value noise over several octaves (a random walk up to some
months, bounded beyond); inside a chunk returns carry regimes, clustered volatility, a factor that all symbols share and
motifs that recur and mean the same each time, which is something a memory can find. Every bar opens at the close before it.
"""

from __future__ import annotations

import zlib
from collections import OrderedDict
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

import numpy as np

from backtest.sandbox.resampling import WEEK_OFFSET_MS
from bot.execution.instruments import Instrument
from strategies.bars import COLUMNS, DAY_MS, Bar, BarSeries, Calendar, FloatArray, IntArray, interval_ms

CHUNK_BARS: Final = 512
SEGMENT_BARS: Final = 64
MOTIFS: Final = 6
SETUP_BARS: Final = 10
AFTERMATH_BARS: Final = 6
OCTAVES: Final = 6
CACHED_CHUNKS: Final = 256

ANNUAL_VOLATILITY: Final = 0.6
LARGEST_RETURN: Final = 0.25


# Chance of a regime in a segment, its volatility and its drift in units of the bar volatility:
# calm, rising, falling, turbulent.
REGIME_CHANCE: Final = (0.40, 0.25, 0.25, 0.10)
REGIME_VOLATILITY: Final = np.array([0.6, 0.9, 0.9, 2.0])
REGIME_DRIFT: Final = np.array([0.0, 0.08, -0.08, 0.0])
VOLATILITY_MEMORY: Final = 0.97
VOLATILITY_SHOCK: Final = 0.12
FLAT_CHANCE: Final = 0.001

_EDGE, _COMMON, _OWN, _MOTIF, _BASE = range(5)


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Columns of ``CHUNK_BARS`` bars."""

    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray
    volume: FloatArray


class SyntheticMarket:
    """Candles of one symbol from a seed: a source that never ends, on the instrument's tick and lot.

    Symbols with the same seed share half of their variance and the same motifs.

    Args:
        seed: at least 0; another seed is another world.
        symbol: any name; another symbol is another price.
        interval: one of the venue's codes except ``M``, whose months have no fixed length.
        instrument: the grid of prices and quantities; the default ticks in 0.01.
        base_price: the price around which the market wanders; by default some hundred thousand ticks or more.

    Raises:
        ValueError: the seed is negative or the interval is ``M``.
    """

    def __init__(
        self,
        seed: int,
        symbol: str,
        interval: str,
        *,
        instrument: Instrument | None = None,
        base_price: float | None = None,
    ) -> None:
        if seed < 0:
            raise ValueError(f"seed {seed} of the synthetic market must be 0 or more")
        if interval == "M":
            raise ValueError("the synthetic market has no monthly bars; use a week or less")
        self.symbol = symbol
        self.interval = interval
        self.instrument = instrument or Instrument(symbol)
        self._length = interval_ms(interval)
        self._offset = WEEK_OFFSET_MS if interval == "W" else 0
        self._seed = seed
        self._symbol_code = zlib.crc32(symbol.encode())
        self._interval_code = zlib.crc32(interval.encode())
        self._tick = self.instrument.tick_size
        self._volatility = ANNUAL_VOLATILITY * float(np.sqrt(self._length / (365 * DAY_MS)))
        ticks = 1_000_000.0 * self._random(_BASE, self._symbol_code).uniform(0.3, 3.0)
        self._base = float(np.log(base_price if base_price is not None else ticks * float(self._tick)))
        self._motifs = self._random(_MOTIF).standard_normal((MOTIFS, SETUP_BARS))
        self._chunks: OrderedDict[int, _Chunk] = OrderedDict()

    # -- as a source of bars -----------------------------------------------------------------------------------------

    def between(self, first: int, last: int, limit: int) -> list[Bar]:
        """The newest ``limit`` bars that open in ``[first, last]``, in order."""
        start = max(0, -((self._offset - first) // self._length))
        stop = (last - self._offset) // self._length + 1
        return [self.bar(number) for number in range(max(start, stop - limit), stop)]

    def following(self, time: int) -> Bar | None:
        """The first bar that closes after ``time``: the one that is open then."""
        return self.bar(max(0, (time - self._offset) // self._length))

    def opening_from(self, time: int | None) -> int | None:
        """Open time of the first bar that opens at or after ``time``."""
        number = 0 if time is None else max(0, -((self._offset - time) // self._length))
        return self._offset + number * self._length

    def final_close(self) -> int | None:
        """``None``: bars never end."""
        return None

    def bar(self, number: int) -> Bar:
        """The bar of an absolute number, counted from the epoch (for weeks: from its first Monday)."""
        chunk = self._chunk(number // CHUNK_BARS)
        row = number % CHUNK_BARS
        opened = self._offset + number * self._length
        return Bar(
            self.symbol,
            opened,
            opened + self._length,
            float(chunk.open[row]),
            float(chunk.high[row]),
            float(chunk.low[row]),
            float(chunk.close[row]),
            float(chunk.volume[row]),
        )

    def series(self, start: int, end: int) -> BarSeries:
        """The bars that open in ``[start, end)`` as a series that never closes for the night."""
        first = max(0, -((self._offset - start) // self._length))
        stop = max(first, -((self._offset - end) // self._length))
        numbers = np.arange(first, stop, dtype=np.int64)
        chunks = [self._chunk(index) for index in range(first // CHUNK_BARS, -(-stop // CHUNK_BARS))]
        if not len(numbers):
            return BarSeries.empty(self.symbol, self.interval)
        rows = slice(first % CHUNK_BARS, first % CHUNK_BARS + len(numbers))
        opened, high, low, close, volume = (
            np.concatenate([getattr(chunk, name) for chunk in chunks])[rows] for name in COLUMNS
        )
        times = self._offset + numbers * self._length
        return BarSeries(self.symbol, self.interval, Calendar.CONTINUOUS, times, opened, high, low, close, volume)

    # -- how a chunk is made -----------------------------------------------------------------------------------------

    def _random(self, purpose: int, *more: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, self._interval_code, purpose, *more])

    def _chunk(self, index: int) -> _Chunk:
        known = self._chunks.get(index)
        if known is None:
            known = self._chunks[index] = self._make_chunk(index)
            if len(self._chunks) > CACHED_CHUNKS:
                self._chunks.popitem(last=False)
        else:
            self._chunks.move_to_end(index)
        return known

    def _edge(self, index: int) -> float:
        """Log price where chunk ``index`` begins: octaves of value noise, each twice as long and root two as high."""
        steepness = min(0.7 * self._volatility * CHUNK_BARS**0.5, 0.08)
        total = self._base
        for octave in range(OCTAVES):
            lattice, inside = divmod(index, 1 << octave)
            left = self._random(_EDGE, self._symbol_code, octave, lattice).standard_normal()
            share = inside / (1 << octave)
            if share:
                right = self._random(_EDGE, self._symbol_code, octave, lattice + 1).standard_normal()
                left += (right - left) * share * share * (3.0 - 2.0 * share)
            total += steepness * 2.0 ** (octave / 2) * float(left)
        return total

    def _make_chunk(self, index: int) -> _Chunk:
        random = self._random(_OWN, self._symbol_code, index)
        regime = np.repeat(random.choice(4, size=CHUNK_BARS // SEGMENT_BARS, p=REGIME_CHANCE), SEGMENT_BARS)
        volatility = self._volatility * REGIME_VOLATILITY[regime] * _clustering(random)
        noise = self._random(_COMMON, index).standard_normal(CHUNK_BARS) + random.standard_normal(CHUNK_BARS)
        shape, activity, calm = self._plant_motifs(random)
        returns = volatility * calm * noise * 0.5**0.5 + self._volatility * (shape + REGIME_DRIFT[regime])
        flat = random.random(CHUNK_BARS) < FLAT_CHANCE
        flat[-1] = False
        returns = np.where(flat, 0.0, np.clip(returns, -LARGEST_RETURN, LARGEST_RETURN))
        start, finish = self._edge(index), self._edge(index + 1)
        returns += np.where(flat, 0.0, (finish - start - returns.sum()) / np.count_nonzero(~flat))
        return self._candles(random, start, finish, returns, volatility, activity, flat)

    def _plant_motifs(self, random: np.random.Generator) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Where the recurring shapes lie: added return, factor of volume, factor of noise, per bar."""
        shape = np.zeros(CHUNK_BARS)
        activity = np.ones(CHUNK_BARS)
        calm = np.ones(CHUNK_BARS)
        for begin in range(0, CHUNK_BARS, SEGMENT_BARS):
            present, which = random.random() < 0.5, int(random.integers(MOTIFS))
            at = begin + int(random.integers(SEGMENT_BARS - SETUP_BARS - AFTERMATH_BARS))
            if not present:
                continue
            setup = slice(at, at + SETUP_BARS)
            aftermath = slice(at + SETUP_BARS, at + SETUP_BARS + AFTERMATH_BARS)
            shape[setup] = 1.2 * self._motifs[which]
            shape[aftermath] = 0.6 if which % 2 else -0.6
            activity[setup] = 1.0 + np.abs(self._motifs[which])
            calm[setup] = 0.4
        return shape, activity, calm

    def _candles(
        self,
        random: np.random.Generator,
        start: float,
        finish: float,
        returns: FloatArray,
        volatility: FloatArray,
        activity: FloatArray,
        flat: np.ndarray[tuple[int], np.dtype[np.bool_]],
    ) -> _Chunk:
        tick = float(self._tick)
        path = np.exp(start + np.cumsum(returns))
        close = _count(path, tick)
        close[-1] = _count(np.exp(np.array([finish])), tick)[0]
        opened = np.concatenate([_count(np.exp(np.array([start])), tick), close[:-1]])
        reach = np.abs(random.standard_normal((2, CHUNK_BARS))) * 0.6 * volatility * path / tick
        reach[:, flat] = 0.0
        high = np.maximum(opened, close) + np.floor(reach[0]).astype(np.int64)
        low = np.maximum(1, np.minimum(opened, close) - np.floor(reach[1]).astype(np.int64))
        wild = np.exp(0.5 * random.standard_normal(CHUNK_BARS)) * (0.5 + np.abs(returns) / self._volatility)
        lots = np.where(flat, 0, 1 + np.floor(20_000.0 * activity * wild)).astype(np.int64)
        return _Chunk(
            _on_grid(opened, self._tick),
            _on_grid(high, self._tick),
            _on_grid(low, self._tick),
            _on_grid(close, self._tick),
            _on_grid(lots, self.instrument.lot_size),
        )


def _clustering(random: np.random.Generator) -> FloatArray:
    """A factor of volatility that remembers itself: the exponential of a first-order autoregression."""
    shocks = (VOLATILITY_SHOCK * random.standard_normal(CHUNK_BARS)).tolist()
    level = VOLATILITY_SHOCK / (1.0 - VOLATILITY_MEMORY**2) ** 0.5 * float(random.standard_normal())
    levels = []
    for shock in shocks:
        level = VOLATILITY_MEMORY * level + shock
        levels.append(level)
    factors: FloatArray = np.exp(np.array(levels) - 0.1)
    return factors


def _count(prices: FloatArray, tick: float) -> IntArray:
    """Prices in whole ticks, at least one."""
    ticks: IntArray = np.maximum(1, np.rint(prices / tick)).astype(np.int64)
    return ticks


def _on_grid(counts: IntArray, step: Decimal) -> FloatArray:
    """``counts`` steps as floats: one correctly rounded division, so that each is the float nearest to the decimal."""
    numerator, denominator = step.as_integer_ratio()
    values: FloatArray = (counts * numerator) / denominator
    return values
