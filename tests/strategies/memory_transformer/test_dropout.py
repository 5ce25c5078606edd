"""Dropout drops as many as it says, and what stays makes up for it."""

from __future__ import annotations

import pytest
import torch

from strategies.memory_transformer.dropout import Dropout


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_the_share_that_is_dropped_is_the_probability_and_the_mean_stays(probability):
    torch.manual_seed(3)
    rows = torch.ones(1001, 999)
    dropped = Dropout(probability)(rows)
    values, counts = dropped.unique(return_counts=True)
    error = (probability * (1.0 - probability) / rows.numel()) ** 0.5
    assert values.tolist() == pytest.approx([0.0, 1.0 / (1.0 - probability)], rel=1e-3)
    assert float(counts[0]) / rows.numel() == pytest.approx(probability, abs=5.0 * error)


def test_places_are_dropped_independently_of_their_neighbours():
    """Four places share one random number."""
    torch.manual_seed(4)
    gone = (Dropout(0.5)(torch.ones(400_000)) == 0.0).float() - 0.5
    for distance in (1, 2, 3, 4):
        together = float((gone[distance:] * gone[:-distance]).mean())
        assert abs(together) < 5.0 * 0.25 / len(gone) ** 0.5


def test_the_seed_of_torch_decides_and_the_gradient_goes_where_the_number_went():
    torch.manual_seed(5)
    rows = torch.full((64, 33), 2.0, requires_grad=True)
    first = Dropout(0.3)(rows)
    first.sum().backward()
    assert torch.equal(rows.grad * 2.0, first.detach())
    torch.manual_seed(5)
    assert torch.equal(Dropout(0.3)(rows), first)
    assert not torch.equal(Dropout(0.3)(rows), first)


def test_in_evaluation_mode_and_with_nothing_to_drop_all_stays():
    rows = torch.randn(5, 7)
    assert Dropout(0.5).eval()(rows) is rows
    assert Dropout(0.0)(rows) is rows


def test_almost_everything_dropped_leaves_numbers():
    assert torch.isfinite(Dropout(0.9999999)(torch.ones(10_000))).all()
