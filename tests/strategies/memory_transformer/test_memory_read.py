"""The memory read: shut, empty, full, and what it makes of a perfect match."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from strategies.memory_transformer.config import OutputType
from strategies.memory_transformer.losses import forecast_loss
from strategies.memory_transformer.memory_read import (
    OUTCOME_LIMIT,
    MemoryRead,
    Retrieved,
    describe,
    fact_count,
    mirrored,
)
from strategies.memory_transformer.model import MemoryTransformer
from strategies.memory_transformer.targets import Targets
from tests.strategies.memory_transformer.tiny import TINY, tiny_model

K, D, FACTS = TINY.n_neighbors, TINY.d_model, fact_count(len(TINY.horizons))


def batch(size: int = 5, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, Retrieved]:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(size, D, generator=generator)
    query = F.normalize(torch.randn(size, D, generator=generator), dim=1)
    keys = F.normalize(torch.randn(size, K, D, generator=generator), dim=2)
    facts = torch.randn(size, K, FACTS, generator=generator)
    return hidden, query, Retrieved(keys, facts, torch.ones(size, K, dtype=torch.bool))


@pytest.mark.parametrize("output_type", list(OutputType))
def test_the_gate_shut_gives_exactly_the_model_without_memory(output_type):
    model = tiny_model(output_type=output_type)
    hidden, query, retrieved = batch()
    shut = model(hidden, query, retrieved, force_gate=0.0)
    alone = model.without_memory(hidden, query)
    assert torch.equal(shut.prediction, alone.prediction)
    assert torch.equal(shut.distribution.quantiles, alone.distribution.quantiles)
    assert torch.equal(shut.distribution.log_volatility, alone.distribution.log_volatility)
    assert torch.equal(shut.gate, torch.zeros(5))
    assert not torch.equal(model(hidden, query, retrieved).prediction, shut.prediction)


def test_an_empty_memory_is_the_null_entry_whatever_lies_in_the_masked_rows():
    model = tiny_model()
    hidden, query, retrieved = batch()
    empty = torch.zeros_like(retrieved.mask)
    one = model(hidden, query, retrieved._replace(mask=empty))
    other = model(hidden, query, Retrieved(torch.zeros(5, K, D), torch.full((5, K, FACTS), 3.0), empty))
    assert torch.equal(one.prediction, other.prediction)
    assert torch.equal(one.gate, other.gate)
    assert torch.equal(one.weights, torch.zeros(5, K))
    read = model.memory_read
    reading = read(hidden, query, retrieved._replace(mask=empty))
    mixed = hidden + reading.gate.unsqueeze(1) * read.output(read.null_value)
    torch.testing.assert_close(reading.hidden, mixed)


def test_masked_rows_change_nothing():
    model = tiny_model()
    hidden, query, retrieved = batch()
    mask = torch.arange(K).expand(5, K) < 3
    padded = model(hidden, query, retrieved._replace(mask=mask))
    other = Retrieved(retrieved.keys.clone(), retrieved.facts.clone(), mask)
    other.keys[:, 3:] = 0.5
    other.facts[:, 3:] = -9.0
    assert torch.equal(padded.prediction, model(hidden, query, other).prediction)
    assert torch.equal(padded.weights[:, 3:], torch.zeros(5, K - 3))


def test_the_order_of_neighbours_does_not_matter():
    model = tiny_model()
    hidden, query, retrieved = batch()
    order = torch.randperm(K, generator=torch.Generator().manual_seed(1))
    shuffled = Retrieved(retrieved.keys[:, order], retrieved.facts[:, order], retrieved.mask)
    one, other = model(hidden, query, retrieved), model(hidden, query, shuffled)
    torch.testing.assert_close(one.prediction, other.prediction)
    torch.testing.assert_close(one.weights[:, order], other.weights)


def test_weights_and_the_null_entry_sum_to_one():
    weights = tiny_model()(*batch()).weights
    assert ((weights >= 0.0) & (weights <= 1.0)).all()
    assert (weights.sum(dim=1) <= 1.0 + 1e-6).all()


def test_an_exact_match_among_strangers_gets_more_than_half_of_the_vote():
    """A softmax of cosines at temperature 1 would give it about 1 / 32."""
    read = MemoryRead(replace(TINY, n_neighbors=32, d_model=64))
    generator = torch.Generator().manual_seed(0)
    keys = F.normalize(torch.randn(1, 32, 64, generator=generator), dim=2)
    retrieved = Retrieved(keys, torch.zeros(1, 32, FACTS), torch.ones(1, 32, dtype=torch.bool))
    reading = read(torch.zeros(1, 64), keys[:, 5], retrieved)
    assert reading.weights[0, 5] > 0.5


@pytest.mark.parametrize("gate_bias", [2.0, 0.0, -1.0])
def test_the_gate_starts_where_the_configuration_puts_it(gate_bias):
    model = MemoryTransformer(replace(TINY, gate_bias=gate_bias)).eval()
    gate = model(*batch()).gate
    torch.testing.assert_close(gate, torch.sigmoid(torch.full((5,), -gate_bias)))


@pytest.mark.parametrize("output_type", list(OutputType))
def test_one_step_with_memory_moves_every_parameter(output_type):
    """Retrieval is trained: metric, scale, null entry and encoder all get a gradient."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MemoryTransformer(replace(TINY, output_type=output_type))
        features = torch.randn(1, 2, TINY.block, TINY.n_features)
        encoding = model.encoder(features, model.encoder.initial_state())
        hidden, query = encoding.hidden[0, 1, :40], encoding.keys[0, 1, :40]
        forecast = model(hidden, query, batch(40)[2])
        returns = torch.randn(40, len(TINY.horizons))
        targets = Targets(
            returns[:, TINY.primary],
            torch.full((40,), 0.02),
            returns,
            torch.randn(40, len(TINY.horizons)),
            torch.ones(40, len(TINY.horizons), dtype=torch.bool),
        )
        forecast_loss(forecast, targets, model.config, cost=0.0005).backward()
    still = [name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    assert still == []
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


def test_in_the_mirror_the_returns_of_neighbours_change_sign_and_nothing_else_does():
    retrieved = batch()[2]
    horizons = len(TINY.horizons)
    sign = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0])
    seen = mirrored(retrieved, sign, horizons)
    assert torch.equal(seen.facts[:, :, :horizons], retrieved.facts[:, :, :horizons] * sign[:, None, None])
    assert torch.equal(seen.facts[:, :, horizons:], retrieved.facts[:, :, horizons:])
    assert torch.equal(seen.keys, retrieved.keys)


