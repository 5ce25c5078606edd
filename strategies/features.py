"""Features of a bar: one incremental kernel, one batch kernel, the same bits.

The law of this file: the features of a bar are a pure function of the last ``FEATURE_WARMUP`` bars, bit for bit,
wherever the history began. Running sums of floats would break it, because they remember what they once added. So log
prices and volumes are rounded to fixed-point integers once, and every window sum is a sum of integers: exact, hence
independent of the path. Floats appear only in the last step, each computed from such integers in one fixed order.

Where a window is not full yet it uses the bars there are; a feature that needs more is neutral (0, and 1 for the ratio
of volatilities). Every feature is finite for any bar with finite positive prices and a finite volume of 0 or more.
"""

from __future__ import annotations

import hashlib
from math import cos, log, pi, sin, sqrt
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from strategies.bars import MINUTE_MS, Bar, BarSeries

SHORT_WINDOW: Final = 20
"""Returns in the short volatility, volumes in the volume statistics: the specification's window."""
LONG_WINDOW: Final = 120
"""Returns in the long volatility, which scales the trends."""
TREND_SPANS: Final = (4, 12, 24, 72, 168)
TREND_LIMIT: Final = 10.0
RANGE_LIMIT: Final = 10.0

FEATURE_NAMES: Final[tuple[str, ...]] = (
    "log_return",
    "volatility_20",
    "volume_change",
    "volume_zscore",
    "bar_range",
    "close_location",
    *(f"trend_{span}" for span in TREND_SPANS),
    "volatility_120",
    "volatility_ratio",
    "time_of_day_sin",
    "time_of_day_cos",
    "time_of_week_sin",
    "time_of_week_cos",
)
"""Names in the order of a row.

- ``log_return``: log(close / previous close); 0 on the first bar.
- ``volatility_20``, ``volatility_120``: sample standard deviation of the last 20 or 120 log returns, per bar.
- ``volume_change``: volume over the mean of the last 20 volumes (its own included), minus 1; in [-1, 19].
- ``volume_zscore``: (volume - mean) / sample standard deviation over the last 20 volumes; within 4.25 of 0.
- ``bar_range``: (high - low) / close, at most 10.
- ``close_location``: -1 where the bar closed at its low, 1 at its high, 0 in the middle or without a range.
- ``trend_s``: log(close / close s bars ago) / (volatility_120 * sqrt(s)), within 10 of 0.
- ``volatility_ratio``: volatility_20 / volatility_120; at most about 2.5; 1 where the latter is 0.
- ``time_of_day_*``, ``time_of_week_*``: sine and cosine of the open time's place in the UTC day and week.
"""

FEATURE_WARMUP: Final = 1 + max(LONG_WINDOW, SHORT_WINDOW, *TREND_SPANS)
"""Bars until every window is full, the current one included."""

LOG_RETURN_FEATURE: Final = FEATURE_NAMES.index("log_return")
VOLATILITY_FEATURE: Final = FEATURE_NAMES.index("volatility_20")
LONG_VOLATILITY_FEATURE: Final = FEATURE_NAMES.index("volatility_120")
TREND_FEATURES: Final = tuple(FEATURE_NAMES.index(f"trend_{span}") for span in TREND_SPANS)

_LOG_SCALE: Final = 2.0**44  # a log price is kept to 6e-14, finer than a float holds log(65000)
_VOLUME_SCALE: Final = 2.0**64
_VOLUME_LIMIT: Final = 2.0**100  # keeps sums of squares inside the range of a float
_ARITHMETIC_VERSION: Final = 1

FEATURE_SET: Final = (
    f"{_ARITHMETIC_VERSION}:"
    + hashlib.sha256(
        repr((FEATURE_NAMES, SHORT_WINDOW, LONG_WINDOW, TREND_SPANS, TREND_LIMIT, RANGE_LIMIT)).encode()
    ).hexdigest()
)
"""Names this definition of the features; a checkpoint or a memory made with another one must be refused."""

