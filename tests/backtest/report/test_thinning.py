"""Fewer points, the same shape."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from backtest.report.thinning import thin_out
from tests.backtest.report.scenes import path_of


@given(count=st.integers(1, 3000), most=st.integers(4, 400), seed=st.integers(0, 99))
def test_thinning_keeps_both_ends_and_both_extremes_and_stays_within_its_budget(
    count: int, most: int, seed: int
) -> None:
    values = np.random.default_rng(seed).normal(size=count).cumsum()
    kept = thin_out(values, most)
    assert len(kept) <= most
    assert np.all(np.diff(kept) > 0)
    assert (kept[0], kept[-1]) == (0, count - 1)
    assert values[kept].min() == values.min()
    assert values[kept].max() == values.max()


def test_half_a_million_bars_are_thinned_to_four_thousand_points() -> None:
    assert len(thin_out(path_of(500_000)[1])) <= 4000
