"""Compiled, the memory read and the heads say what the model says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.memory_transformer.config import OutputType
from strategies.memory_transformer.losses import signed_view
from strategies.memory_transformer.memory_read import Retrieved, fact_count
from strategies.memory_transformer.read_kernel import ReadKernel
from tests.strategies.memory_transformer.tiny import TINY, tiny_model

ROWS = 5


@pytest.mark.parametrize("output_type", list(OutputType))
@pytest.mark.parametrize("linear_window", [0, 8])
def test_it_says_what_the_model_says_for_any_states_and_any_neighbours(output_type, linear_window):
    model = tiny_model(output_type=output_type, linear_window=linear_window)
    with torch.no_grad():
        for buffer in (model.key_head, model.memory_read.outcomes.usual):
            if buffer is not None:
                buffer.normal_(generator=torch.Generator().manual_seed(1))
    read = ReadKernel(model, TINY.n_neighbors)

    @settings(max_examples=20, deadline=None)
    @given(seed=st.integers(0, 2**16), share=st.sampled_from([0.0, 0.3, 1.0]), size=st.sampled_from([0.1, 1.0, 5.0]))
    def says_the_same(seed: int, share: float, size: float) -> None:
        random = torch.Generator().manual_seed(seed)
        hidden = size * torch.randn(ROWS, TINY.d_model, generator=random)
        query = torch.nn.functional.normalize(torch.randn(ROWS, TINY.d_model, generator=random))
        keys = torch.randn(ROWS, TINY.n_neighbors, TINY.d_model, generator=random)
        keys = torch.nn.functional.normalize(keys, dim=2)
        facts = torch.randn(ROWS, TINY.n_neighbors, fact_count(len(TINY.horizons)), generator=random).abs()
        mask = torch.rand(ROWS, TINY.n_neighbors, generator=random) < share
        facts[~mask] = 7.0
        with torch.inference_mode():
            wanted = model.double()(hidden.double(), query.double(), Retrieved(keys.double(), facts.double(), mask))
            model.float()
        likeness = torch.einsum("nd,nkd->nk", query.double(), keys.double())
        told = read(*(part.numpy() for part in (hidden, query, keys, likeness, facts, mask)))
        close = {"rtol": 1e-3, "atol": 1e-4 * max(1.0, size)}
        np.testing.assert_allclose(told.predictions, signed_view(wanted.prediction, model.config), **close)
        np.testing.assert_allclose(told.quantiles, wanted.distribution.quantiles, **close)
        np.testing.assert_allclose(told.log_volatilities, wanted.distribution.log_volatility, **close)
        np.testing.assert_allclose(told.weights, wanted.weights, **close)
        np.testing.assert_allclose(told.gates, wanted.gate, **close)

    says_the_same()
