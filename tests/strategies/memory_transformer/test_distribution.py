"""The distribution head: it begins with what is known, cannot contradict itself, and learns what comes."""

from __future__ import annotations

from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.memory_transformer.dataset import build_dataset
from strategies.memory_transformer.distribution import DistributionHead, pinball_losses
from strategies.memory_transformer.targets import targets_of
from strategies.outcomes import realised_volatility_matrix
from strategies.readout import QUANTILES
from tests.strategies.markets import random_walk
from tests.strategies.memory_transformer.tiny import TINY, tiny_model


def test_an_untrained_head_expects_the_normal_distribution_and_the_trailing_volatility():
    head = DistributionHead(TINY)
    with torch.no_grad():
        head.projection.weight.zero_()
        said = head(torch.randn(3, TINY.d_model))
    levels = torch.tensor([NormalDist().inv_cdf(probability) for probability in QUANTILES])
    torch.testing.assert_close(said.quantiles, levels.expand(3, len(TINY.horizons), -1), atol=1e-5, rtol=0.0)
    assert not said.log_volatility.any()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.floats(0.1, 100.0))
def test_quantiles_never_cross_whatever_the_states(seed, size):
    rows = size * torch.randn(20, TINY.d_model, generator=torch.Generator().manual_seed(seed))
    quantiles = tiny_model().distribution(rows).quantiles
    assert (quantiles.diff(dim=-1) >= 0.0).all()


def test_the_quantile_loss_is_smallest_at_the_quantiles():
    outcomes = torch.randn(20_000, generator=torch.Generator().manual_seed(0))
    levels = torch.tensor([NormalDist().inv_cdf(probability) for probability in QUANTILES])
    best = float(pinball_losses(levels.expand(20_000, -1), outcomes).mean())
    for change in (levels + 0.1, levels - 0.1, levels * 1.2, levels * 0.8):
        assert float(pinball_losses(change.expand(20_000, -1), outcomes).mean()) > best


def test_realised_volatility_is_the_root_of_the_squares_to_come():
    close = np.array([100.0, 101.0, 99.0, 99.0, 103.0])
    steps = np.diff(np.log(close))
    volatility = realised_volatility_matrix(close, (1, 3))
    np.testing.assert_allclose(volatility[:4, 0], np.abs(steps))
    np.testing.assert_allclose(volatility[:2, 1], [np.sqrt((steps[:3] ** 2).sum()), np.sqrt((steps[1:] ** 2).sum())])
    assert np.isnan(volatility[4:, 0]).all()
    assert np.isnan(volatility[2:, 1]).all()
    assert np.isnan(realised_volatility_matrix(close[:2], (1, 3))[:, 1]).all()


def test_bars_after_the_horizon_do_not_change_what_a_bar_is_trained_towards():
    series = random_walk(900, 3)
    changed = replace(series, close=series.close.copy(), high=series.high * 1.5)
    changed.close[700:] *= 1.3
    config = replace(TINY, embargo=0)
    moments = [build_dataset({"AAAUSDT": each}, config, 0.0).moments for each in (series, changed)]
    before, after = [targets_of(each, config) for each in moments]
    unharmed = slice(0, 700 - TINY.horizons[-1])
    for name in ("returns", "log_realised", "known"):
        assert torch.equal(getattr(before, name)[unharmed], getattr(after, name)[unharmed])
    assert not torch.equal(before.returns, after.returns)


def test_targets_are_in_units_of_the_volatility_that_was_to_be_expected():
    moments = build_dataset({"AAAUSDT": random_walk(900, 3)}, TINY, 0.2).moments
    targets = targets_of(moments, TINY)
    row = 600
    for place, horizon in enumerate(TINY.horizons):
        unit = moments.volatility[row] * (horizon / TINY.primary_horizon) ** 0.5
        assert float(targets.returns[row, place]) == pytest.approx(moments.outcomes[row, place] / unit, rel=1e-5)
        assert float(targets.log_realised[row, place]) == pytest.approx(
            max(np.log(0.05), np.log(moments.realised[row, place] / unit)), abs=1e-5
        )
    assert not targets.known[-1].any()
    assert not targets.returns[-1].any()