_DAY_MINUTES: Final = 1440
_WEEK_MINUTES: Final = 7 * _DAY_MINUTES
_EPOCH_MINUTE: Final = 3 * _DAY_MINUTES  # the epoch was a Thursday; weeks begin on Monday


def _clock(minute: int) -> tuple[float, float, float, float]:
    """Sine and cosine of a minute of the week within its day and within the week."""
    day = 2.0 * pi * (minute % _DAY_MINUTES) / _DAY_MINUTES
    week = 2.0 * pi * minute / _WEEK_MINUTES
    return sin(day), cos(day), sin(week), cos(week)


_CLOCK: Final = tuple(_clock(minute) for minute in range(_WEEK_MINUTES))
_CLOCK_MATRIX: Final = np.array(_CLOCK, dtype=np.float64)


_IntegerArray = npt.NDArray[np.int64]
_ObjectArray = npt.NDArray[np.object_]


class _Lengths(NamedTuple):
    """What is known of the windows of a bar: how much each holds, and the factors that follow from it."""

    short: int
    short_factor: float
    long: int
    long_factor: float
    volumes: int
    volume_factor: float
    trends: tuple[tuple[int, float], ...]
    """For every trend: where it starts, counted from the end, and 1 / sqrt(its span)."""


def _deviation_factor(count: int) -> float:
    """Factor from sqrt(n * sum(x^2) - sum(x)^2) to the sample standard deviation of n numbers."""
    return 1.0 / sqrt(count * (count - 1)) if count > 1 else 0.0


def _lengths(earlier: int) -> _Lengths:
    """The windows of a bar that has ``earlier`` bars before it."""
    short, long, volumes = min(earlier, SHORT_WINDOW), min(earlier, LONG_WINDOW), min(earlier + 1, SHORT_WINDOW)
    return _Lengths(
        short=short,
        short_factor=_deviation_factor(short),
        long=long,
        long_factor=_deviation_factor(long),
        volumes=volumes,
        volume_factor=sqrt((volumes - 1) / volumes),
        trends=tuple((-1 - span, 1.0 / sqrt(max(1, min(earlier, span)))) for span in TREND_SPANS),
    )


_EARLIER: Final = FEATURE_WARMUP - 1
_LENGTHS: Final = tuple(_lengths(earlier) for earlier in range(FEATURE_WARMUP))
_NO_TRENDS: Final = (0.0,) * len(TREND_SPANS)
_CHUNK: Final = 65_536  # bars of a batch computed together, which bounds the memory of its integer objects
_KEPT: Final = 4096  # bars kept before the oldest are dropped together, so that dropping costs nothing per bar


def _limited(trend: float) -> float:
    """A trend within its limits."""
    if -TREND_LIMIT < trend < TREND_LIMIT:
        return trend
    return TREND_LIMIT if trend > 0.0 else -TREND_LIMIT


