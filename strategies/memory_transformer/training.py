"""Training: one pass over the span per epoch, every bar a sample, retrieval under the rule that trading obeys."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from strategies.bars import BarSeries
from strategies.memory_transformer.config import SMALLEST_SHRINKAGE, ModelConfig
from strategies.memory_transformer.dataset import Dataset, Floats, TrainingError, build_dataset
from strategies.memory_transformer.evaluation import Evaluation, evaluate, measure
from strategies.memory_transformer.losses import head_loss
from strategies.memory_transformer.model import MemoryTransformer
from strategies.memory_transformer.segments import Segments, draw_segments
from strategies.memory_transformer.shrinkage import ShrinkageChoice, ShrinkageSource, choose_shrinkage
from strategies.memory_transformer.span_memory import Rows, SpanMemory, encode_span
from strategies.memory_transformer.threads import thread_count
from strategies.scaling import Scaler

_GRADIENT_LIMIT: Final = 1.0
_LAST_RATE: Final = 0.05  # share of the learning rate that the cosine ends at


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """How a model is trained.

    Raises:
        TrainingError: a value is out of range.
    """

    epochs: int = 10
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
    whitening: float | None = None
    """Shrinkage of the whitening of keys; ``None`` chooses it on the validation part after the first epoch."""
    threads: int = 1
    """Of torch; with the same number the same seed gives the same weights to the last bit."""

    def __post_init__(self) -> None:
        checks = (
            ("epochs", self.epochs >= 1, "at least 1"),
            ("learning_rate", 0.0 < self.learning_rate < math.inf, "positive"),
            ("weight_decay", 0.0 <= self.weight_decay < math.inf, "0 or more"),
            ("warmup", 0.0 <= self.warmup <= 1.0, "between 0 and 1"),
            ("validation_fraction", 0.0 <= self.validation_fraction < 1.0, "at least 0 and below 1"),
            ("memory_dropout", 0.0 <= self.memory_dropout < 1.0, "at least 0 and below 1"),
            ("patience", self.patience >= 1, "at least 1"),
            ("segment_blocks", self.segment_blocks >= 1, "at least 1"),
            ("segments_per_step", self.segments_per_step >= 1, "at least 1"),
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


@dataclass(frozen=True, slots=True)
class EpochReport:
    """One epoch."""

    epoch: int
    train_loss: float
    validation_loss: float | None
    direction_accuracy: float | None
    information_coefficient: float | None
    mean_gate: float | None


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
    """The one whose weights were kept: of lowest validation loss, or the last without validation."""
    train_bars: int
    validation: Evaluation | None
    """On the validation part, which early stopping has seen: not an estimate of what trading will bring."""
    whitening: ShrinkageChoice
    keys: KeyReport

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True, eq=False)
class TrainedModel:
    """A model and everything that its forecasts depend on."""

    model: MemoryTransformer
    """In evaluation mode."""
    training: TrainingConfig
    scaler: Scaler
    outcome_scale: Floats
    """``[horizons]`` standard deviation of outcomes over the training rows."""
    symbols: tuple[str, ...]
    interval: str
    training_span: tuple[int, int]
    """First open time and last close time of the bars given, validation included."""
    validation_span: tuple[int, int] | None
    report: TrainingReport


def train(
    series: Mapping[str, BarSeries],
    config: ModelConfig,
    training: TrainingConfig | None = None,
    *,
    progress: Callable[[TrainingProgress], None] | None = None,
) -> TrainedModel:
    """Train a model on all bars of a span.

    The first epoch whitens keys with ``config.shrinkage``. After it, when states have begun to mean something and before
    anything is validated, the shrinkage is chosen once for all (:func:`choose_shrinkage`), so that the memory read has
    all later epochs to get used to its keys. ``training.whitening`` uses one from the beginning instead.

    Args:
        series: bars of every symbol, cut to the span; nothing after them is used. Only bars whose primary outcome is
            known within them are samples.
        config: shape of the model; that of the trained model has the shrinkage of its keys.
        training: how to train it.
        progress: told after every step and epoch.

    Raises:
        TrainingError: the bars are too few, do not move, or mix intervals; or the loss stops being a number.
    """
    training = training or TrainingConfig()
    dataset = build_dataset(series, config, training.validation_fraction)
    with thread_count(training.threads), torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        run = _Run(dataset, config, training, progress or _ignore)
        report = run.run()
        model = MemoryTransformer(run.config)
    model.load_state_dict(run.model.state_dict())
    return TrainedModel(
        model.eval(),
        training,
        dataset.scaler,
        dataset.outcome_scale,
        dataset.symbols,
        dataset.interval,
        dataset.span,
        dataset.validation_span,
        report,
    )


def _ignore(progress: TrainingProgress) -> None:
    """Tell nobody."""


class _Run:
    """One training under way."""

    def __init__(
        self,
        dataset: Dataset,
        config: ModelConfig,
        training: TrainingConfig,
        progress: Callable[[TrainingProgress], None],
    ) -> None:
        given = training.whitening
        self.config = config if given is None else replace(config, shrinkage=given)
        self.model = model = MemoryTransformer(config)
        self._dataset = dataset
        self._training = training
        self._progress = progress
        self._generator = np.random.default_rng(training.seed)
        self._is_training_row = np.zeros(len(dataset.moments), dtype=np.bool_)
        self._is_training_row[dataset.train] = True
        self._target = torch.from_numpy(dataset.moments.target)
        self._volatility = torch.from_numpy(dataset.moments.volatility.astype(np.float32))
        self._optimizer = make_optimizer(model, training)
        self._memory = SpanMemory.build(model.encoder, dataset, self.config)

    def run(self) -> TrainingReport:
        """All epochs; leaves the best weights in the model."""
        training, model = self._training, self.model
        epochs: list[EpochReport] = []
        choice = ShrinkageChoice(self.config.shrinkage, ShrinkageSource.DEFAULT, 0, ())
        best_epoch, best_loss, best_weights = 0, math.inf, model.state_dict()
        plan = [self._draw() for _ in range(training.epochs)]
        schedule = _schedule(self._optimizer, sum(map(len, plan)), training.warmup)
        for epoch, batches in enumerate(plan, start=1):
            train_loss = self._train_epoch(epoch, batches, schedule)
            hidden = encode_span(model.encoder, self._dataset)
            if epoch == 1:
                choice = self._choose(hidden)
            self._memory = SpanMemory.of_states(hidden, model.encoder, self._dataset, self.config)
            report = self._validate(epoch, len(batches), train_loss)
            epochs.append(report)
            loss = -epoch if report.validation_loss is None else report.validation_loss
            if loss < best_loss:
                best_epoch, best_loss = epoch, loss
                best_weights = {name: value.clone() for name, value in model.state_dict().items()}
            if epoch - best_epoch >= training.patience:
                break
        if best_epoch != len(epochs):
            model.load_state_dict(best_weights)
            self._memory = SpanMemory.build(model.encoder, self._dataset, self.config)
        model.eval()
        dataset = self._dataset
        evaluation = evaluate(model, self._memory, dataset.validation, cost=training.cost, seed=training.seed)
        keys = KeyReport(
            *self._memory.anisotropies(),
            temperature=model.memory_read.temperature,
            n_neighbors=self.config.n_neighbors,
            effective_neighbors=None if evaluation is None else evaluation.with_memory.effective_neighbors,
        )
        return TrainingReport(tuple(epochs), best_epoch, len(dataset.train), evaluation, choice, keys)

    def _choose(self, hidden: Rows) -> ShrinkageChoice:
        """The shrinkage of all epochs to come."""
        given = self._training.whitening
        if given is not None:
            return ShrinkageChoice(given, ShrinkageSource.GIVEN, 0, ())
        choice = choose_shrinkage(hidden, self._dataset, self.config, seed=self._training.seed)
        self.config = replace(self.config, shrinkage=choice.shrinkage)
        return choice

    def _draw(self) -> list[Segments]:
        """The batches of one epoch."""
        training = self._training
        return draw_segments(
            self._dataset.blocks,
            self._is_training_row,
            length=training.segment_blocks,
            context=self.model.config.context_blocks,
            per_step=training.segments_per_step,
            generator=self._generator,
        )

    def _train_epoch(self, epoch: int, batches: list[Segments], schedule: Iterator[None]) -> float:
        self.model.train()
        total, samples = 0.0, 0
        for step, batch in enumerate(batches, start=1):
            next(schedule)
            loss = self._step(batch)
            if not math.isfinite(loss):
                raise TrainingError(
                    f"the loss is {loss} in epoch {epoch}, step {step}; lower training.learning_rate "
                    f"from {self._training.learning_rate}"
                )
            total += loss * len(batch.rows)
            samples += len(batch.rows)
            self._progress(TrainingProgress(epoch, self._training.epochs, step, len(batches), total / samples))
        return total / samples

    def _step(self, batch: Segments) -> float:
        """One step of the optimiser; the loss before it."""
        self._optimizer.zero_grad(set_to_none=True)
        loss = self._loss(batch)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), _GRADIENT_LIMIT)
        self._optimizer.step()
        return float(loss.detach())

    def _loss(self, batch: Segments) -> Tensor:
        """Mean loss of the samples of some segments, in training mode."""
        encoder, config = self.model.encoder, self.model.config
        blank = encoder.blank_mask(torch.from_numpy(batch.starts))
        encoding = encoder(torch.from_numpy(batch.features), encoder.initial_state(len(batch.features)), blank=blank)
        sampled = torch.from_numpy(batch.sampled)
        hidden, query = encoding.hidden[sampled], encoding.keys[sampled]
        hide = self._generator.random(len(batch.rows)) < self._training.memory_dropout
        forecast = self.model(hidden, query, self._memory.retrieve(batch.rows, hide=hide))
        rows = torch.from_numpy(batch.rows)
        return head_loss(
            forecast.prediction,
            self._target[rows],
            self._volatility[rows],
            config.output_type,
            flat=config.flat_threshold,
            cost=self._training.cost,
        )

    def _validate(self, epoch: int, steps: int, train_loss: float) -> EpochReport:
        rows, training = self._dataset.validation, self._training
        if not len(rows):
            return EpochReport(epoch, train_loss, None, None, None, None)
        metrics = measure(self.model, self._memory, rows, cost=training.cost)
        self._progress(
            TrainingProgress(epoch, training.epochs, steps, steps, train_loss, metrics.loss, metrics.direction_accuracy)
        )
        return EpochReport(
            epoch,
            train_loss,
            metrics.loss,
            metrics.direction_accuracy,
            metrics.information_coefficient,
            metrics.mean_gate,
        )


def make_optimizer(model: MemoryTransformer, training: TrainingConfig) -> torch.optim.AdamW:
    """AdamW; only matrices decay, and not the metric, whose cosines do not feel its size."""
    metric = model.memory_read.metric.weight
    decayed = [p for p in model.parameters() if p.ndim == 2 and p is not metric]
    kept = [p for p in model.parameters() if p.ndim != 2 or p is metric]
    groups = [{"params": decayed, "weight_decay": training.weight_decay}, {"params": kept, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=training.learning_rate)


def _schedule(optimizer: torch.optim.Optimizer, steps: int, warmup: float) -> Iterator[None]:
    """Set the learning rate of one step after the other: a linear rise, then a cosine."""
    rates = [group["lr"] for group in optimizer.param_groups]
    rising = math.ceil(steps * warmup)
    for step in range(steps):
        if step < rising:
            share = (step + 1) / rising
        else:
            progress = (step - rising) / max(1, steps - rising)
            share = _LAST_RATE + (1.0 - _LAST_RATE) * 0.5 * (1.0 + math.cos(math.pi * progress))
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * share
        yield
