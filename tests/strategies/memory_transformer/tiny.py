"""A model small enough for tests, and bars for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from strategies.bars import BarSeries
from strategies.features import FEATURE_NAMES
from strategies.memory_transformer.bar_kernel import BarKernel
from strategies.memory_transformer.config import ModelConfig
from strategies.memory_transformer.encoder import Encoder
from strategies.memory_transformer.model import MemoryTransformer
from strategies.memory_transformer.training import TrainedModel, TrainingConfig, train
from tests.strategies.markets import random_walk

TINY = ModelConfig(
    n_features=len(FEATURE_NAMES),
    d_model=16,
    n_heads=2,
    d_ff=32,
    attention_window=24,
    n_neighbors=8,
    memory_size=600,
    horizons=(1, 4, 8),
    embargo=12,
)
QUICK = TrainingConfig(epochs=1, segment_blocks=2, learning_rate=3e-3)


def tiny_model(seed: int = 0, **changes: Any) -> MemoryTransformer:
    """An untrained model whose every parameter matters: no zeros left by the initialisation."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MemoryTransformer(replace(TINY, **changes))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
            encoder: Encoder = model.encoder
            encoder.whitening.fit(torch.randn(200, model.config.d_model).numpy(), model.config.shrinkage)
    return model.eval()


def tiny_kernel(seed: int = 0, **changes: Any) -> BarKernel:
    """The kernel of such a model."""
    return BarKernel(tiny_model(seed, **changes).encoder)


def feature_rows(count: int, seed: int = 0) -> np.ndarray:
    """Scaled features as noise, ``[count, n_features]``."""
    return np.random.default_rng(seed).normal(size=(count, TINY.n_features)).astype(np.float32)


def tiny_training(bars: int = 900, seed: int = 1, **changes: Any) -> TrainedModel:
    """A model trained for a moment on a random walk."""
    return train({"AAAUSDT": random_walk(bars, seed)}, replace(TINY, **changes), QUICK)


def two_symbols(length: int, seed: int = 5) -> dict[str, BarSeries]:
    """Two random walks; the second starts 37 bars later and its blocks lie elsewhere."""
    first = random_walk(length, seed, "AAAUSDT")
    second = random_walk(length, seed + 1, "BBBUSDT").slice(37, length)
    return {"AAAUSDT": first, "BBBUSDT": second}
