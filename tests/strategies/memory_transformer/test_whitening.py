"""Whitening spreads keys that crowd into a cone."""

from __future__ import annotations

import numpy as np
import torch

from strategies.memory_transformer.whitening import SHRINKAGE, Whitening, anisotropy


def crowded_states(count: int = 2000, dimension: int = 8) -> np.ndarray:
    """A large common part, and most of the variance in two directions."""
    generator = np.random.default_rng(0)
    spread = np.diag([3.0, 2.0] + [0.1] * (dimension - 2))
    return (5.0 + generator.normal(size=(count, dimension)) @ spread).astype(np.float32)


def test_whitened_states_are_centred_and_without_correlation():
    states = crowded_states()
    whitening = Whitening(8)
    whitening.fit(states)
    whitened = (states.astype(np.float64) - whitening.mean.numpy()) @ whitening.matrix.numpy()
    covariance = np.cov(whitened.T)
    np.testing.assert_allclose(whitened.mean(axis=0), 0.0, atol=1e-3)
    np.testing.assert_allclose(covariance - np.diag(np.diag(covariance)), 0.0, atol=0.05)
    assert np.diag(covariance).max() <= 1.0 / (1.0 - SHRINKAGE) + 0.01


def test_keys_are_spread_out_where_states_were_all_alike():
    states = crowded_states()
    whitening = Whitening(8)
    whitening.fit(states)
    keys = whitening(torch.from_numpy(states)).numpy()
    alike = states / np.linalg.norm(states, axis=1, keepdims=True)
    assert anisotropy(alike) > 0.8
    assert abs(anisotropy(keys)) < 0.05


def test_states_that_are_all_the_same_do_not_break_the_fit():
    whitening = Whitening(4)
    whitening.fit(np.ones((10, 4), dtype=np.float32))
    assert torch.isfinite(whitening(torch.randn(3, 4))).all()


def test_anisotropy_is_one_for_equal_keys_and_the_mean_cosine_of_pairs_otherwise():
    generator = np.random.default_rng(1)
    keys = generator.normal(size=(20, 5)).astype(np.float32)
    keys /= np.linalg.norm(keys, axis=1, keepdims=True)
    cosines = keys @ keys.T
    pairs = cosines[~np.eye(20, dtype=bool)]
    np.testing.assert_allclose(anisotropy(keys), pairs.mean(), atol=1e-6)
    np.testing.assert_allclose(anisotropy(np.repeat(keys[:1], 5, axis=0)), 1.0, atol=1e-6)
