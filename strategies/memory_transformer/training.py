"""Training: one pass over the span per epoch, every bar a sample, retrieval under the rule that trading obeys."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from strategies.bars import BarSeries, interval_ms
from strategies.memory_transformer.allocation import kept_memory
from strategies.memory_transformer.averaging import averaged
from strategies.memory_transformer.calibrating import calibrate
from strategies.memory_transformer.checkpoint import Checkpoint, optimizer_tensors, restore_optimizer
from strategies.memory_transformer.config import ModelConfig
from strategies.memory_transformer.dataset import Dataset, Floats, Integers, TrainingError, build_dataset
from strategies.memory_transformer.evaluation import Metrics, base_rate, evaluate, measure
from strategies.memory_transformer.key_loss import key_loss
from strategies.memory_transformer.linear_start import check_linear_start, fit_linear, hold, silence
from strategies.memory_transformer.losses import forecast_loss
from strategies.memory_transformer.memory_read import mirrored
from strategies.memory_transformer.model import MemoryTransformer
from strategies.memory_transformer.optimization import make_optimizer, set_rate
from strategies.memory_transformer.segments import Segments, draw_segments
from strategies.memory_transformer.shrinkage import Candidate, ShrinkageChoice, ShrinkageSource, choose_shrinkage
from strategies.memory_transformer.span_memory import Rows, SpanMemory, encode_span
from strategies.memory_transformer.targets import Targets, targets_of
from strategies.memory_transformer.threads import thread_count
from strategies.memory_transformer.training_config import TrainingConfig as TrainingConfig
from strategies.memory_transformer.training_report import EpochReport as EpochReport
from strategies.memory_transformer.training_report import KeyReport as KeyReport
from strategies.memory_transformer.training_report import TrainingProgress as TrainingProgress
from strategies.memory_transformer.training_report import TrainingReport as TrainingReport
from strategies.scaling import Scaler
from strategies.uncertainty.calibration import Calibration

_Batch = TypeVar("_Batch", Segments, Integers)

_GRADIENT_LIMIT: Final = 1.0
_KEY_QUERIES: Final = 256
"""Bars of a batch that the key objective forecasts from all others: more make a step dearer and little better."""


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
    calibration: Calibration
    """Of its forecasts, from the validation part."""


def train(
    series: Mapping[str, BarSeries],
    config: ModelConfig,
    training: TrainingConfig | None = None,
    *,
    progress: Callable[[TrainingProgress], None] | None = None,
    checkpoints: Path | None = None,
    notice: Callable[[str], None] | None = None,
) -> TrainedModel:
    """Train a model on all bars of a span.

    The first epoch whitens keys with ``config.shrinkage``. After it, when states have begun to mean something and before
    anything is validated, the shrinkage is chosen once for all (:func:`choose_shrinkage`), so that the memory read has
    all later epochs to get used to its keys. With ``training.linear_start`` states mean something from the beginning, and it
    is chosen before the start is fitted. ``training.whitening`` uses one from the beginning instead.

    Args:
        series: bars of every symbol, cut to the span; nothing after them is used. Only bars whose primary outcome is
            known within them are samples.
        config: shape of the model; that of the trained model has the shrinkage of its keys.
        training: how to train it.
        progress: told after every step and epoch.
        checkpoints: folder where a training that is interrupted leaves what it needs to go on: the same call goes on with
            its last whole epoch and ends with the weights, to the last bit, of a training that was not interrupted.
        notice: told, in a sentence, where training had to do with less than was asked for.

    Raises:
        TrainingError: the bars are too few, do not move, or mix intervals; or the loss stops being a number.
    """
    training, notice = training or TrainingConfig(), notice or _ignore
    dataset = build_dataset(series, config, training.validation_fraction)
    checkpoint = None if checkpoints is None else Checkpoint(checkpoints, series, config, training)
    return train_on(dataset, config, training, progress=progress, checkpoint=checkpoint, notice=notice)


def train_on(
    dataset: Dataset,
    config: ModelConfig,
    training: TrainingConfig,
    *,
    progress: Callable[[TrainingProgress], None] | None = None,
    checkpoint: Checkpoint | None = None,
    notice: Callable[[str], None] | None = None,
) -> TrainedModel:
    """As :func:`train`, on a data set that is already there, whatever its features are.

    Raises:
        TrainingError: the loss stops being a number.
    """
    notice = notice or _ignore
    with thread_count(training.threads), kept_memory(), torch.random.fork_rng(devices=[]):
        for device in _devices(training.device, notice):
            torch.manual_seed(training.seed)
            run = _Run(dataset, config, training, progress or _ignore, device, checkpoint)
            try:
                report, calibration = run.run()
                break
            except torch.cuda.OutOfMemoryError:
                if device.type == "cpu":
                    raise
                notice("the memory of the GPU is full: training goes on with the CPU")
        model = MemoryTransformer(run.config)
    model.load_state_dict(run.model.state_dict())
    if checkpoint is not None:
        checkpoint.remove()
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
        calibration,
    )


def _ignore(_: object) -> None:
    """Tell nobody."""


def _devices(wanted: str, notice: Callable[[str], None]) -> tuple[torch.device, ...]:
    """What to train on, and what to fall back to."""
    there = torch.cuda.is_available()
    if wanted == "cuda" and not there:
        notice("there is no GPU that this torch can use: training uses the CPU")
    cpu = torch.device("cpu")
    return (torch.device("cuda"), cpu) if there and wanted != "cpu" else (cpu,)


class _Run:
    """One training under way.

    All that depends on bits, keys and validation, is computed on the CPU with ``model``; the steps of the optimiser run
    on ``_worker``, which is a copy on the GPU or the very same. Where weights are averaged, ``model`` holds their mean.
    """

    def __init__(
        self,
        dataset: Dataset,
        config: ModelConfig,
        training: TrainingConfig,
        progress: Callable[[TrainingProgress], None],
        device: torch.device,
        checkpoint: Checkpoint | None,
    ) -> None:
        given = training.whitening
        self.config = config if given is None else replace(config, shrinkage=given)
        self.model = model = MemoryTransformer(config)
        if training.linear_start:
            check_linear_start(config)
            silence(model)
        self._worker = model if device.type == "cpu" else MemoryTransformer(config).to(device)
        if training.linear_start:
            hold(self._worker)
        self._device = device
        self._dataset = dataset
        self._training = training
        self._progress = progress
        self._checkpoint = checkpoint
        self._generator = np.random.default_rng(training.seed)
        self._is_training_row = np.zeros(len(dataset.moments), dtype=np.bool_)
        self._is_training_row[dataset.train] = True
        self._targets = targets_of(dataset.moments, config)
        self._apart_ms = (config.primary_horizon + config.embargo) * interval_ms(dataset.interval)
        self._base_rate = base_rate(dataset.moments.target[dataset.validation])
        self._optimizer = make_optimizer(self._worker, training)
        self._mean: AveragedModel | None = None
        self._epochs: list[EpochReport] = []
        self._choice = ShrinkageChoice(self.config.shrinkage, ShrinkageSource.DEFAULT, 0, ())
        self._best_epoch, self._best_loss = 0, math.inf
        self._best_weights = _copy(model)

    def run(self) -> tuple[TrainingReport, Calibration]:
        """All epochs; leaves the best weights in the model."""
        training, model = self._training, self.model
        plan = [self._draw() for _ in range(training.epochs)]
        self._resume()
        self._memory = SpanMemory.build(model.encoder, self._dataset, self.config)
        if training.linear_start and not self._epochs:
            self._start()
        self._copy_to_worker()
        if self._read_epochs == 0:
            self._train(plan, 0, self._loss)
            self._take_best()
        if training.read_epochs:
            self._train_read()
            self._take_best()
        model.eval()
        return self._report(), calibrate(model, self._memory, self._dataset)

    def _start(self) -> None:
        """Fit what is linear; what comes of it is to be beaten."""
        dataset, hidden = self._dataset, self._memory.hidden
        self._choice = self._choose(hidden)
        self._renew(hidden)
        fit_linear(self.model, self._memory, dataset.train, dataset.validation, mirrored=self._training.mirrored)
        self._best_weights = _copy(self.model)
        if len(dataset.validation):
            self._best_loss = self._measured().loss

    @property
    def _all_epochs(self) -> int:
        return self._training.epochs + self._training.read_epochs

    @property
    def _read_epochs(self) -> int:
        """Epochs behind us in which the encoder stood still."""
        return sum(each.read_only for each in self._epochs)

    def _train_read(self) -> None:
        """The epochs in which the encoder stands still."""
        # Drawn apart, so that what comes before is the same whether these follow or not.
        generator = np.random.default_rng((self._training.seed, 1))
        plan = [self._draw_rows(generator) for _ in range(self._training.read_epochs)]
        before = len(self._epochs) - self._read_epochs
        if not self._read_epochs:
            self._begin_read()
        self._train(plan, before, self._read_loss)

    def _begin_read(self) -> None:
        """An optimiser for all but the encoder and, where weights are averaged, a mean that begins with those in the model."""
        if self._training.averaging > 0.0:
            if self._worker is self.model:
                self._worker = deepcopy(self.model)
            self._mean = averaged(self._worker, self._training.averaging)
        self._optimizer = make_optimizer(self._worker, self._training, read_only=True)

    def _train(self, plan: Sequence[Sequence[_Batch]], before: int, loss: Callable[[_Batch], Tensor]) -> None:
        """Some epochs, those that are behind us left out, until there is none left or patience is at its end.

        Args:
            plan: the batches of every epoch.
            before: epochs before the first of the plan.
            loss: of a batch.
        """
        steps = sum(map(len, plan))
        for number, batches in enumerate(plan):
            epoch = before + number + 1
            if epoch <= len(self._epochs):
                continue
            if epoch - 1 - max(before, self._best_epoch) >= self._training.patience:
                break
            train_loss = self._train_epoch(epoch, batches, sum(map(len, plan[:number])), steps, loss)
            self._end_epoch(epoch, len(batches), train_loss, read_only=before > 0)

    def _take_best(self) -> None:
        """Go back to the best weights."""
        if self._best_epoch != len(self._epochs):
            self.model.load_state_dict(self._best_weights)
            self._memory = SpanMemory.build(self.model.encoder, self._dataset, self.config)
            self._copy_to_worker()

    def _end_epoch(self, epoch: int, steps: int, train_loss: float, *, read_only: bool) -> None:
        """Make all keys anew, validate, and keep what is best."""
        model = self.model
        self._copy_from_worker()
        hidden = self._memory.hidden if read_only else encode_span(model.encoder, self._dataset)
        if epoch == 1 and not self._training.linear_start:
            self._choice = self._choose(hidden)
        staleness = self._renew(hidden)
        report = replace(self._validate(epoch, steps, train_loss), staleness=staleness, read_only=read_only)
        self._epochs.append(report)
        loss = -epoch if report.validation_loss is None else report.validation_loss
        if loss < self._best_loss:
            self._best_epoch, self._best_loss, self._best_weights = epoch, loss, _copy(model)
        self._copy_to_worker()
        self._save()

    def _report(self) -> TrainingReport:
        dataset, training = self._dataset, self._training
        evaluation = evaluate(
            self.model,
            self._memory,
            dataset.validation,
            cost=training.cost,
            seed=training.seed,
            distribution_weight=training.distribution_weight,
        )
        keys = KeyReport(
            *self._memory.anisotropies(),
            temperature=self.model.memory_read.temperature,
            n_neighbors=self.config.n_neighbors,
            effective_neighbors=None if evaluation is None else evaluation.with_memory.effective_neighbors,
        )
        return TrainingReport(tuple(self._epochs), self._best_epoch, len(dataset.train), evaluation, self._choice, keys)

    def _renew(self, hidden: Rows) -> float:
        """Take the memory of the present weights in place of the last; how far its keys had fallen behind."""
        before = self._memory.keys
        self._memory = SpanMemory.of_states(hidden, self.model.encoder, self._dataset, self.config)
        rows = self._dataset.train
        return 1.0 - float(np.einsum("ij,ij->i", before[rows], self._memory.keys[rows], dtype=np.float64).mean())

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

    def _draw_rows(self, generator: np.random.Generator) -> list[Integers]:
        """The batches of one epoch in which the encoder stands still: training rows in any order."""
        training, rows = self._training, generator.permutation(self._dataset.train)
        size = self.model.config.block * training.segment_blocks * training.segments_per_step
        return [rows[start : start + size] for start in range(0, len(rows), size)]

    def _train_epoch(
        self, epoch: int, batches: Sequence[_Batch], done: int, steps: int, loss_of: Callable[[_Batch], Tensor]
    ) -> float:
        self._worker.train()
        training, total, samples = self._training, 0.0, 0
        for step, batch in enumerate(batches, start=1):
            set_rate(self._optimizer, training, done + step - 1, steps)
            loss = self._step(batch, loss_of)
            if not math.isfinite(loss):
                raise TrainingError(
                    f"the loss is {loss} in epoch {epoch}, step {step}; lower training.learning_rate "
                    f"from {training.learning_rate}"
                )
            count = len(batch.rows if isinstance(batch, Segments) else batch)
            total += loss * count
            samples += count
            self._progress(TrainingProgress(epoch, self._all_epochs, step, len(batches), total / samples))
            if isinstance(batch, Segments) and step % training.refresh_steps == 0 and step < len(batches):
                self._copy_from_worker()
                self._renew(encode_span(self.model.encoder, self._dataset))
                self._copy_to_worker()
                self._worker.train()
        return total / samples

    def _step(self, batch: _Batch, loss_of: Callable[[_Batch], Tensor]) -> float:
        """One step of the optimiser; the loss before it."""
        self._optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda", torch.bfloat16, enabled=self._device.type == "cuda"):
            loss = loss_of(batch)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._worker.parameters(), _GRADIENT_LIMIT)
        self._optimizer.step()
        if self._mean is not None:
            self._mean.update_parameters(self._worker)
        return float(loss.detach())

    def _loss(self, batch: Segments) -> Tensor:
        """Mean loss of the samples of some segments, in training mode."""
        device, encoder = self._device, self._worker.encoder
        blank = encoder.blank_mask(torch.from_numpy(batch.starts))
        encoding = encoder(
            torch.from_numpy(batch.features).to(device),
            encoder.initial_state(len(batch.features)),
            blank=None if blank is None else blank.to(device),
        )
        sampled = torch.from_numpy(batch.sampled).to(device)
        return self._loss_of(batch.rows, encoding.hidden[sampled], encoding.keys[sampled])

    def _read_loss(self, rows: Integers) -> Tensor:
        """Mean loss of some samples whose states are known."""
        hidden, whitened = (torch.from_numpy(part[rows]) for part in (self._memory.hidden, self._memory.whitened))
        return self._loss_of(rows, hidden.to(self._device), self._worker.encoder.key_of(whitened.to(self._device)))

    def _loss_of(self, rows: Integers, hidden: Tensor, keys: Tensor) -> Tensor:
        """Mean loss of some samples."""
        training, device, model = self._training, self._device, self._worker
        hide = self._generator.random(len(rows)) < training.memory_dropout
        flipped = self._generator.random(len(rows)) < training.mirrored
        sign = torch.from_numpy(np.where(flipped, -1.0, 1.0).astype(np.float32)).to(device)
        targets = self._targets.of(torch.from_numpy(rows)).to(device)
        retrieved = self._memory.retrieve(rows, hide=hide, raw=True).to(device)
        retrieved = retrieved._replace(keys=model.encoder.key_of(retrieved.keys))
        if training.mirrored > 0.0:
            retrieved = mirrored(retrieved, sign, len(model.config.horizons))
        forecast = model(hidden, keys, retrieved)
        loss = forecast_loss(
            forecast,
            targets.mirrored(sign),
            model.config,
            cost=training.cost,
            distribution_weight=training.distribution_weight,
            precision=training.precision,
        )
        if training.key_loss > 0.0:
            loss = loss + training.key_loss * self._key_loss(keys, rows, targets)
        return loss

    def _key_loss(self, keys: Tensor, rows: Integers, targets: Targets) -> Tensor:
        """How badly the bars of a batch forecast each other by their keys."""
        count = len(rows)
        asked = np.sort(self._generator.permutation(count)[:_KEY_QUERIES])
        closed = self._dataset.moments.close_time[rows]
        apart = np.abs(closed[asked][:, None] - closed) >= self._apart_ms
        places = torch.from_numpy(asked).to(self._device)
        scale = self._worker.memory_read.scale
        return key_loss(keys[places], keys, torch.from_numpy(apart).to(self._device), targets.returns, places, scale)

    def _validate(self, epoch: int, steps: int, train_loss: float) -> EpochReport:
        if not len(self._dataset.validation):
            return EpochReport(epoch, train_loss, None, None, None, None)
        metrics = self._measured()
        loss, accuracy = metrics.loss, metrics.direction_accuracy
        self._progress(
            TrainingProgress(epoch, self._all_epochs, steps, steps, train_loss, loss, accuracy, self._base_rate)
        )
        return EpochReport(
            epoch,
            train_loss,
            loss,
            accuracy,
            metrics.information_coefficient,
            metrics.mean_gate,
            metrics.volatility_r2,
        )

    def _measured(self) -> Metrics:
        """Figures of the validation part."""
        training = self._training
        return measure(
            self.model,
            self._memory,
            self._dataset.validation,
            cost=training.cost,
            distribution_weight=training.distribution_weight,
            precision=training.precision,
        )

    def _copy_to_worker(self) -> None:
        """Train what is in the model; a worker whose weights are averaged goes on with its own."""
        if self._worker is not self.model and self._mean is None:
            self._worker.load_state_dict(self.model.state_dict())

    def _copy_from_worker(self) -> None:
        """Take what was trained, or the mean of it, into the model."""
        if self._worker is not self.model:
            trained = self._worker if self._mean is None else self._mean.module
            self.model.load_state_dict(trained.state_dict())

    def _save(self) -> None:
        """Leave what :meth:`_resume` needs."""
        if self._checkpoint is None:
            return
        tensors = {"random": torch.get_rng_state()}
        tensors |= {f"model.{name}": value for name, value in _copy(self.model).items()}
        tensors |= {f"best.{name}": value for name, value in self._best_weights.items()}
        tensors |= {f"optimizer.{name}": value for name, value in optimizer_tensors(self._optimizer).items()}
        if self._mean is not None:
            tensors |= {f"worker.{name}": value for name, value in _copy(self._worker).items()}
            tensors |= {f"mean.{name}": value for name, value in _copy(self._mean).items()}
        rest = {
            "epochs": [asdict(report) for report in self._epochs],
            "choice": asdict(self._choice),
            "best_epoch": self._best_epoch,
            "best_loss": self._best_loss,
            "generator": self._generator.bit_generator.state,
        }
        self._checkpoint.write(tensors, rest)

    def _resume(self) -> None:
        """Go on after the last whole epoch of an interrupted training, if there was one."""
        found = None if self._checkpoint is None else self._checkpoint.read()
        if found is None:
            return
        tensors, rest = found
        self._epochs = [EpochReport(**each) for each in rest["epochs"]]
        self._choice = _choice_of(rest["choice"])
        self.config = replace(self.config, shrinkage=self._choice.shrinkage)
        self._best_epoch, self._best_loss = rest["best_epoch"], rest["best_loss"]
        self._best_weights = _part(tensors, "best.")
        self.model.load_state_dict(_part(tensors, "model."))
        if self._read_epochs:
            self._begin_read()
        if self._mean is not None:
            self._worker.load_state_dict(_part(tensors, "worker."))
            self._mean.load_state_dict(_part(tensors, "mean."))
        restore_optimizer(self._optimizer, _part(tensors, "optimizer."))
        self._generator.bit_generator.state = rest["generator"]
        torch.set_rng_state(tensors["random"])


def _choice_of(plain: Mapping[str, Any]) -> ShrinkageChoice:
    candidates = tuple(Candidate(**each) for each in plain["candidates"])
    return ShrinkageChoice(plain["shrinkage"], ShrinkageSource(plain["source"]), plain["queries"], candidates)


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
