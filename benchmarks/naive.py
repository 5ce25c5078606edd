"""The plain way to run a memory-augmented transformer, bar by bar: what the product's speed is compared with.

This is the design as it is usually written down first: every bar cuts a window of 96 bars out of a data frame, runs a
bidirectional transformer over the whole of it, asks a flat FAISS index for the 32 nearest of all earlier last states, and
then adds its own last state, for which the index is built anew. Nothing is slowed down on purpose; it is only made to run.
It must never be used to trade: its memory knows outcomes before they happen.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any, Final

import faiss
import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor, nn

from benchmarks.harness import BenchmarkError

FEATURES: Final = ("returns", "volatility", "volume_change")
WINDOW: Final = 96
DIMENSION: Final = 64
HEADS: Final = 4
LAYERS: Final = 2
FEED_FORWARD: Final = 256
NEIGHBOURS: Final = 32
SLOWEST_MS: Final = 9.0
"""A loop slower than this per bar at 100,000 entries is a straw man: the machine is too busy, or it was done badly. Unless
the machine is slow, and needs nearly as long for the bare loop."""
LARGEST_OVERHEAD: Final = 1.25
"""Times the bare loop."""
LARGEST_SPREAD: Final = 1.25
"""Times its fastest turn that the slowest of the bare loop may take on such a machine."""

Floats = npt.NDArray[np.float32]


class RebuiltMemory:
    """Keys in a first-in-first-out array, searched by an index that every addition builds anew."""

    def __init__(self, capacity: int, dimension: int = DIMENSION) -> None:
        self.capacity = capacity
        self.keys: Floats = np.zeros((capacity, dimension), dtype=np.float32)
        self.values: Floats = np.zeros((capacity, dimension), dtype=np.float32)
        self.returns: Floats = np.zeros(capacity, dtype=np.float32)
        self.written = 0
        self.index: Any = faiss.IndexFlatIP(dimension)

    def __len__(self) -> int:
        return min(self.written, self.capacity)

    def add(self, keys: Floats, values: Floats, returns: Floats) -> None:
        """Write rows ``[n, dimension]`` with the returns ``[n]`` that are said to follow, and rebuild the index."""
        for key, value, outcome in zip(_unit(keys), values, returns, strict=True):
            slot = self.written % self.capacity
            self.keys[slot], self.values[slot], self.returns[slot] = key, value, outcome
            self.written += 1
        self.index.reset()
        self.index.add(self.keys[: len(self)])

    def search(self, queries: Floats, k: int = NEIGHBOURS) -> tuple[Floats, npt.NDArray[np.int64], Floats]:
        """Scores ``[n, k]``, slots ``[n, k]`` and values ``[n, k, dimension]`` of the nearest keys."""
        scores, slots = self.index.search(_unit(queries), k)
        return scores, slots, self.values[slots]


class EncoderLayer(nn.Module):
    """Self-attention over the whole window in both directions, then a feed-forward part, each normalised after adding.

    The retrieval branch of the design is absent: its trading loop calls the model without any, and asks the memory after.
    """

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(DIMENSION, HEADS, dropout=0.1, batch_first=True)
        self.feed_forward = nn.Sequential(
            nn.Linear(DIMENSION, FEED_FORWARD),
            nn.GELU(),
            nn.Dropout(0.1),
            nn.Linear(FEED_FORWARD, DIMENSION),
            nn.Dropout(0.1),
        )
        self.after_attention = nn.LayerNorm(DIMENSION)
        self.after_feed_forward = nn.LayerNorm(DIMENSION)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        attended, _ = self.attention(x, x, x)
        x = self.after_attention(x + self.dropout(attended))
        return torch.as_tensor(self.after_feed_forward(x + self.feed_forward(x)))


class WindowModel(nn.Module):
    """One forecast from one window."""

    positions: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Conv1d(len(FEATURES), DIMENSION, kernel_size=3, padding=1)
        self.embedding_norm = nn.LayerNorm(DIMENSION)
        self.register_buffer("positions", _sinusoids(WINDOW))
        self.layers = nn.ModuleList(EncoderLayer() for _ in range(LAYERS))
        self.head = nn.Linear(DIMENSION, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Forecast ``[batch, 1]`` and last state ``[batch, dimension]`` of windows ``[batch, bars, features]``."""
        x = self.embedding_norm(self.embedding(x.transpose(1, 2)).transpose(1, 2)) + self.positions
        for layer in self.layers:
            x = layer(x)
        last = x[:, -1, :]
        return self.head(last), last


