"""Training: the same weights from the same seed, no leak, and a report that can be believed."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from strategies.bars import HOUR_MS
from strategies.memory_transformer.bar_kernel import BarKernel
from strategies.memory_transformer.config import OutputType
from strategies.memory_transformer.dataset import TrainingError, build_dataset
from strategies.memory_transformer.evaluation import evaluate
from strategies.memory_transformer.segments import draw_segments
from strategies.memory_transformer.span_memory import SpanMemory, encode_blocks
from strategies.memory_transformer.streaming import StreamingEncoder
from strategies.memory_transformer.training import TrainingConfig, TrainingProgress, train
from tests.strategies.markets import random_walk
from tests.strategies.memory_transformer.tiny import QUICK, TINY, tiny_model, tiny_training, two_symbols


def test_the_same_seed_gives_the_same_weights_to_the_last_bit(trained):
    again = tiny_training()
    weights, others = trained.model.state_dict(), again.model.state_dict()
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    assert trained.report == again.report


def test_another_seed_gives_other_weights(trained):
    other = train({"AAAUSDT": random_walk(900, 1)}, TINY, replace(QUICK, seed=1))
    assert not torch.equal(trained.model.head.weight, other.model.head.weight)


def test_training_leaves_the_random_numbers_and_threads_of_the_process_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    threads = torch.get_num_threads()
    tiny_training()
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads


def test_progress_is_told_after_every_step_and_epoch():
    told: list[TrainingProgress] = []
    train({"AAAUSDT": random_walk(900, 1)}, TINY, replace(QUICK, epochs=2), progress=told.append)
    validated = [progress for progress in told if progress.validation_loss is not None]
    assert [progress.epoch for progress in validated] == [1, 2]
    assert all(progress.epochs == 2 for progress in told)
    steps = [progress.step for progress in told if progress.epoch == 1 and progress.validation_loss is None]
    assert steps == list(range(1, told[0].steps + 1))


def test_the_report_compares_the_memory_with_its_absence_and_with_other_outcomes(trained):
    report = trained.report
    assert json.loads(json.dumps(report.as_dict()))["best_epoch"] == 1
    evaluation = report.validation
    assert evaluation is not None
    assert evaluation.without_memory.mean_gate == 0.0
    assert 0.0 < evaluation.with_memory.mean_gate < 1.0
    assert 0.5 <= evaluation.base_rate <= 1.0
    losses = {evaluation.with_memory.loss, evaluation.without_memory.loss, evaluation.shuffled_outcomes.loss}
    assert len(losses) == 3
    assert evaluation.direction.stretches == evaluation.over_shuffled.stretches
    assert 0.0 < abs(evaluation.direction.gain) != abs(evaluation.over_shuffled.gain)
    assert abs(report.keys.key_anisotropy) < 0.1
    assert abs(report.keys.key_anisotropy) < report.keys.state_anisotropy
    assert 1.0 <= report.keys.effective_neighbors <= TINY.n_neighbors
    assert report.keys.temperature == trained.model.memory_read.temperature


def test_skill_of_direction_is_that_of_the_head_alone():
    """Weighted with nothing, the distribution leaves both comparisons alike; whatever it counts, that of direction stands."""
    dataset = build_dataset({"AAAUSDT": random_walk(900, 1)}, TINY, 0.3)
    model = tiny_model()
    memory = SpanMemory.build(model.encoder, dataset, TINY)
    head, both, distribution = (
        evaluate(model, memory, dataset.validation, cost=0.0, seed=3, distribution_weight=weight)
        for weight in (0, 1, 9)
    )
    assert head.direction == head.over_shuffled
    assert both.direction == distribution.direction == head.direction
    assert both.over_shuffled != head.over_shuffled


def test_every_training_row_retrieves_only_what_was_known_when_it_closed():
    history = two_symbols(900)
    dataset = build_dataset(history, TINY, 0.2)
    memory = SpanMemory.build(tiny_model().encoder, dataset, TINY)
    rows = dataset.train
    found, mask = memory.neighbours.rows[memory.positions[rows]], memory.neighbours.mask[memory.positions[rows]]
    known_at = np.where(mask, dataset.moments.settled[found, TINY.primary] + TINY.embargo * HOUR_MS, 0)
    assert mask.any()
    assert (known_at <= dataset.moments.close_time[rows][:, None]).all()


def test_an_epoch_shows_every_sample_once_and_each_with_its_context():
    dataset = build_dataset(two_symbols(1500), TINY, 0.2)
    is_sample = np.zeros(len(dataset.moments), dtype=np.bool_)
    is_sample[dataset.train] = True
    generator = np.random.default_rng(0)
    batches = draw_segments(
        dataset.blocks, is_sample, length=3, context=TINY.context_blocks, per_step=2, generator=generator
    )
    rows = np.concatenate([batch.rows for batch in batches])
    assert np.array_equal(np.sort(rows), dataset.train)
    assert not any(batch.sampled[:, : TINY.context_blocks].any() for batch in batches)


def test_the_states_of_a_training_step_are_those_of_the_stream():
    """Context blocks stand in for all that came before a segment."""
    dataset = build_dataset(two_symbols(1500), TINY, 0.2)
    model = tiny_model()
    expected = np.zeros((len(dataset.moments), TINY.d_model), dtype=np.float32)
    for blocks in dataset.blocks:
        present = blocks.rows >= 0
        expected[blocks.rows[present]] = encode_blocks(model.encoder, blocks)[0][present]
    is_sample = np.zeros(len(dataset.moments), dtype=np.bool_)
    is_sample[dataset.train] = True
    batches = draw_segments(
        dataset.blocks,
        is_sample,
        length=2,
        context=TINY.context_blocks,
        per_step=3,
        generator=np.random.default_rng(1),
    )
    encoder = model.encoder
    for batch in batches:
        blank = encoder.blank_mask(torch.from_numpy(batch.starts))
        with torch.inference_mode():
            state = encoder.initial_state(len(batch.features))
            hidden = encoder(torch.from_numpy(batch.features), state, blank=blank).hidden
        np.testing.assert_allclose(hidden[torch.from_numpy(batch.sampled)], expected[batch.rows], atol=1e-5)


class Interrupted(Exception):
    """Raised by a progress callback, as Ctrl-C would be."""


@pytest.mark.parametrize(
    ("after", "averaging"), [(1, 0.0), (2, 0.0), (4, 0.0), (5, 0.0), (6, 0.0), (7, 0.0), (3, 0.9), (6, 0.9), (7, 0.9)]
)
def test_a_training_interrupted_at_any_batch_ends_with_the_weights_of_one_that_was_not(tmp_path, after, averaging):
    """Whether the encoder learns or stands still, and whether what is kept is what learns or a mean of it."""
    series = {"AAAUSDT": random_walk(900, 1)}
    training = replace(QUICK, epochs=2, read_epochs=2, mirrored=0.3, averaging=averaging)
    steps = 0

    def interrupt(told: TrainingProgress) -> None:
        nonlocal steps
        steps += told.validation_loss is None
        if steps == after:
            raise Interrupted

    with pytest.raises(Interrupted):
        train(series, TINY, training, progress=interrupt, checkpoints=tmp_path)
    again = train(series, TINY, training, checkpoints=tmp_path)
    expected = train(series, TINY, training)
    weights, others = expected.model.state_dict(), again.model.state_dict()
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    assert again.report == expected.report
    assert list(tmp_path.iterdir()) == []


def test_a_training_goes_on_where_it_stopped_and_does_not_begin_anew(tmp_path):
    series, training = {"AAAUSDT": random_walk(900, 1)}, replace(QUICK, epochs=2)

    def interrupt(told: TrainingProgress) -> None:
        if told.epoch == 2:
            raise Interrupted

    with pytest.raises(Interrupted):
        train(series, TINY, training, progress=interrupt, checkpoints=tmp_path)
    told: list[TrainingProgress] = []
    train(series, TINY, training, progress=told.append, checkpoints=tmp_path)
    assert {progress.epoch for progress in told} == {2}


def test_what_another_training_or_a_broken_disk_left_is_not_gone_on_with(tmp_path):
    series, training = {"AAAUSDT": random_walk(900, 1)}, replace(QUICK, epochs=2)

    def interrupt(told: TrainingProgress) -> None:
        if told.epoch == 2:
            raise Interrupted

    with pytest.raises(Interrupted):
        train(series, TINY, training, progress=interrupt, checkpoints=tmp_path)
    told: list[TrainingProgress] = []
    train(series, TINY, replace(training, seed=8), progress=told.append, checkpoints=tmp_path)
    assert {progress.epoch for progress in told} == {1, 2}
    (left,) = tmp_path.iterdir()
    left.write_bytes(left.read_bytes()[:5000])
    told.clear()
    train(series, TINY, training, progress=told.append, checkpoints=tmp_path)
    assert {progress.epoch for progress in told} == {1, 2}


def test_in_read_epochs_the_encoder_stands_still_and_all_after_it_learns():
    series, training = {"AAAUSDT": random_walk(900, 1)}, replace(QUICK, epochs=2, validation_fraction=0.0)
    before, after = train(series, TINY, training), train(series, TINY, replace(training, read_epochs=2))
    assert [epoch.read_only for epoch in after.report.epochs] == [False, False, True, True]
    old, new = before.model.state_dict(), after.model.state_dict()
    same = {name for name in old if torch.equal(old[name], new[name])}
    still = {name for name in old if name.startswith("encoder.")} - {"encoder.metric.weight"}
    assert still <= same
    learned = {name for name, _ in before.model.named_parameters()} - still
    assert not learned & same


def test_the_running_mean_is_returned_and_what_learns_goes_on_as_it_would_have():
    """A single read epoch, so that no neighbour is searched by the keys of the mean."""
    series = {"AAAUSDT": random_walk(900, 1)}
    training = replace(QUICK, epochs=1, read_epochs=1, segment_blocks=1, segments_per_step=1, validation_fraction=0.0)
    plain, mean = train(series, TINY, training), train(series, TINY, replace(training, averaging=0.99))
    assert [epoch.train_loss for epoch in mean.report.epochs] == [epoch.train_loss for epoch in plain.report.epochs]
    one, other = dict(plain.model.named_parameters()), dict(mean.model.named_parameters())
    same = {name for name in one if torch.equal(one[name], other[name])}
    assert same == {name for name in one if name.startswith("encoder.")} - {"encoder.metric.weight"}


def test_what_is_validated_and_kept_is_the_running_mean():
    training = replace(QUICK, epochs=1, read_epochs=3, averaging=0.8)
    trained = train({"AAAUSDT": random_walk(900, 1)}, TINY, training)
    report = trained.report
    assert report.epochs[report.best_epoch - 1].read_only
    kept = report.epochs[report.best_epoch - 1].validation_loss
    assert report.validation.with_memory.loss == pytest.approx(kept, abs=1e-6)
    plain = train({"AAAUSDT": random_walk(900, 1)}, TINY, replace(training, averaging=0.0)).report
    assert report.epochs[0] == plain.epochs[0]
    assert report.epochs[1].validation_loss != plain.epochs[1].validation_loss


def test_read_epochs_begin_with_the_best_weights_and_are_kept_only_where_validation_gets_better():
    hasty = replace(QUICK, epochs=6, patience=2, learning_rate=0.02, read_epochs=1)
    report = train({"AAAUSDT": random_walk(900, 1)}, TINY, hasty).report
    losses = [epoch.validation_loss for epoch in report.epochs]
    assert report.epochs[-1].read_only
    assert losses.index(min(losses)) + 1 == report.best_epoch
    assert report.validation.with_memory.loss == pytest.approx(min(losses), abs=1e-6)


def test_training_searches_by_the_keys_that_trading_writes_and_learns_from_the_same():
    dataset, model = build_dataset({"AAAUSDT": random_walk(900, 1)}, TINY, 0.2), tiny_model()
    memory = SpanMemory.build(model.encoder, dataset, TINY)
    (blocks,) = dataset.blocks
    features = blocks.features.reshape(-1, TINY.n_features)[blocks.offset :][: len(dataset.moments)]
    stream = StreamingEncoder(BarKernel(model.encoder), blocks.offset).encode_series(features)
    np.testing.assert_allclose(memory.keys, stream.keys, atol=1e-5)
    rows = dataset.train[::50]
    learning = model.encoder.key_of(memory.retrieve(rows, raw=True).keys)
    torch.testing.assert_close(learning, memory.retrieve(rows).keys)


def test_keys_are_made_anew_within_an_epoch_so_that_none_gets_older_than_the_bound():
    series = {"AAAUSDT": random_walk(1500, 4)}
    small_steps = replace(QUICK, segment_blocks=1, segments_per_step=1, whitening=0.3)
    rare = train(series, TINY, small_steps).report.epochs[0].staleness
    often = train(series, TINY, replace(small_steps, refresh_steps=1)).report.epochs[0].staleness
    assert 0.0 < often < 0.5 * rare


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_training_says_so_and_uses_the_cpu(trained):
    told: list[str] = []
    series = {"AAAUSDT": random_walk(900, 1)}
    other = train(series, TINY, replace(QUICK, device="cuda"), notice=told.append)
    assert told == ["there is no GPU that this torch can use: training uses the CPU"]
    weights, others = trained.model.state_dict(), other.model.state_dict()
    assert all(torch.equal(weights[name], others[name]) for name in weights)


@pytest.mark.parametrize("output_type", [OutputType.DIRECTION, OutputType.PORTFOLIO])
def test_every_head_trains_on_bars(output_type):
    report = tiny_training(output_type=output_type).report
    assert np.isfinite(report.epochs[0].train_loss)
    assert report.validation is not None


def test_training_ends_when_validation_stops_getting_better_and_keeps_the_best_weights():
    trained = train({"AAAUSDT": random_walk(900, 1)}, TINY, replace(QUICK, epochs=12, patience=2, learning_rate=0.02))
    epochs, best = trained.report.epochs, trained.report.best_epoch
    assert len(epochs) == best + 2
    assert min(epochs, key=lambda epoch: epoch.validation_loss).epoch == best
    assert trained.report.validation.with_memory.loss == pytest.approx(epochs[best - 1].validation_loss, abs=1e-6)


def test_without_a_validation_part_the_last_epoch_is_kept():
    trained = train({"AAAUSDT": random_walk(700, 1)}, TINY, replace(QUICK, epochs=2, validation_fraction=0.0))
    assert trained.report.best_epoch == 2
    assert trained.report.validation is None
    assert trained.validation_span is None


def test_a_loss_that_is_no_number_ends_training_in_one_sentence():
    with pytest.raises(TrainingError, match="learning_rate"):
        train({"AAAUSDT": random_walk(900, 1)}, TINY, replace(QUICK, epochs=3, learning_rate=1e30))


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 0},
        {"learning_rate": 0.0},
        {"memory_dropout": 1.0},
        {"validation_fraction": 1.0},
        {"threads": 0},
        {"read_epochs": -1},
        {"precision": 2.5},
        {"key_loss": -1.0},
        {"key_pace": 0.0},
        {"averaging": 1.0, "read_epochs": 1},
        {"averaging": 0.9, "read_epochs": 0},
        {"mirrored": 0.6},
        {"refresh_steps": 0},
        {"device": "abacus"},
        {"whitening": 0.0},
        {"whitening": 1.5},
    ],
)
def test_a_training_setting_out_of_range_is_refused_by_name(change):
    with pytest.raises(TrainingError, match=rf"training\.{next(iter(change))}"):
        TrainingConfig(**change)


def test_a_random_walk_teaches_nothing():
    evaluation = tiny_training(bars=2500, seed=9).report.validation
    assert evaluation is not None
    # 340 validation bars whose targets overlap by 8: a standard error of about 0.15.
    assert abs(evaluation.with_memory.information_coefficient) < 0.4


@pytest.mark.slow
def test_noise_in_gives_nothing_out():
    """Over several random walks the mean information coefficient is within 2.6 standard errors of zero."""
    coefficients = []
    for seed in range(10):
        series = random_walk(4000, 100 + seed)
        evaluation = train({"AAAUSDT": series}, TINY, replace(QUICK, epochs=3)).report.validation
        assert evaluation is not None
        coefficients.append(
            (evaluation.with_memory.information_coefficient, evaluation.without_memory.information_coefficient)
        )
    values = np.array(coefficients)
    errors = values.std(axis=0, ddof=1) / np.sqrt(len(values))
    assert (np.abs(values.mean(axis=0)) < 2.6 * errors).all()
