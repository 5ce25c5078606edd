"""The recorded graph is the model."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.memory_transformer.config import OutputType
from strategies.memory_transformer.memory_read import Retrieved, fact_count
from strategies.memory_transformer.traced import traced
from tests.strategies.memory_transformer.tiny import TINY, tiny_model

ROWS = 16


@pytest.mark.parametrize("output_type", list(OutputType))
@pytest.mark.parametrize("linear_window", [0, 8])
def test_it_has_the_models_bits_for_any_states_and_any_neighbours_also_after_many_calls(output_type, linear_window):
    model = tiny_model(output_type=output_type, linear_window=linear_window)
    forward = traced(model, ROWS, TINY.n_neighbors)

    @settings(max_examples=20, deadline=None)
    @given(seed=st.integers(0, 2**16), share=st.sampled_from([0.0, 0.3, 1.0]))
    def has_the_same_bits(seed: int, share: float) -> None:
        random = torch.Generator().manual_seed(seed)
        hidden, query = torch.randn(2, ROWS, TINY.d_model, generator=random)
        keys = torch.randn(ROWS, TINY.n_neighbors, TINY.d_model, generator=random)
        facts = torch.randn(ROWS, TINY.n_neighbors, fact_count(len(TINY.horizons)), generator=random)
        mask = torch.rand(ROWS, TINY.n_neighbors, generator=random) < share
        retrieved = Retrieved(keys, facts, mask)
        with torch.inference_mode():
            wanted, found = model(hidden, query, retrieved), forward(hidden, query, retrieved)
        assert torch.equal(wanted.prediction, found.prediction)
        assert all(map(torch.equal, wanted.distribution, found.distribution))
        assert torch.equal(wanted.weights, found.weights)
        assert torch.equal(wanted.gate, found.gate)

    has_the_same_bits()
