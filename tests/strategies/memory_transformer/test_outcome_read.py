"""The direct way from remembered outcomes to the forecast."""

from __future__ import annotations

from math import log

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest.synthetic.optimum import posterior_mean
from strategies.memory_transformer.config import OutputType
from strategies.memory_transformer.dataset import build_dataset
from strategies.memory_transformer.evaluation import forecast_rows
from strategies.memory_transformer.memory_read import Retrieved, describe
from strategies.memory_transformer.model import MemoryTransformer
from strategies.memory_transformer.outcome_read import OutcomeRead
from strategies.memory_transformer.span_memory import SpanMemory
from tests.strategies.markets import random_walk
from tests.strategies.memory_transformer.tiny import TINY, tiny_model

HORIZONS = len(TINY.horizons)
STATE = torch.zeros(1, TINY.d_model)


def facts_of(outcomes: np.ndarray) -> torch.Tensor:
    """As the model takes outcomes ``[k, horizons]`` that are in the asker's own unit."""
    return torch.from_numpy(describe(outcomes[None], np.full((1, len(outcomes)), 50.0), np.ones(HORIZONS)))


def untrained(seed: int = 0) -> OutcomeRead:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return OutcomeRead(TINY.d_model, HORIZONS, 14.0, 0.75, common=True)


def trained_to(**numbers: float) -> OutcomeRead:
    """One whose five numbers are these whatever the state; those not named are as at the start."""
    read = untrained()
    start = {"sharpness": log(14.0), "threshold": 0.75, "patience": 0.0, "trust": 0.0, "bound": 0.0}
    with torch.no_grad():
        read.belief.weight.zero_()
        values = torch.tensor(list((start | numbers).values()))
        read.belief.bias.copy_(torch.cat((values[:2], values[2:].repeat_interleave(HORIZONS))))
    return read


def said_of(read: OutcomeRead, similarity: list[float], outcomes: np.ndarray) -> np.ndarray:
    """Returns ``[horizons]`` that a bar hears of neighbours as similar as this, followed by these outcomes."""
    cosines = torch.tensor([similarity])
    shares, mask = torch.softmax(14.0 * cosines, dim=1), torch.ones(1, len(similarity), dtype=torch.bool)
    returns: np.ndarray = read(STATE, cosines, shares, facts_of(outcomes), mask).returns[0].detach().numpy()
    return returns


def test_it_starts_by_repeating_about_what_followed():
    outcomes = np.array([[0.2, -0.3, 0.5], [0.1, -0.2, 0.1]])
    said = said_of(untrained(), [1.0, 1.0], outcomes)
    assert said == pytest.approx(outcomes.sum(axis=0) * 2.0 / 3.0, rel=0.25)


def test_strangers_count_for_nothing_be_they_as_many_as_they_like():
    """A softmax shares its vote among whoever is there, so thirty strangers were believed like thirty witnesses."""
    read = trained_to(sharpness=log(60.0))
    once, often = np.full((1, HORIZONS), 0.4), np.full((30, HORIZONS), 0.4)
    assert (np.abs(said_of(read, [0.5] * 30, often)) < 1e-4).all()
    assert (said_of(read, [0.99], once) > 0.2).all()
    crowd = np.concatenate((once, -often))
    assert said_of(read, [0.99, *[0.5] * 30], crowd) == pytest.approx(said_of(read, [0.99], once), rel=1e-3)


@pytest.mark.parametrize("number", [1, 2, 4, 8])
def test_patient_evidence_adds_up_and_impatient_is_a_mean(number):
    outcomes = np.full((number, HORIZONS), 0.01)
    patient = said_of(trained_to(sharpness=log(60.0), patience=100.0), [1.0] * number, outcomes)
    hasty = said_of(trained_to(sharpness=log(60.0), patience=-100.0), [1.0] * number, outcomes)
    assert patient == pytest.approx(np.full(HORIZONS, 0.01 * number), rel=0.15)
    assert hasty == pytest.approx(np.full(HORIZONS, 0.01), rel=0.05)


def test_the_best_belief_in_two_opposite_hypotheses_is_one_of_its_forms():
    """``drift * tanh(drift * sum / noise**2)``: the posterior mean of a planted motif."""
    drift, noise = 0.4, 0.4
    read = trained_to(sharpness=log(200.0), patience=100.0, trust=log(drift**2 / noise**2), bound=log(drift))
    for outcomes in ([0.5], [0.3, -0.1], [0.6, 0.2, 0.5], [-0.2, -0.5]):
        said = said_of(read, [1.0] * len(outcomes), np.repeat(np.array(outcomes)[:, None], HORIZONS, axis=1))
        assert said == pytest.approx(np.full(HORIZONS, posterior_mean(sum(outcomes), drift, noise)), rel=0.05)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), missing=st.floats(0.0, 0.9))
