"""One kernel: bar by bar, as a series and ahead of time it gives the same bits, and nobody sees the future."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.features import FEATURE_NAMES
from strategies.memory_transformer.bar_kernel import BarKernel
from strategies.memory_transformer.config import ModelConfig
from strategies.memory_transformer.dataset import SymbolBlocks
from strategies.memory_transformer.encoder import Encoder
from strategies.memory_transformer.span_memory import encode_blocks
from strategies.memory_transformer.streaming import StreamingEncoder
from tests.strategies.memory_transformer.tiny import TINY, feature_rows, tiny_kernel, tiny_model

BLOCK = TINY.block
AHEAD = 32
SHAPES = [
    pytest.param({}, id="tiny"),
    pytest.param({"attention_window": 1}, id="no context"),
    pytest.param({"attention_window": 96, "n_layers": 1}, id="a long window"),
    pytest.param({"attention_window": 33, "n_layers": 3, "n_heads": 4}, id="three layers"),
    pytest.param({"attention_window": 34, "kernel_size": 1}, id="no convolution"),
    pytest.param({"kernel_size": 40}, id="a long convolution"),
    pytest.param({"linear_window": 100}, id="linear window"),
]


def pushed(encoder: StreamingEncoder, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    bars = [encoder.push(row) for row in features]
    return np.array([bar.hidden for bar in bars]), np.array([bar.key for bar in bars])


@pytest.mark.parametrize("first_ordinal", [0, 50, 127, 1000])
def test_pushing_bars_gives_the_bits_of_encoding_the_series(first_ordinal):
    features = feature_rows(3 * BLOCK + 40)
    kernel = tiny_kernel()
    series = StreamingEncoder(kernel, first_ordinal).encode_series(features)
    hidden, keys = pushed(StreamingEncoder(kernel, first_ordinal), features)
    assert np.array_equal(hidden, series.hidden)
    assert np.array_equal(keys, series.keys)


@pytest.mark.parametrize("changes", SHAPES)
def test_pushing_bars_gives_the_bits_of_encoding_the_series_whatever_the_shape(changes):
    features, kernel = feature_rows(700), tiny_kernel(**changes)
    series = StreamingEncoder(kernel, 45).encode_series(features)
    hidden, keys = pushed(StreamingEncoder(kernel, 45), features)
    assert np.array_equal(hidden, series.hidden)
    assert np.array_equal(keys, series.keys)


@pytest.mark.slow
def test_the_stream_of_10000_bars_has_the_bits_of_one_pass_at_full_size():
    """The default model."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        encoder = Encoder(ModelConfig(n_features=len(FEATURE_NAMES))).eval()
        with torch.no_grad():
            encoder.position_bias.normal_(0.0, 0.5)
    kernel = BarKernel(encoder)
    features = feature_rows(10_000)
    series = StreamingEncoder(kernel, 0).encode_series(features)
    hidden, keys = pushed(StreamingEncoder(kernel, 0), features)
    assert np.array_equal(hidden, series.hidden)
    assert np.array_equal(keys, series.keys)


@settings(max_examples=12, deadline=None)
@given(data=st.data(), first_ordinal=st.integers(0, 300), seed=st.integers(0, 9))
def test_any_mixture_of_ways_leaves_the_same_state(data, first_ordinal, seed):
    """Series, pushes, and looks ahead that come true or do not."""
    features = feature_rows(300, seed)
    kernel = tiny_kernel()
    expected = StreamingEncoder(kernel, first_ordinal).encode_series(features).keys
    encoder = StreamingEncoder(kernel, first_ordinal)
    done, keys = 0, []
    while done < len(features):
        count = data.draw(st.integers(1, len(features) - done))
        way = data.draw(st.sampled_from(["series", "push", "ahead", "wrong"]))
        coming = features[done : done + count]
        if way == "series":
            keys.append(encoder.encode_series(coming).keys)
        else:
            coming = coming[:20]
            if way != "push":
                foreseen = features[done : done + 3 * AHEAD].copy()
                if way == "wrong":
                    foreseen[len(foreseen) // 2 :] += 1.0
                encoder.look_ahead(foreseen[:AHEAD])
                for start in range(AHEAD, len(foreseen), AHEAD):
                    encoder.look_further(foreseen[start : start + AHEAD])
            keys.append(pushed(encoder, coming)[1])
        done += len(coming)
    assert np.array_equal(np.concatenate(keys), expected)
    assert encoder.next_ordinal == first_ordinal + len(features)


@pytest.mark.parametrize("place", [0, 1, 60, 127, 128, 200])
def test_no_bar_sees_a_later_one(place):
    features = feature_rows(300)
    changed = features.copy()
    changed[place + 1 :] = 7.0
    kernel = tiny_kernel()
    before = StreamingEncoder(kernel, 0).encode_series(features)
    after = StreamingEncoder(kernel, 0).encode_series(changed)
    assert np.array_equal(before.hidden[: place + 1], after.hidden[: place + 1])
    assert np.array_equal(before.keys[: place + 1], after.keys[: place + 1])
    assert not np.array_equal(before.keys[place + 1], after.keys[place + 1])


@pytest.mark.parametrize("start", [128, 130, 200])
def test_where_the_history_begins_is_forgotten_after_the_receptive_field(start):
    features, kernel = feature_rows(500), tiny_kernel()
    whole = StreamingEncoder(kernel, 0).encode_series(features).keys[start:]
    late = StreamingEncoder(kernel, start).encode_series(features[start:]).keys
    known = TINY.receptive_field - 1
    assert np.array_equal(whole[known:], late[known:])
    assert not np.array_equal(whole[known - 1], late[known - 1])


@pytest.mark.parametrize("changes", SHAPES)
def test_all_blocks_at_once_agree_with_the_stream_up_to_rounding(changes):
    model = tiny_model(**changes)
    features, offset, count = feature_rows(700), 50, 6
    padded = np.zeros((count * BLOCK, TINY.n_features), dtype=np.float32)
    padded[offset : offset + 700] = features
    rows = np.full(count * BLOCK, -1, dtype=np.int64)
    rows[offset : offset + 700] = np.arange(700)
    blocks = SymbolBlocks(padded.reshape(count, BLOCK, -1), offset, rows.reshape(count, BLOCK))
    hidden, keys = (
        part.reshape(-1, TINY.d_model)[offset : offset + 700] for part in encode_blocks(model.encoder, blocks)
    )
    stream = StreamingEncoder(BarKernel(model.encoder), offset).encode_series(features)
    np.testing.assert_allclose(hidden, stream.hidden, atol=1e-5 * max(1.0, np.abs(hidden).max()))
    np.testing.assert_allclose(keys, stream.keys, atol=1e-5)


def test_keys_have_length_one():
    keys = StreamingEncoder(tiny_kernel(), 0).encode_series(feature_rows(200)).keys
    np.testing.assert_allclose(np.linalg.norm(keys, axis=1), 1.0, atol=1e-5)


def test_a_model_in_training_mode_and_features_that_are_not_numbers_are_refused():
    with pytest.raises(ValueError, match="training mode"):
        BarKernel(tiny_model().encoder.train())
    encoder = StreamingEncoder(tiny_kernel(), 0)
    with pytest.raises(ValueError, match="not finite"):
        encoder.push(np.full(TINY.n_features, np.nan, dtype=np.float32))
