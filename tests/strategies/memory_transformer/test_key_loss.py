"""The key objective: it is smallest where near keys mean alike outcomes, and it compares nothing that overlaps."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from strategies.memory_transformer.key_loss import key_loss, weighted_crps
from strategies.memory_transformer.shrinkage import crps

SCALE = torch.tensor(10.0)


def everyone(count: int) -> torch.Tensor:
    return torch.arange(count)


def test_the_score_of_weighted_samples_is_that_of_the_memory_s_read_out():
    generator = np.random.default_rng(0)
    values, outcome = generator.standard_normal(30), generator.standard_normal(5)
    weights = generator.dirichlet(np.ones(30), size=5)
    expected = crps(np.tile(values, (5, 1)), weights, outcome).mean()
    found = weighted_crps(*map(torch.from_numpy, (values, weights, outcome)))
    np.testing.assert_allclose(float(found), expected)


def test_keys_that_tell_outcomes_apart_cost_less_than_keys_that_do_not():
    generator = torch.Generator().manual_seed(1)
    classes = torch.arange(64) % 4
    outcomes = (classes.float() - 1.5 + 0.1 * torch.randn(64, generator=generator)).unsqueeze(1)
    telling = F.normalize(F.one_hot(classes, 4).float() + 0.05 * torch.randn(64, 4, generator=generator), dim=1)
    silent = F.normalize(torch.randn(64, 4, generator=generator), dim=1)
    apart = ~torch.eye(64, dtype=torch.bool)
    losses = [float(key_loss(keys, keys, apart, outcomes, everyone(64), SCALE)) for keys in (telling, silent)]
    assert losses[0] < 0.5 * losses[1]


def test_descending_it_brings_bars_of_alike_outcomes_together():
    generator = torch.Generator().manual_seed(2)
    outcomes = torch.where(torch.arange(40) % 2 == 0, 1.0, -1.0).unsqueeze(1)
    rows = torch.randn(40, 8, generator=generator, requires_grad=True)
    apart = ~torch.eye(40, dtype=torch.bool)
    optimizer = torch.optim.Adam([rows], lr=0.05)
    losses = []
    for _ in range(200):
        keys = F.normalize(rows, dim=1)
        optimizer.zero_grad()
        loss = key_loss(keys, keys, apart, outcomes, everyone(40), SCALE)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.2 * losses[0]
    keys = F.normalize(rows.detach(), dim=1)
    nearest = (keys @ keys.T - 2.0 * torch.eye(40)).argmax(dim=1)
    assert (outcomes[nearest] == outcomes).float().mean() > 0.9


def test_what_overlaps_has_no_say():
    """A bar whose only look-alike overlaps with it is forecast by the others."""
    keys = F.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.01], [0.0, 1.0]]), dim=1)
    apart = torch.tensor([[False, False, True], [False, False, True], [True, True, False]])
    loss = key_loss(keys[:1], keys, apart[:1], torch.tensor([[5.0], [5.0], [0.0]]), torch.tensor([0]), SCALE)
    assert float(loss) == 5.0


def test_bars_without_anyone_to_compare_with_cost_nothing():
    keys = F.normalize(torch.randn(3, 4), dim=1).requires_grad_()
    loss = key_loss(keys, keys, torch.zeros(3, 3, dtype=torch.bool), torch.ones(3, 1), everyone(3), SCALE)
    loss.backward()
    assert float(loss.detach()) == 0.0
