"""What training tells: while it runs, and when it is done."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from strategies.memory_transformer.evaluation import Evaluation
from strategies.memory_transformer.shrinkage import ShrinkageChoice


class TrainingProgress(NamedTuple):
    """Where training stands, after every step and, with the validation's figures, after every epoch."""

    epoch: int
    """From 1."""
    epochs: int
    step: int
    """Of this epoch, from 1."""
    steps: int
    loss: float
    """Mean training loss of the epoch so far."""
    validation_loss: float | None = None
    direction_accuracy: float | None = None
    base_rate: float | None = None
    """Direction accuracy of always saying what happened more often."""


@dataclass(frozen=True, slots=True)
class EpochReport:
    """One epoch."""

    epoch: int
    train_loss: float
    validation_loss: float | None
    direction_accuracy: float | None
    information_coefficient: float | None
    mean_gate: float | None
    volatility_r2: float | None = None
    """Of log realised volatility over the primary horizon."""
    staleness: float | None = None
    """One minus the mean cosine of the keys that the epoch ended with and those that it is followed by: how far
    remembered keys had fallen behind the encoder."""
    read_only: bool = False
    """Whether the encoder stood still."""


@dataclass(frozen=True, slots=True)
class KeyReport:
    """Whether keys tell bars apart."""

    state_anisotropy: float
    """Mean cosine of pairs of hidden states: near 1 they are all alike."""
    key_anisotropy: float
    """The same of keys, after whitening."""
    temperature: float
    """Of the learned softmax over cosines."""
    n_neighbors: int
    effective_neighbors: float | None
    """To how many of them that softmax listens, on average over the validation part."""


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """What came of a training."""

    epochs: tuple[EpochReport, ...]
    best_epoch: int
    """The one whose weights were kept: of lowest validation loss, or the last without validation; 0 is a linear start."""
    train_bars: int
    validation: Evaluation | None
    """On the validation part, which early stopping has seen: not an estimate of what trading will bring."""
    whitening: ShrinkageChoice
    keys: KeyReport

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON values, with what it says of the memory in words."""
        plain, found = asdict(self), self.validation
        plain["verdict"] = None if found is None else found.verdict
        plain["direction_verdict"] = None if found is None else found.direction_verdict
        plain["knows_direction"] = found is not None and found.direction.shows_skill
        return plain