def feature_frame(close: npt.NDArray[np.float64], volume: npt.NDArray[np.float64]) -> pd.DataFrame:
    """The plain design's three features of closes and volumes, one row per bar from the twentieth on."""
    frame = pd.DataFrame({"close": close, "volume": volume})
    frame["returns"] = np.log(frame["close"] / frame["close"].shift(1))
    frame["volatility"] = frame["returns"].rolling(20).std()
    frame["volume_change"] = frame["volume"] / frame["volume"].rolling(20).mean()
    return frame.dropna().reset_index(drop=True)


def filled_memory(entries: int, seed: int) -> RebuiltMemory:
    """A memory at capacity, of random keys: the time of an exact search does not depend on what the keys are."""
    random = np.random.default_rng(seed)
    memory = RebuiltMemory(entries)
    keys = random.standard_normal((entries, DIMENSION), dtype=np.float32)
    memory.add(keys, keys, random.standard_normal(entries, dtype=np.float32) * 0.01)
    return memory


def signal_loop(
    model: WindowModel, memory: RebuiltMemory, frame: pd.DataFrame, start: int, bars: int
) -> list[tuple[float, float]]:
    """Decide on ``bars`` rows from ``start`` on; pairs of position and the neighbours' mean return.

    Args:
        model: in evaluation mode.
        memory: grows, and forgets, by one entry per bar.
        frame: from ``feature_frame``.
        start: first row decided on, at least ``WINDOW``.
        bars: rows to decide on.
    """
    decided = []
    returns = frame["returns"].to_numpy()
    columns = list(FEATURES)
    with torch.no_grad():
        for i in range(start, start + bars):
            window = frame[columns].iloc[i - WINDOW : i].values
            forecast, last = model(torch.FloatTensor(window).unsqueeze(0))
            state = last.numpy()
            _, slots, _ = memory.search(state)
            past = memory.returns[slots[0]]
            predicted, remembered = forecast.item(), float(np.mean(past))
            if np.sign(predicted) == np.sign(remembered):
                confidence = min(abs(predicted) + abs(remembered), 1.0)
            else:
                confidence = 0.5 * abs(predicted)
            decided.append((float(np.sign(predicted)) * confidence, remembered))
            memory.add(state, state, np.array([returns[i]], dtype=np.float32))
    return decided


def bare_loop(model: WindowModel, memory: RebuiltMemory, bars: int) -> None:
    """What no such loop can do without, and nothing else: ``bars`` forwards, searches and indexes built anew.

    These are three calls of libraries, so that their time says how fast a loop can be on this machine.
    """
    window = torch.zeros((1, WINDOW, len(FEATURES)))
    with torch.no_grad():
        for _ in range(bars):
            _, last = model(window)
            memory.index.search(last.numpy(), NEIGHBOURS)
            memory.index.reset()
            memory.index.add(memory.keys[: len(memory)])


def refuse_straw_man(naive: Sequence[float], bare: Sequence[float]) -> None:
    """Let nothing be compared with a naive loop that is slower than it has to be.

    Args:
        naive: milliseconds per bar, one for every turn.
        bare: those of ``bare_loop`` in the same turns.

    Raises:
        BenchmarkError: it took more than ``SLOWEST_MS`` per bar, and not because this machine needs that long for the bare
            loop; or it needs so long in some turns alone, because it is busy.
    """
    took, needed = statistics.median(naive), statistics.median(bare)
    limit = max(SLOWEST_MS, LARGEST_OVERHEAD * needed)
    if took > limit:
        raise BenchmarkError(
            f"the naive loop took {took:.1f} ms per bar, more than {limit:.1f}: nothing may be compared with it; run again "
            "on a quiet machine"
        )
    if took > SLOWEST_MS and max(bare) > LARGEST_SPREAD * min(bare):
        raise BenchmarkError(
            f"three calls of libraries took {min(bare):.1f} to {max(bare):.1f} ms per bar: this machine is busy; run again "
            "when it is quiet"
        )


def _unit(rows: Floats) -> Floats:
    return np.asarray(rows / (np.linalg.norm(rows, axis=1, keepdims=True) + 1e-8), dtype=np.float32)


def _sinusoids(length: int) -> Tensor:
    place = torch.arange(length, dtype=torch.float32)[:, None]
    frequency = torch.exp(torch.arange(0, DIMENSION, 2) * (-math.log(10_000.0) / DIMENSION))
    return torch.stack((torch.sin(place * frequency), torch.cos(place * frequency)), dim=-1).flatten(1)
