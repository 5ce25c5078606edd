"""Products of bytes by torch."""

from __future__ import annotations

import numpy as np
import pytest

from strategies.memory_transformer.byte_arithmetic import byte_arithmetic, has_byte_products

pytestmark = pytest.mark.skipif(not has_byte_products(), reason="this processor has no AVX512-VNNI")


@pytest.mark.parametrize("queries", [1, 2, 17, 128])
@pytest.mark.parametrize("width", [8, 12, 24, 68])
@pytest.mark.parametrize("keys", [64, 200, 4096])
def test_products_and_maxima_are_those_of_whole_numbers(queries, width, keys):
    random = np.random.default_rng(queries + width)
    mine, theirs = (random.integers(-127, 128, (count, width), dtype=np.int8) for count in (queries, keys))
    mine[0], theirs[0] = 127, -127
    arithmetic = byte_arithmetic()
    assert arithmetic is not None
    products = np.empty((queries, keys), dtype=np.int32)
    arithmetic.multiply(mine, theirs, products)
    np.testing.assert_array_equal(products, mine.astype(np.int64) @ theirs.T.astype(np.int64))
    blocks, maxima = products.reshape(queries, 8, -1), np.empty((queries, keys // 8), dtype=np.int32)
    arithmetic.maxima(blocks, maxima)
    np.testing.assert_array_equal(maxima, blocks.max(axis=1))
