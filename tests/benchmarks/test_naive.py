"""The naive loop is a fair opponent: it does what the plain design does, and does it right."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.harness import BenchmarkError
from benchmarks.naive import (
    DIMENSION,
    FEATURES,
    WINDOW,
    RebuiltMemory,
    WindowModel,
    bare_loop,
    feature_frame,
    refuse_straw_man,
    signal_loop,
)


def rows(count: int, seed: int = 3) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return np.random.default_rng(seed).standard_normal((count, DIMENSION), dtype=np.float32)


def test_the_memory_finds_the_nearest_by_cosine_and_forgets_the_oldest() -> None:
    memory, keys = RebuiltMemory(50), rows(80)
    for key in keys:
        memory.add(key[None], key[None], np.zeros(1, dtype=np.float32))
    kept = keys[-50:]
    unit = kept / np.linalg.norm(kept, axis=1, keepdims=True)
    query = rows(1, seed=4)
    scores, slots, values = memory.search(query, k=5)
    expected = np.sort(unit @ (query[0] / np.linalg.norm(query)))[::-1][:5]
    assert len(memory) == 50
    assert np.allclose(scores[0], expected, atol=1e-6)
    assert np.array_equal(values[0], memory.values[slots[0]])
    assert {tuple(value) for value in values[0]} <= {tuple(key) for key in kept}


def test_the_loop_decides_on_every_bar_and_remembers_each() -> None:
    random = np.random.default_rng(5)
    frame = feature_frame(100.0 * np.exp(np.cumsum(random.normal(0.0, 0.01, 300))), random.exponential(1.0, 300))
    assert set(FEATURES) <= set(frame.columns)
    torch.manual_seed(1)
    memory = RebuiltMemory(1000)
    memory.add(rows(40), rows(40), np.full(40, 0.01, dtype=np.float32))
    decided = signal_loop(WindowModel().eval(), memory, frame, WINDOW, 20)
    assert len(decided) == 20
    assert len(memory) == 60
    assert all(-1.0 <= position <= 1.0 for position, _ in decided)
    assert decided[0][1] == np.float32(0.01)


def test_the_model_sees_the_whole_window() -> None:
    """A change of the first bar reaches the last state: the work of 96 bars is really done per bar."""
    torch.manual_seed(1)
    model = WindowModel().eval()
    window = torch.randn(1, WINDOW, len(FEATURES))
    changed = window.clone()
    changed[0, 0] += 1.0
    with torch.no_grad():
        assert not torch.equal(model(window)[1], model(changed)[1])


def test_nothing_is_compared_with_a_naive_loop_slower_than_nine_milliseconds_per_bar() -> None:
    refuse_straw_man([8.9] * 3, [5.0] * 3)
    with pytest.raises(BenchmarkError, match=r"9\.1 ms per bar, more than 9\.0"):
        refuse_straw_man([9.1] * 3, [5.0] * 3)


def test_but_where_the_machine_is_slow_and_quiet_the_loop_may_take_little_more_than_its_calls_of_libraries() -> None:
    refuse_straw_man([9.9, 10.0, 10.4], [8.0, 8.2, 8.9])
    with pytest.raises(BenchmarkError, match=r"10\.4 ms per bar, more than 10\.2"):
        refuse_straw_man([10.4] * 3, [8.2] * 3)
    with pytest.raises(BenchmarkError, match=r"8\.0 to 10\.2 ms per bar: this machine is busy"):
        refuse_straw_man([9.9, 10.0, 10.4], [8.0, 8.2, 10.2])


def test_the_bare_loop_builds_the_index_anew_and_leaves_the_memory_as_it_was() -> None:
    memory = RebuiltMemory(50)
    memory.add(rows(40), rows(40), np.zeros(40, dtype=np.float32))
    bare_loop(WindowModel().eval(), memory, 3)
    assert len(memory) == memory.index.ntotal == 40
