"""How a model is trained: every number that decides its weights besides its shape."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from strategies.memory_transformer.config import SMALLEST_SHRINKAGE
from strategies.memory_transformer.dataset import TrainingError

DEVICES: Final = ("auto", "cpu", "cuda")
LARGEST_PACE: Final = 10.0
"""No part of a model learns faster than this, in units of the others."""


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """How a model is trained.

    Raises:
        TrainingError: a value is out of range.
    """

    epochs: int = 10
    read_epochs: int = 0
    """Epochs after these in which the encoder stands still, and only what comes after the states learns: key metric, memory
    read and heads. They begin with the best weights so far and a learning rate of their own, and cost less."""
    linear_start: bool = False
    """Fit what is linear in closed form before the first epoch and leave it so (:mod:`linear_start`): for series that a linear
    map of the window forecasts well. Needs a ``linear_window`` and a head that forecasts returns."""
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup: float = 0.1
    """Share of all steps over which the learning rate rises from zero; a cosine takes it down afterwards."""
    seed: int = 7
    validation_fraction: float = 0.15
    """Share of the span, at its end, that only early stopping and the report see."""
    memory_dropout: float = 0.15
    """Share of samples that see an empty memory, so that the gate learns a cold start."""
    patience: int = 5
    """Epochs without a better validation loss after which training ends."""
    segment_blocks: int = 4
    """Consecutive blocks that are trained on together."""
    segments_per_step: int = 2
    cost: float = 0.00055
    """Cost of one trade as a share of its value, in the portfolio head's utility: Bybit's taker fee."""
    distribution_weight: float = 1.0
    """Of the quantiles' and volatilities' loss beside the head's; 0 trains the head alone."""
    precision: float = 0.0
    """Samples count in proportion to this power of one over the volatility that the model forecasts for them: 0 all alike, 2 by
    the inverse of the variance, the efficient weights of a regression whose noise differs from sample to sample (Aitken, "On
    least squares and linear combination of observations", 1935; for networks Seitzer, Tavakoli, Antic and Martius, "On the
    pitfalls of heteroscedastic uncertainty estimation", 2022). Early stopping weighs them so too."""
    key_loss: float = 0.0
    """Weight of the objective that makes near keys mean alike outcomes (:mod:`key_loss`); 0 leaves keys to the heads. On
    three years of hours of BTC and ETH a weight of 0.5 raised the validation loss from 0.931 to 0.937."""
    key_pace: float = 1.0
    """Learning rate of what keys are made by, their metric and the linear window, in units of the others'. What outcomes say of
    them drowns in noise, so that at the common rate training may end before keys tell apart what they could."""
    averaging: float = 0.0
    """Share that a step of the optimiser leaves of the running mean of the weights (:mod:`averaging`), in the read epochs: the
    mean is what is validated, kept and returned, while steps go on from the weights themselves. 0 takes these as they are. The
    encoder stands still in these epochs, so that no state has to be made anew for the mean."""
    mirrored: float = 0.0
    """Share of samples shown in the mirror: their returns and those of their neighbours change sign, their features do not.
    At one half no weight can learn which way a shape leads, only to believe what followed its like: for patterns whose
    meaning is drawn anew. (Against learning tasks by heart: Rajendran, Irpan and Jang, "Meta-learning requires
    meta-augmentation", 2020.)"""
    refresh_steps: int = 250
    """Steps after which all keys are made anew within an epoch: the bound on how stale a remembered key may be."""
    whitening: float | None = None
    """Shrinkage of the whitening of keys; ``None`` chooses it on the validation part after the first epoch."""
    threads: int = 1
    """Of torch; with the same number the same seed gives the same weights to the last bit."""
    device: str = "auto"
    """``cpu``, ``cuda``, or ``auto``: a GPU where there is one. Keys are made on the CPU all the same."""

    def __post_init__(self) -> None:
        checks = (
            ("epochs", self.epochs >= 1, "at least 1"),
            ("read_epochs", self.read_epochs >= 0, "0 or more"),
            ("learning_rate", 0.0 < self.learning_rate < math.inf, "positive"),
            ("weight_decay", 0.0 <= self.weight_decay < math.inf, "0 or more"),
            ("warmup", 0.0 <= self.warmup <= 1.0, "between 0 and 1"),
            ("validation_fraction", 0.0 <= self.validation_fraction < 1.0, "at least 0 and below 1"),
            ("memory_dropout", 0.0 <= self.memory_dropout < 1.0, "at least 0 and below 1"),
            ("patience", self.patience >= 1, "at least 1"),
            ("segment_blocks", self.segment_blocks >= 1, "at least 1"),
            ("segments_per_step", self.segments_per_step >= 1, "at least 1"),
            ("distribution_weight", 0.0 <= self.distribution_weight < math.inf, "0 or more"),
            ("precision", 0.0 <= self.precision <= 2.0, "between 0 and 2"),
            ("key_loss", 0.0 <= self.key_loss < math.inf, "0 or more"),
            ("key_pace", 0.0 < self.key_pace <= LARGEST_PACE, f"above 0 and at most {LARGEST_PACE:g}"),
            ("averaging", 0.0 <= self.averaging < 1.0, "at least 0 and below 1"),
            ("averaging", self.averaging == 0.0 or self.read_epochs > 0, "0 without training.read_epochs"),
            ("mirrored", 0.0 <= self.mirrored <= 0.5, "between 0 and 0.5"),
            ("refresh_steps", self.refresh_steps >= 1, "at least 1"),
            ("device", self.device in DEVICES, f"one of {', '.join(DEVICES)}"),
            ("cost", 0.0 <= self.cost < 1.0, "at least 0 and below 1"),
            (
                "whitening",
                self.whitening is None or SMALLEST_SHRINKAGE <= self.whitening <= 1.0,
                f"from {SMALLEST_SHRINKAGE} to 1, or None",
            ),
            ("threads", self.threads >= 1, "at least 1"),
        )
        for name, sound, allowed in checks:
            if not sound:
                raise TrainingError(f"training.{name} = {getattr(self, name)} must be {allowed}")