def test_it_never_says_the_opposite_of_what_followed(seed, missing):
    """Whatever its weights: trust has no sign, so a memory whose witnesses agree is never contradicted."""
    random = np.random.default_rng(seed)
    read = untrained()
    with torch.no_grad():
        for parameter in read.parameters():
            parameter.add_(torch.from_numpy(random.standard_normal(tuple(parameter.shape)).astype(np.float32)))
    hidden = torch.from_numpy(random.standard_normal((1, TINY.d_model)).astype(np.float32))
    signs = random.choice([-1.0, 1.0], HORIZONS)
    outcomes = np.where(
        random.random((6, HORIZONS)) < missing, np.nan, signs * np.abs(random.normal(size=(6, HORIZONS)))
    )
    shares = torch.from_numpy(random.dirichlet(np.ones(7))[None, :6].astype(np.float32))
    cosines, mask = torch.from_numpy(random.uniform(-1.0, 1.0, (1, 6)).astype(np.float32)), torch.ones(1, 6).bool()
    said = read(hidden, cosines, shares, facts_of(outcomes), mask).returns[0].detach().numpy()
    assert (said * signs >= 0.0).all()
    other = read(hidden, cosines, shares, facts_of(-outcomes), mask).returns[0].detach().numpy()
    assert other == pytest.approx(-said, abs=1e-5)


def test_neighbours_that_were_followed_by_much_let_expect_much():
    read, cosines, mask = untrained(), torch.ones(1, 8), torch.ones(1, 8, dtype=torch.bool)
    shares = torch.full((1, 8), 1.0 / 8.0)
    noise = np.random.default_rng(0).standard_normal((8, HORIZONS))
    wild, calm = (read(STATE, cosines, shares, facts_of(size * noise), mask) for size in (3.0, 0.3))
    assert (wild.log_volatility > 0.5).all()
    assert (calm.log_volatility < -0.5).all()


