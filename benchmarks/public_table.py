"""The public table: the model that trades on ETTh1, its twins that lack something, and what arithmetic reaches.

Everything is chosen on the validation part. The model is trained once per seed and horizon and changes no weight afterwards; in
the test part its memory goes on as in trading: a window may be recalled once all hours after it are known, and not before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from rich.console import Console

from benchmarks.etth1 import LOOKBACK, N_FEATURES, PublicTable, find_file, read_table, table_dataset
from benchmarks.etth1_references import linear_errors, retrieval_errors
from benchmarks.harness import Measurement, benchmark
from memory_store.policy import Scope
from strategies.bars import interval_ms
from strategies.memory_transformer.config import ModelConfig, OutputType
from strategies.memory_transformer.dataset import Dataset, Floats, Integers
from strategies.memory_transformer.evaluation import forecast_rows, shuffle_outcomes
from strategies.memory_transformer.model import MemoryTransformer
from strategies.memory_transformer.span_memory import (
    Rows,
    SpanMemory,
    encode_span,
    find_neighbours,
    keys_of,
    visibility_rule,
    whitened,
)
from strategies.memory_transformer.targets import units
from strategies.memory_transformer.training import TrainingConfig, train_on
from strategies.stretches import standard_error

HORIZONS: Final = (96, 192)
SEEDS: Final = 3
VALIDATION_STEP: Final = 4
"""Every so many windows of the validation part early stopping looks at one."""
WHOLE: Final = 1_000_000
"""Capacity that never runs out."""
TWINS: Final = (
    "mse",
    "mse_shuffled",
    "mse_gate_shut",
    "mse_trained_shuffled",
    "mse_without_memory",
    "mse_frozen",
    "mse_linear",
    "mse_retrieval",
)


def model_shape(horizon: int) -> ModelConfig:
    """Shape of the model; a state sees 96 hours, because 95 changes reach over 96 values."""
    return ModelConfig(
        n_features=N_FEATURES,
        d_model=96,
        n_heads=4,
        n_layers=1,
        d_ff=128,
        attention_window=48,
        kernel_size=48,
        linear_window=LOOKBACK - 1,
        n_neighbors=20,
        temperature=0.1,
        gate_bias=0.0,
        memory_size=WHOLE,
        scope=Scope.SAME,
        output_type=OutputType.PATH,
        horizons=tuple(range(1, horizon + 1)),
        primary=horizon - 1,
        embargo=0,
    )


def training_plan(seed: int) -> TrainingConfig:
    """How it is trained."""
    return TrainingConfig(
        epochs=4,
        linear_start=True,
        learning_rate=2e-4,
        distribution_weight=0.0,
        memory_dropout=0.0,
        whitening=0.001,
        patience=1,
        segment_blocks=2,
        segments_per_step=1,
        seed=seed,
    )


class Errors(NamedTuple):
    """Squared errors of the test windows, ``[windows]``, mean over channels and hours, of one trained model."""

    with_memory: Floats
    shuffled: Floats
    """The same neighbours with the outcomes of other moments."""
    gate_shut: Floats
    frozen: Floats
    """Nothing is remembered after the validation part."""


def trained_errors(table: PublicTable, config: ModelConfig, training: TrainingConfig) -> Errors:
    """Train on the training part, stop by the validation part, and forecast the test part in all ways."""
    model = train_on(table_dataset(table, config, _validated(table)), config, training).model
    dataset = table_dataset(table, model.config, table.test)
    hidden = encode_span(model.encoder, dataset)
    memory = _memory(model, dataset, hidden)
    still = _memory(model, frozen(dataset, int(table.open_time[table.test[0]])), hidden)
    return Errors(
        _errors(table, dataset, model, memory),
        _errors(table, dataset, model, memory, outcomes=shuffle_outcomes(dataset.moments, training.seed)),
        _errors(table, dataset, model, memory, force_gate=0.0),
        _errors(table, dataset, model, still),
    )


def errors_without_memory(table: PublicTable, config: ModelConfig, training: TrainingConfig) -> Floats:
    """The same net and parameters, trained and tested with an empty memory."""
    model = train_on(frozen(table_dataset(table, config, _validated(table)), 0), config, training).model
    dataset = frozen(table_dataset(table, config, table.test), 0)
    return _errors(table, dataset, model, _memory(model, dataset, encode_span(model.encoder, dataset)))


def errors_trained_shuffled(table: PublicTable, config: ModelConfig, training: TrainingConfig) -> Floats:
    """The same net and parameters, trained and tested with a memory that tells the outcomes of other moments."""
    model = train_on(dealt_anew(table_dataset(table, config, _validated(table)), training.seed), config, training).model
    dataset = dealt_anew(table_dataset(table, config, table.test), training.seed)
    return _errors(table, dataset, model, _memory(model, dataset, encode_span(model.encoder, dataset)))


def dealt_anew(dataset: Dataset, seed: int) -> Dataset:
    """The same with a memory whose outcomes are dealt to other moments; what is to be forecast stays."""
    return replace(dataset, remembered=shuffle_outcomes(dataset.moments, seed))


def _validated(table: PublicTable) -> Integers:
    """Windows that early stopping looks at: neighbours in time tell nearly the same."""
    return table.validation[::VALIDATION_STEP]


def _memory(model: MemoryTransformer, dataset: Dataset, hidden: Rows) -> SpanMemory:
    """The memory of a data set as its validation part may ask it, whitened as the model was trained."""
    config, asking = model.config, dataset.validation
    rows, rule = whitened(model.encoder.whitening, hidden), visibility_rule(dataset, config)
    keys = keys_of(model.encoder, rows)
    positions = np.full(len(hidden), -1, dtype=np.int64)
    positions[asking] = np.arange(len(asking))
    found = find_neighbours(keys, dataset, asking, rule, config)
    unit = units(dataset.moments.volatility, config)
    length = interval_ms(dataset.interval)
    return SpanMemory(
        hidden, rows, keys, found, positions, rule, dataset.moments, unit, length, remembered=dataset.remembered
    )


def frozen(dataset: Dataset, end: int) -> Dataset:
    """The same without keys for moments whose outcome was not known at a time: they are never recalled."""
    moments = dataset.moments
    return replace(dataset, moments=replace(moments, has_key=moments.has_key & (moments.settled.max(axis=1) <= end)))


def _errors(
    table: PublicTable,
    dataset: Dataset,
    model: MemoryTransformer,
    memory: SpanMemory,
    *,
    force_gate: float | None = None,
    outcomes: Floats | None = None,
) -> Floats:
    """Errors of the windows that a data set asks."""
    rows = dataset.validation
    said = forecast_rows(model, memory, rows, force_gate=force_gate, outcomes=outcomes).prediction.double().numpy()
    errors = np.square(said * memory.unit[rows] - dataset.moments.outcomes[rows]).mean(axis=1)
    by_window: Floats = errors.reshape(-1, len(table.channels)).mean(axis=1)
    return by_window


def measure_table(file: Path, horizon: int, seed: int) -> Mapping[str, Measurement]:
    """All rows of one horizon."""
    table, config = read_table(file, horizon), model_shape(horizon)
    plans = [training_plan(seed + number) for number in range(SEEDS)]
    runs = []
    for plan in plans:
        runs.append(trained_errors(table, config, plan))
        _tell(horizon, plan, "with memory {:.4f}, shuffled {:.4f}, gate shut {:.4f}, frozen {:.4f}", *runs[-1])
    without, misled = [], []
    for plan in plans:
        without.append(errors_without_memory(table, config, plan))
        misled.append(errors_trained_shuffled(table, config, plan))
        text = "trained without memory {:.4f}, with shuffled outcomes {:.4f}"
        _tell(horizon, plan, text, without[-1], misled[-1])
    whole = table_dataset(table, config, table.test)
    rows = {
        "mse": [run.with_memory for run in runs],
        "mse_shuffled": [run.shuffled for run in runs],
        "mse_gate_shut": [run.gate_shut for run in runs],
        "mse_trained_shuffled": misled,
        "mse_without_memory": without,
        "mse_frozen": [run.frozen for run in runs],
        "mse_linear": [linear_errors(table)],
        "mse_retrieval": [retrieval_errors(table, whole, config)],
    }
    return {f"etth1_h{horizon}_{name}": _measured(name, errors, rows["mse"], horizon) for name, errors in rows.items()}


def _tell(horizon: int, plan: TrainingConfig, text: str, *errors: Floats) -> None:
    """A sentence after every training, which takes minutes."""
    found = text.format(*(each.mean() for each in errors))
    Console().print(f"  horizon {horizon}, seed {plan.seed}: {found}", style="dim", highlight=False)


_NOTES: Final = {
    "mse": "the memory transformer, its memory appended causally in the test part",
    "mse_shuffled": "the same weights and neighbours, with the outcomes of other moments",
    "mse_gate_shut": "the same weights, gate shut",
    "mse_trained_shuffled": "the same net and parameters, trained and tested with the outcomes of other moments",
    "mse_without_memory": "the same net and parameters, trained and tested with an empty memory",
    "mse_frozen": "the same weights, with a memory that ends with the validation part",
    "mse_linear": "ridge of the window less its last value, penalty chosen on validation",
    "mse_retrieval": "ridge of the same and of what followed the windows that correlate most, penalty chosen on validation",
}


def _measured(name: str, errors: list[Floats], model: list[Floats], horizon: int) -> Measurement:
    """Mean over seeds, and how far it is from the model's: in standard errors over stretches of a horizon, as another span
    would have it, and over seeds, as another training on this span would."""
    mean = np.mean(errors, axis=0)
    note = f"{_NOTES[name]}; lookback {LOOKBACK}, horizon {horizon}, {len(mean):,} test windows, 7 channels"
    if len(errors) > 1:
        note += f"; {len(errors)} seeds: {', '.join(f'{each.mean():.4f}' for each in errors)}"
    if name != "mse":
        gain = mean - np.mean(model, axis=0)
        error = standard_error(gain, np.arange(len(gain)) // horizon)
        stretches = -(-len(gain) // horizon)
        by_seed = np.array([each.mean() for each in errors]) - np.array([each.mean() for each in model])
        of_seeds = by_seed.std(ddof=1) / np.sqrt(len(by_seed))
        note += (
            f"; {gain.mean():+.4f} ± {error:.4f} against the model, over {stretches} stretches of {horizon} hours, "
            f"± {of_seeds:.4f} over seeds"
        )
    return Measurement(float(mean.mean()), "MSE", note)


def _names(horizon: int) -> list[str]:
    return [f"etth1_h{horizon}_{name}" for name in TWINS]


@benchmark(*_names(96), seed=0)
def etth1_96(seed: int) -> Mapping[str, Measurement]:
    """ETTh1, four days ahead."""
    return measure_table(find_file(), 96, seed)


@benchmark(*_names(192), seed=0)
def etth1_192(seed: int) -> Mapping[str, Measurement]:
    """ETTh1, eight days ahead."""
    return measure_table(find_file(), 192, seed)
