"""The linear window: what it sees, that it goes the same way live and in replay, and that without it nothing changes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from strategies.memory_transformer.memory_read import Retrieved, fact_count
from strategies.memory_transformer.model import MemoryTransformer
from strategies.memory_transformer.streaming import StreamingEncoder
from tests.strategies.memory_transformer.tiny import TINY, feature_rows, tiny_kernel

WINDOW = 60
CHANGES = {"linear_window": WINDOW, "n_layers": 1}


@pytest.mark.parametrize("first_ordinal", [0, 90, 1000])
def test_pushing_bars_gives_the_bits_of_encoding_the_series(first_ordinal):
    features, kernel = feature_rows(2 * TINY.block + 40), tiny_kernel(**CHANGES)
    series = StreamingEncoder(kernel, first_ordinal).encode_series(features)
    encoder = StreamingEncoder(kernel, first_ordinal)
    pushed = [encoder.push(row) for row in features]
    assert np.array_equal(np.array([bar.hidden for bar in pushed]), series.hidden)
    assert np.array_equal(np.array([bar.key for bar in pushed]), series.keys)


def test_a_state_depends_on_the_bars_of_its_receptive_field_and_on_no_other():
    features, kernel = feature_rows(400), tiny_kernel(**CHANGES)
    reach = kernel.config.receptive_field
    assert reach == WINDOW  # longer than what attention and convolution see
    before = StreamingEncoder(kernel, 0).encode_series(features).hidden
    changed = features.copy()
    changed[200] += 5.0
    moved = (StreamingEncoder(kernel, 0).encode_series(changed).hidden != before).any(axis=1)
    assert moved[200 : 200 + reach].all()
    assert not moved[:200].any()
    assert not moved[200 + reach :].any()


def test_the_head_is_linear_in_the_window_before_anything_else_is_learned():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MemoryTransformer(replace(TINY, **CHANGES)).eval()
    assert model.linear_head is not None
    with torch.no_grad():
        model.head.weight.zero_()
        model.linear_head.weight.normal_()
        model.encoder.norm.weight.zero_()
    nothing = Retrieved(
        torch.zeros(128, 1, TINY.d_model), torch.zeros(128, 1, fact_count(3)), torch.zeros(128, 1, dtype=torch.bool)
    )

    def said(features: np.ndarray) -> torch.Tensor:
        rows = torch.from_numpy(features).view(1, 1, TINY.block, -1)
        encoding = model.encoder(rows, model.encoder.initial_state())
        return model(encoding.hidden[0, 0], encoding.keys[0, 0], nothing, force_gate=0.0).prediction.detach()

    one, two = feature_rows(TINY.block, 1), feature_rows(TINY.block, 2)
    nought = said(np.zeros_like(one))
    torch.testing.assert_close(
        said(2.0 * one + two) - nought, 2.0 * (said(one) - nought) + said(two) - nought, atol=1e-4, rtol=1e-3
    )


def test_without_a_window_there_is_nothing_of_it():
    names = MemoryTransformer(TINY).state_dict()
    assert not [name for name in names if "linear_head" in name or "encoder.linear" in name]
