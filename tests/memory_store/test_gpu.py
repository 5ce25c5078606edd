"""Searches in bulk as a GPU makes them: by FAISS's own search on the CPU, and on a GPU where there is one."""

from __future__ import annotations

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memory_store import BankConfig, MemoryBank, Metric
from memory_store.gpu import Nearest, candidates_by, gpu_nearest
from memory_store.index import best_first, rescore, scan_margin
from tests.memory_store.test_finding import grow
from tests.memory_store.test_oracle import assert_identical
from tests.memory_store.test_pruned import make_keys


def assert_none_is_missed(nearest: Nearest, seed: int, kind: str, k: int, share_hidden: float) -> int:
    """Every complete query has its nearest among the candidates; how many are complete."""
    random = np.random.default_rng(seed)
    keys, queries = make_keys(kind, random, 640, 6), make_keys(kind, random, 5, 6)
    hidden = random.random(640) < share_hidden
    longest = float(np.sqrt(rescore(keys, keys).max()))
    margin = scan_margin(6, longest, np.sqrt(rescore(queries, queries)))
    found = candidates_by(nearest, keys, hidden, queries, k, margin)
    assert found is not None
    shown = np.flatnonzero(~hidden)
    for row in np.flatnonzero(found.complete).tolist():
        mine = found.slots[found.rows == row]
        right, said = (slots[best_first(rescore(keys[slots], queries[row]), slots, k)] for slots in (shown, mine))
        assert said.tolist() == right.tolist()
    return int(np.count_nonzero(found.complete))


kinds = st.sampled_from(["spread", "clustered", "duplicated", "flat", "crowded", "in time"])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), kinds, st.sampled_from([1, 7, 64, 900]), st.sampled_from([0.0, 0.5, 0.97, 1.0]))
def test_no_neighbour_is_missed_that_anyone_proposes(seed, kind, k, share_hidden):
    assert_none_is_missed(faiss.knn, seed, kind, k, share_hidden)


def test_most_queries_are_answered():
    assert assert_none_is_missed(faiss.knn, 1, "spread", 7, 0.1) == 5


def test_scores_that_are_further_off_than_float32_are_not_believed():
    """As a GPU's are that computes with shorter numbers."""

    def coarse(queries: np.ndarray, keys: np.ndarray, k: int, metric: int) -> tuple[np.ndarray, np.ndarray]:
        return faiss.knn(queries.astype(np.float16).astype(np.float32), keys, k, metric=metric)

    random = np.random.default_rng(2)
    keys, queries = make_keys("spread", random, 640, 6), make_keys("spread", random, 5, 6)
    margin = scan_margin(6, float(np.sqrt(rescore(keys, keys).max())), np.sqrt(rescore(queries, queries)))
    assert candidates_by(coarse, keys, np.zeros(640, dtype=np.bool_), queries, 7, margin) is None


@pytest.mark.skipif(gpu_nearest() is None, reason="FAISS reports no GPU here")
def test_a_block_through_a_gpu_is_what_single_searches_find():
    nearest = gpu_nearest()
    assert nearest is not None
    assert assert_none_is_missed(nearest, 3, "spread", 32, 0.1) == 5
    bank = MemoryBank(BankConfig(50_000, 16, (1,), 0, 0, Metric.COSINE), encoder_version="v1", record_changes=False)
    keys = np.random.default_rng(4).standard_normal((50_000, 16)).astype(np.float32)
    grow(bank, keys)
    proposal = bank.propose(keys[:2048], as_of=60_000, k=16)
    assert proposal.complete.all()
    for row in range(0, 2048, 64):
        full = bank.search(keys[row], as_of=60_000, k=16)
        assert_identical(full, bank.search(keys[row], as_of=60_000, k=16, proposal=proposal, row=row))