def test_gradients_stay_finite_where_the_memory_is_empty():
    model = tiny_model()
    hidden, query, retrieved = batch()
    mask = torch.arange(5).unsqueeze(1).expand(5, K) > 2
    model(hidden, query, retrieved._replace(mask=mask)).prediction.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_an_outcome_that_is_not_known_is_zero_and_says_so():
    outcomes = np.array([[0.02, np.nan, -9.0]])
    facts = describe(outcomes, np.array([10.0]), np.array([0.01, 0.02, 0.03]))
    mild = np.array([[0.02, np.nan, -0.01]])
    twice = describe(2.0 * mild, np.array([10.0]), np.array([0.02, 0.04, 0.06]))
    assert np.array_equal(twice, describe(mild, np.array([10.0]), np.array([0.01, 0.02, 0.03])))
    np.testing.assert_allclose(facts[0, :3], [2.0, 0.0, -OUTCOME_LIMIT])
    np.testing.assert_allclose(facts[0, 3:6], [2.0, 0.0, OUTCOME_LIMIT])
    np.testing.assert_allclose(facts[0, 6:9], [1.0, 0.0, 1.0])
    assert facts.shape == (1, fact_count(3))
    assert facts.dtype == np.float32


def riddle(size: int, generator: torch.Generator) -> tuple[torch.Tensor, Retrieved, torch.Tensor]:
    """Two kinds of neighbours per bar, each kind with one outcome drawn anew: only the memory knows which is which."""
    kinds = F.normalize(torch.randn(size, 2, D, generator=generator), dim=2)
    signs = torch.randint(0, 2, (size, 2), generator=generator) * 2.0 - 1.0
    kind = torch.randint(0, 2, (size, K), generator=generator)
    noise = 0.1 * torch.randn(size, K, D, generator=generator)
    keys = F.normalize(kinds.gather(1, kind.unsqueeze(2).expand(-1, -1, D)) + noise, dim=2)
    outcomes = signs.gather(1, kind) + 0.5 * torch.randn(size, K, generator=generator)
    facts = torch.zeros(size, K, FACTS)
    facts[:, :, TINY.primary] = outcomes
    mask = torch.ones(size, K, dtype=torch.bool)
    return kinds[:, 0], Retrieved(keys, facts, mask), signs[:, 0]


def test_what_only_the_memory_can_know_is_read_from_it():
    """Weights learned on some signs read others from the outcomes of the neighbours that are alike, and of no others."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MemoryTransformer(replace(TINY, dropout=0.0))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(150):
        query, retrieved, target = riddle(128, generator)
        loss = F.mse_loss(model(torch.zeros_like(query), query, retrieved).prediction[:, 0], target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    query, retrieved, target = riddle(1000, generator)
    hidden = torch.zeros_like(query)
    with torch.inference_mode():
        known = model(hidden, query, retrieved).prediction[:, 0]
        shut = model(hidden, query, retrieved, force_gate=0.0).prediction[:, 0]
        dealt = retrieved._replace(facts=retrieved.facts[torch.randperm(1000, generator=generator)])
        shuffled = model(hidden, query, dealt).prediction[:, 0]
    assert (known.sign() == target.sign()).float().mean() > 0.85
    assert abs((shut.sign() == target.sign()).float().mean() - 0.5) < 0.06
    assert abs((shuffled.sign() == target.sign()).float().mean() - 0.5) < 0.06
