"""Keys for the memory's benchmarks: what the encoder makes of hourly bars, in the order in which they would be remembered.

The bars are synthetic, so that anyone can repeat the figures, or real hours from a candle store that was named on the
command line. A small model is trained on their beginning; its keys are whitened as in trading.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from backtest.sandbox.market import SyntheticMarket
from benchmarks.harness import BenchmarkError
from benchmarks.market import START
from bot.execution.builtin import builtin_instrument
from bot.market.candles import CandleStore
from strategies.bars import BarSeries, Calendar, interval_ms
from strategies.features import FEATURE_NAMES, feature_matrix
from strategies.memory_transformer.bar_kernel import BarKernel
from strategies.memory_transformer.bundle import Bundle, load_bundle, save_bundle
from strategies.memory_transformer.config import ModelConfig
from strategies.memory_transformer.streaming import StreamingEncoder
from strategies.memory_transformer.training import TrainingConfig, train
from strategies.memory_transformer.whitening import Whitening

INTERVAL: Final = "60"
HOUR_MS: Final = interval_ms(INTERVAL)
SYMBOLS: Final = 16
TRAINED_BARS: Final = 20_000
"""Enough for training to choose the strength of the whitening."""
SMALLEST_STORE: Final = 100_000

Keys = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class KeyStream:
    """Moments in the order of their time, of several symbols."""

    keys: Keys
    """``[n, dimension]``, float32."""
    symbols: list[str]
    """``n``."""
    bar_times: list[int]
    """``n``, milliseconds."""
    description: str
    """Where they come from, for a note."""

    def __len__(self) -> int:
        return len(self.keys)


def trained_model(series: Mapping[str, BarSeries], seed: int) -> Bundle:
    """A model trained for one epoch on the first bars of every series, as it is loaded for trading."""
    shape = ModelConfig(n_features=len(FEATURE_NAMES))
    span = {symbol: one.slice(0, TRAINED_BARS // len(series)) for symbol, one in series.items()}
    with tempfile.TemporaryDirectory() as folder:
        model_id = save_bundle(Path(folder), train(span, shape, TrainingConfig(epochs=1, seed=seed)))
        return load_bundle(Path(folder) / model_id)


@cache
def synthetic_model(seed: int) -> Bundle:
    """A model trained on two symbols of the synthetic market."""
    return trained_model(dict(list(_synthetic_series(seed, TRAINED_BARS).items())[:2]), seed)


@cache
def synthetic_keys(seed: int, count: int) -> KeyStream:
    """Keys of the synthetic market: ``SYMBOLS`` symbols with shared motifs and one common factor, hour by hour."""
    model = synthetic_model(seed)
    series = _synthetic_series(seed, -(-count // SYMBOLS) + model.config.warmup)
    return _in_order(model, series, f"{SYMBOLS} synthetic symbols by the hour", count)


def whitened_anew(seed: int, count: int, shrinkages: Sequence[float]) -> dict[float, KeyStream]:
    """The first keys of ``synthetic_keys`` as they would be if its states were whitened at other strengths."""
    model = synthetic_model(seed)
    series = _synthetic_series(seed, -(-count // SYMBOLS) + model.config.warmup)
    states = _in_order(model, series, "", count, keys=False)
    whitening = Whitening(model.config.d_model)
    streams = {}
    for shrinkage in shrinkages:
        whitening.fit(states.keys[: count // 2], shrinkage)
        with torch.inference_mode():
            keys = whitening(torch.from_numpy(states.keys)).numpy()
        streams[shrinkage] = replace(states, keys=keys)
    return streams


def _synthetic_series(seed: int, bars: int) -> dict[str, BarSeries]:
    instrument = builtin_instrument("BTCUSDT", Calendar.CONTINUOUS)
    names = [f"SYNTH{number:02d}USDT" for number in range(SYMBOLS)]
    return {
        name: SyntheticMarket(seed, name, INTERVAL, instrument=instrument, base_price=30_000.0).series(
            START, START + bars * HOUR_MS
        )
        for name in names
    }


@cache
def stored_keys(store: Path, seed: int, count: int) -> KeyStream:
    """Keys of all hourly series of a candle store, and between them, where they are too few, keys half way between
    consecutive hours of one symbol, which lie where the keys of a finer interval would.

    Raises:
        BenchmarkError: the store holds too few hours to say anything.
    """
    candles = CandleStore(store)
    names = [one.symbol for one in candles.list() if one.interval == INTERVAL]
    series = {name: candles.load(name, INTERVAL) for name in names}
    found = sum(map(len, series.values()))
    if found < SMALLEST_STORE:
        raise BenchmarkError(
            f"{store} holds {found:,} hourly bars, fewer than {SMALLEST_STORE:,}; fetch more with recall fetch"
        )
    model = trained_model({name: one for name, one in series.items() if len(one) > TRAINED_BARS}, seed)
    real = _in_order(model, series, f"stored hours of {', '.join(names)}", found)
    return real if len(real) >= count else _with_midpoints(real, count)


def _in_order(
    model: Bundle, series: Mapping[str, BarSeries], description: str, count: int, *, keys: bool = True
) -> KeyStream:
    """Keys, or the states they are made of, of all bars late enough to have one, by time and then by symbol."""
    kernel = BarKernel(model.model.encoder)
    names, rows, times, owners = list(series), [], [], []
    for number, one in enumerate(series.values()):
        encoded = StreamingEncoder(kernel, one.first_ordinal).encode_series(model.scaler.transform(feature_matrix(one)))
        early = model.config.warmup - 1
        rows.append((encoded.keys if keys else encoded.hidden)[early:])
        times.append(one.open_time[early:])
        owners.append(np.full(len(one) - early, number))
    time, owner = np.concatenate(times), np.concatenate(owners)
    order = np.lexsort((owner, time))[:count]
    symbols = [names[number] for number in owner[order].tolist()]
    made = f"encoder keys (whitened with the chosen shrinkage {model.config.shrinkage}) of {description}"
    return KeyStream(np.concatenate(rows)[order], symbols, time[order].tolist(), made)


def _with_midpoints(stream: KeyStream, count: int) -> KeyStream:
    """The stream with as many points half way between consecutive keys of a symbol as are missing, in order of time.

    Raises:
        BenchmarkError: even one between any two is not enough.
    """
    last: dict[str, int] = {}
    pairs = []
    for place, symbol in enumerate(stream.symbols):
        if symbol in last and stream.bar_times[place] - stream.bar_times[last[symbol]] == HOUR_MS:
            pairs.append((last[symbol], place))
        last[symbol] = place
    missing = count - len(stream)
    if missing > len(pairs):
        raise BenchmarkError(f"{len(stream):,} real hours cannot be stretched to {count:,} keys; fetch more symbols")
    chosen = np.array(pairs)[np.linspace(0, len(pairs) - 1, missing).astype(np.int64)]
    between = stream.keys[chosen].sum(axis=1)
    between /= np.linalg.norm(between, axis=1, keepdims=True)
    places = chosen[:, 1].tolist()
    keys = np.concatenate((stream.keys, between))
    symbols = stream.symbols + [stream.symbols[place] for place in places]
    bar_times = stream.bar_times + [stream.bar_times[place] - HOUR_MS // 2 for place in places]
    order = np.argsort(np.array(bar_times), kind="stable")
    return KeyStream(
        keys[order],
        [symbols[place] for place in order.tolist()],
        [bar_times[place] for place in order.tolist()],
        f"{stream.description} ({len(stream):,} of them, and {missing:,} half way between consecutive ones)",
    )
