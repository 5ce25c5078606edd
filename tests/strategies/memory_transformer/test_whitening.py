"""Whitening spreads keys that crowd into a cone."""

from __future__ import annotations

import numpy as np
import torch

from strategies.memory_transformer.whitening import Whitening, anisotropy, directions


def crowded_states(count: int = 2000, dimension: int = 8) -> np.ndarray:
    """A large common part, and most of the variance in two directions."""
    generator = np.random.default_rng(0)
    spread = np.diag([3.0, 2.0] + [0.1] * (dimension - 2))
    return (5.0 + generator.normal(size=(count, dimension)) @ spread).astype(np.float32)


def test_whitened_states_are_centred_and_without_correlation():
    states = crowded_states()
    whitening = Whitening(8)
    whitening.fit(states, 0.1)
    whitened = (states.astype(np.float64) - whitening.mean.numpy()) @ whitening.matrix.numpy()
    covariance = np.cov(whitened.T)
    np.testing.assert_allclose(whitened.mean(axis=0), 0.0, atol=1e-3)
    np.testing.assert_allclose(covariance - np.diag(np.diag(covariance)), 0.0, atol=0.05)
    assert np.diag(covariance).max() <= 1.0 / 0.9 + 0.01


def test_keys_are_spread_out_where_states_were_all_alike():
    states = crowded_states()
    whitening = Whitening(8)
    whitening.fit(states, 0.1)
    keys = whitening(torch.from_numpy(states)).numpy()
    alike = states / np.linalg.norm(states, axis=1, keepdims=True)
    assert anisotropy(alike) > 0.8
    assert abs(anisotropy(keys)) < 0.05


def test_states_that_are_all_the_same_do_not_break_the_fit():
    whitening = Whitening(4)
    whitening.fit(np.ones((10, 4), dtype=np.float32), 0.1)
    assert torch.isfinite(whitening(torch.randn(3, 4))).all()


def test_anisotropy_is_one_for_equal_keys_and_the_mean_cosine_of_pairs_otherwise():
    generator = np.random.default_rng(1)
    keys = generator.normal(size=(20, 5)).astype(np.float32)
    keys /= np.linalg.norm(keys, axis=1, keepdims=True)
    cosines = keys @ keys.T
    pairs = cosines[~np.eye(20, dtype=bool)]
    np.testing.assert_allclose(anisotropy(keys), pairs.mean(), atol=1e-6)
    np.testing.assert_allclose(anisotropy(np.repeat(keys[:1], 5, axis=0)), 1.0, atol=1e-6)


def test_the_weaker_the_whitening_the_fewer_directions_keys_are_spread_over():
    states = crowded_states()
    counts = []
    for shrinkage in (0.001, 0.01, 0.1, 1.0):
        whitening = Whitening(8)
        whitening.fit(states, shrinkage)
        keys = whitening(torch.from_numpy(states)).numpy()
        assert abs(anisotropy(keys)) < 0.05
        counts.append(directions(keys))
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > 5.0
    assert counts[-1] < 2.1


def test_centring_alone_keeps_the_angles_of_the_centred_states():
    states = crowded_states()
    whitening = Whitening(8)
    whitening.fit(states, 1.0)
    centred = states - states.mean(axis=0)
    expected = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    np.testing.assert_allclose(whitening(torch.from_numpy(states)).numpy(), expected, atol=1e-4)


def test_directions_are_counted_by_their_shares():
    keys = np.eye(6, dtype=np.float32)
    np.testing.assert_allclose(directions(keys), 6.0)
    np.testing.assert_allclose(directions(keys[[0, 0, 0]]), 1.0)
    np.testing.assert_allclose(directions(keys[[0, 0, 0, 1]]), 1.0 / (0.75**2 + 0.25**2))