def test_what_is_common_is_a_linear_map_of_the_mean_of_what_followed():
    """Where none is the same as the asker, those that are believed one by one are silent and the map still hears all."""
    read = trained_to(sharpness=log(200.0), threshold=0.9)
    weights = np.random.default_rng(1).standard_normal((HORIZONS, HORIZONS))
    outcomes = np.random.default_rng(2).standard_normal((5, HORIZONS))
    assert said_of(read, [0.5] * 5, outcomes) == pytest.approx(np.zeros(HORIZONS), abs=1e-5)
    assert read.usual is not None
    read.usual.copy_(torch.from_numpy(weights))
    assert said_of(read, [0.5] * 5, outcomes) == pytest.approx(weights @ outcomes.mean(axis=0), rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("output_type", list(OutputType))
def test_what_followed_moves_head_quantiles_and_volatility_as_far_as_the_gate_is_open(output_type):
    model = tiny_model(output_type=output_type)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(3, TINY.d_model, generator=generator)
    keys = F.normalize(torch.randn(3, 4, TINY.d_model, generator=generator), dim=2)
    outcomes = np.random.default_rng(0).standard_normal((3, 4, HORIZONS))
    facts = torch.from_numpy(describe(outcomes, np.full((3, 4), 50.0), np.ones((3, HORIZONS))))
    retrieved = Retrieved(keys, facts, torch.ones(3, 4, dtype=torch.bool))
    with torch.no_grad():
        model.memory_read.output.weight.zero_()  # the mixture says nothing, so all that is seen is the direct way
        forecast, alone = model(hidden, keys[:, 0], retrieved), model.without_memory(hidden, keys[:, 0])
        similarity = torch.bmm(keys, keys[:, 0].unsqueeze(2)).squeeze(2)
        direct = model.memory_read.outcomes(hidden, similarity, forecast.weights, facts, retrieved.mask)
        said = direct.gated(forecast.gate.unsqueeze(1))
    moved = forecast.distribution.quantiles - alone.distribution.quantiles
    torch.testing.assert_close(moved, said.returns.unsqueeze(2).expand_as(moved), rtol=1e-4, atol=1e-5)
    louder = forecast.distribution.log_volatility - alone.distribution.log_volatility
    torch.testing.assert_close(louder, said.log_volatility, rtol=1e-4, atol=1e-5)
    lean = said.returns[:, TINY.primary]
    if output_type is OutputType.REGRESSION:
        torch.testing.assert_close(forecast.prediction[:, 0] - alone.prediction[:, 0], lean, rtol=1e-4, atol=1e-5)
    elif output_type is OutputType.PATH:
        torch.testing.assert_close(forecast.prediction - alone.prediction, said.returns, rtol=1e-4, atol=1e-5)
    elif output_type is OutputType.DIRECTION:
        logits = forecast.prediction - alone.prediction
        torch.testing.assert_close(logits[:, 2] - logits[:, 0], 2.0 * lean, rtol=1e-4, atol=1e-5)
    else:
        position = torch.atanh(forecast.prediction[:, 0]) - torch.atanh(alone.prediction[:, 0])
        torch.testing.assert_close(position, lean, rtol=1e-3, atol=1e-4)


def test_an_empty_memory_adds_nothing():
    """Whatever lies in the masked rows."""
    facts = torch.full((2, 5, 3 * HORIZONS + 1), 3.0)
    mask = torch.zeros(2, 5, dtype=torch.bool)
    said = untrained()(torch.zeros(2, TINY.d_model), torch.ones(2, 5), torch.zeros(2, 5), facts, mask)
    assert torch.equal(said.returns, torch.zeros(2, HORIZONS))
    assert torch.equal(said.log_volatility, torch.zeros(2, HORIZONS))


def test_copying_what_followed_is_learned_in_a_few_steps():
    """Outcomes that only memory knows, under noise of their own size: the direct way needs no thousand of steps."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MemoryTransformer(TINY).eval()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for _ in range(60):
            query, retrieved, target = _echo(256)
            loss = F.mse_loss(model(query, query, retrieved).prediction[:, 0], target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        query, retrieved, target = _echo(4000)
        with torch.inference_mode():
            error = F.mse_loss(model(query, query, retrieved).prediction[:, 0], target)
    # A mean of four outcomes with noise as large as themselves explains 0.4 of the next one.
    assert 1.0 - float(error / target.square().mean()) > 0.9 * 0.4


def _echo(size: int) -> tuple[torch.Tensor, Retrieved, torch.Tensor]:
    """Four neighbours like the asker and four unlike it; what follows is that of the alike, noise added to each."""
    query = F.normalize(torch.randn(size, TINY.d_model), dim=1)
    alike = F.normalize(query.unsqueeze(1) + 0.1 * torch.randn(size, 4, TINY.d_model), dim=2)
    unlike = F.normalize(torch.randn(size, 4, TINY.d_model), dim=2)
    lean, other = torch.randn(size, 1), torch.randn(size, 4)
    outcomes = torch.cat((lean + torch.randn(size, 4), other), dim=1)
    facts = torch.zeros(size, 8, 3 * HORIZONS + 1)
    facts[:, :, TINY.primary] = outcomes
    facts[:, :, HORIZONS + TINY.primary] = outcomes.abs()
    facts[:, :, 2 * HORIZONS : 3 * HORIZONS] = 1.0
    retrieved = Retrieved(torch.cat((alike, unlike), dim=1), facts, torch.ones(size, 8, dtype=torch.bool))
    return query, retrieved, lean[:, 0] + torch.randn(size)


def test_what_was_not_known_yet_is_not_repeated():
    """Outcomes that settle after a bar's close may be anything: its forecast keeps every bit."""
    dataset = build_dataset({"AAAUSDT": random_walk(900, 3)}, TINY, 0.15)
    moments, rows = dataset.moments, dataset.validation
    model = tiny_model()
    memory = SpanMemory.build(model.encoder, dataset, TINY)
    cut = int(moments.close_time[rows[len(rows) // 2]])
    early = rows[moments.close_time[rows] <= cut]
    later = moments.settled > cut
    assert later[: early[-1]].any()
    changed = np.where(later, 100.0, moments.outcomes)
    one, other = forecast_rows(model, memory, early), forecast_rows(model, memory, early, outcomes=changed)
    assert torch.equal(one.prediction, other.prediction)
    assert torch.equal(one.distribution.quantiles, other.distribution.quantiles)
    assert torch.equal(one.distribution.log_volatility, other.distribution.log_volatility)