class FeatureState:
    """The features of one symbol, bar by bar, in constant time per bar.

    After ``FEATURE_WARMUP`` bars the state no longer depends on where it was started, to the last bit.
    """

    __slots__ = (
        "_earlier",
        "_log_closes",
        "_long_squares",
        "_short_squares",
        "_squares",
        "_volume_squares",
        "_volume_sum",
        "_volumes",
    )

    def __init__(self) -> None:
        self._earlier = 0
        self._log_closes: list[int] = []
        self._squares: list[int] = [0] * LONG_WINDOW
        self._volumes: list[int] = [0] * SHORT_WINDOW
        self._short_squares = 0
        self._long_squares = 0
        self._volume_sum = 0
        self._volume_squares = 0

    @classmethod
    def after(cls, series: BarSeries) -> FeatureState:
        """The state after all bars of a series; only its last ``FEATURE_WARMUP`` bars are looked at."""
        state = cls()
        for bar in series.slice(max(0, len(series) - FEATURE_WARMUP), len(series)).bars():
            state.update(bar)
        return state

    def update(self, bar: Bar) -> tuple[float, ...]:
        """Features of the next bar, in the order of ``FEATURE_NAMES``.

        Raises:
            ValueError: a price is not positive.
        """
        step = self._step(bar.close)
        lengths = _LENGTHS[self._earlier]
        log_closes = self._log_closes
        now = log_closes[-1]

        move = now - log_closes[-1 - SHORT_WINDOW]
        short = sqrt(lengths.short * self._short_squares - move * move) * lengths.short_factor
        move = now - log_closes[-1 - LONG_WINDOW]
        long = sqrt(lengths.long * self._long_squares - move * move) * lengths.long_factor
        ratio, trends = 1.0, _NO_TRENDS
        if long > 0.0:
            inverse = 1.0 / long
            ratio = short * inverse
            trends = tuple([_limited((now - log_closes[offset]) * inverse * root) for offset, root in lengths.trends])
        change, z_score = self._volume(bar.volume, lengths.volumes, lengths.volume_factor)
        width, location = _candle(bar.high, bar.low, bar.close)
        return (
            step / _LOG_SCALE,
            short / _LOG_SCALE,
            change,
            z_score,
            width,
            location,
            *trends,
            long / _LOG_SCALE,
            ratio,
            *_CLOCK[(bar.open_time // MINUTE_MS + _EPOCH_MINUTE) % _WEEK_MINUTES],
        )

    def _step(self, close: float) -> int:
        """Take in a close; the fixed-point log return it makes."""
        log_close = round(log(close) * _LOG_SCALE)
        log_closes = self._log_closes
        if log_closes:
            step = log_close - log_closes[-1]
            if self._earlier < _EARLIER:
                self._earlier += 1
        else:
            # As if the price had always stood here: windows that reach back too far then count no movement.
            log_closes.extend([log_close] * _EARLIER)
            step = 0
        log_closes.append(log_close)

        square = step * step
        squares = self._squares
        self._short_squares += square - squares[-SHORT_WINDOW]
        self._long_squares += square - squares[-LONG_WINDOW]
        squares.append(square)
        if len(log_closes) > _KEPT:
            del log_closes[:-FEATURE_WARMUP], squares[:-LONG_WINDOW]
        return step

    def _volume(self, volume: float, count: int, factor: float) -> tuple[float, float]:
        """Take in a volume; its change against the mean and its z-score."""
        amount = int((volume if volume < _VOLUME_LIMIT else _VOLUME_LIMIT) * _VOLUME_SCALE)
        volumes = self._volumes
        gone = volumes[-SHORT_WINDOW]
        self._volume_sum = total = self._volume_sum + amount - gone
        self._volume_squares = squares = self._volume_squares + amount * amount - gone * gone
        volumes.append(amount)
        if len(volumes) > _KEPT:
            del volumes[:-SHORT_WINDOW]
        if total == 0:
            return 0.0, 0.0
        spread = count * squares - total * total
        z_score = (count * amount - total) / sqrt(spread) * factor if spread > 0 else 0.0
        return count * amount / total - 1.0, z_score


def _candle(high: float, low: float, close: float) -> tuple[float, float]:
    """Range over close, and where in its range the bar closed."""
    height = high - low
    width = height / close
    location = 2.0 * ((close - low) / height) - 1.0 if height > 0.0 else 0.0
    return (
        width if width < RANGE_LIMIT else RANGE_LIMIT,
        location if -1.0 < location < 1.0 else (1.0 if location > 0.0 else -1.0),
    )


def feature_matrix(series: BarSeries) -> npt.NDArray[np.float64]:
    """Features of every bar of a series, ``[n, len(FEATURE_NAMES)]``: bit for bit what ``FeatureState`` gives.

    Raises:
        ValueError: a price is not positive.
    """
    matrix = np.empty((len(series), len(FEATURE_NAMES)), dtype=np.float64)
    # The law of this file makes the chunks invisible.
    for start in range(0, len(series), _CHUNK):
        stop = min(start + _CHUNK, len(series))
        context = max(0, start - _EARLIER)
        matrix[start:stop] = _chunk_matrix(series.slice(context, stop))[start - context :]
    return matrix


def _window_sums(values: _ObjectArray, window: int) -> _ObjectArray:
    """Sums of the last ``window`` values at every place, exact: the values are Python integers."""
    sums: _ObjectArray = np.cumsum(np.concatenate((np.zeros(window, dtype=object), values)), dtype=object)
    difference: _ObjectArray = sums[window:] - sums[:-window]
    return difference


def _deviations(
    log_closes: _IntegerArray, squares: _ObjectArray, window: int, counts: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Sample standard deviation of the last ``window`` steps in fixed-point units; ``log_closes`` padded in front."""
    moves = (log_closes[_EARLIER:] - log_closes[_EARLIER - window : len(log_closes) - window]).astype(object)
    spread = counts.astype(object) * _window_sums(squares, window) - moves * moves
    factors = np.array([_deviation_factor(count) for count in range(window + 1)])
    deviations: npt.NDArray[np.float64] = np.sqrt(spread.astype(np.float64)) * factors[counts]
    return deviations


def _volume_columns(volume: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Change against the mean, and z-score, of every volume."""
    amounts = np.array([int(x) for x in (np.minimum(volume, _VOLUME_LIMIT) * _VOLUME_SCALE).tolist()], dtype=object)
    counts = np.minimum(np.arange(len(volume)) + 1, SHORT_WINDOW)
    totals = _window_sums(amounts, SHORT_WINDOW)
    scaled = counts.astype(object) * amounts
    spread = (counts.astype(object) * _window_sums(amounts * amounts, SHORT_WINDOW) - totals * totals).astype(
        np.float64
    )
    change = np.zeros(len(volume))
    traded = totals > 0
    change[traded] = (scaled[traded] / totals[traded]).astype(np.float64) - 1.0
    z_score = np.zeros(len(volume))
    uneven = spread > 0.0
    factors = np.sqrt((counts - 1) / counts)
    z_score[uneven] = (scaled - totals)[uneven].astype(np.float64) / np.sqrt(spread[uneven]) * factors[uneven]
    return change, z_score


def _chunk_matrix(series: BarSeries) -> npt.NDArray[np.float64]:
    """Features of a series that starts at the beginning of its history, or ``FEATURE_WARMUP - 1`` bars early."""
    length = len(series)
    # math.log on both paths: NumPy's own logarithm may differ in the last bit.
    logs = np.array(list(map(log, series.close.tolist())), dtype=np.float64)
    log_closes = np.rint(logs * _LOG_SCALE).astype(np.int64)
    steps = np.diff(log_closes, prepend=log_closes[0])
    squares = steps.astype(object) ** 2
    padded = np.concatenate((np.full(_EARLIER, log_closes[0]), log_closes))
    earlier = np.minimum(np.arange(length), _EARLIER)
    short = _deviations(padded, squares, SHORT_WINDOW, np.minimum(earlier, SHORT_WINDOW))
    long = _deviations(padded, squares, LONG_WINDOW, np.minimum(earlier, LONG_WINDOW))
    moving = long > 0.0
    inverse = np.divide(1.0, long, out=np.zeros(length), where=moving)
    trends = []
    for number, span in enumerate(TREND_SPANS):
        moves = log_closes - padded[_EARLIER - span : _EARLIER - span + length]
        roots = np.array([lengths.trends[number][1] for lengths in _LENGTHS])[earlier]
        trends.append(np.where(moving, np.clip(moves * inverse * roots, -TREND_LIMIT, TREND_LIMIT), 0.0))
    change, z_score = _volume_columns(series.volume)
    height = series.high - series.low
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        width = np.minimum(height / series.close, RANGE_LIMIT)
        location = np.where(height > 0.0, np.clip(2.0 * ((series.close - series.low) / height) - 1.0, -1.0, 1.0), 0.0)
    minutes = (series.open_time // MINUTE_MS + _EPOCH_MINUTE) % _WEEK_MINUTES
    columns = (
        steps / _LOG_SCALE,
        short / _LOG_SCALE,
        change,
        z_score,
        width,
        location,
        *trends,
        long / _LOG_SCALE,
        np.where(moving, short * inverse, 1.0),
        *_CLOCK_MATRIX[minutes].T,
    )
    return np.column_stack(columns)
