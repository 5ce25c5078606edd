"""The approximate index: exact within the cells that a query looks into."""

from __future__ import annotations

import gc
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memory_store.approximate import FIRST_TRAINING, ApproximateIndex, trained_at, training_points
from memory_store.index import best_first, rescore, scan_margin
from memory_store.partition import Partition, fit_partition
from memory_store.visibility import bitmap_of
from tests.memory_store.test_pruned import make_keys, unit

SLOTS = 6400
MANY = 256
seeds = st.integers(0, 2**32)
kinds = st.sampled_from(["spread", "clustered", "duplicated", "flat", "crowded", "in time"])


@dataclass
class Bank:
    """Keys, who is hidden, and an index over them."""

    keys: np.ndarray
    hidden: np.ndarray
    index: ApproximateIndex

    def ask(self, queries: np.ndarray, k: int, hidden: np.ndarray | None = None) -> list[np.ndarray]:
        """The neighbours of every query, best first."""
        hidden = self.hidden if hidden is None else hidden
        longest = float(np.sqrt(rescore(self.keys, self.keys).max()))
        margin = scan_margin(self.keys.shape[1], longest, np.sqrt(rescore(queries, queries)))
        visible = int(np.count_nonzero(~hidden))
        found = self.index.candidates(hidden, bitmap_of(hidden), queries, k, margin, visible)
        assert found.complete.all()
        return [ranked(self.keys, found.slots[found.rows == row], query, k) for row, query in enumerate(queries)]

    def write(self, slots: np.ndarray, keys: np.ndarray) -> None:
        for slot, key in zip(slots.tolist(), keys, strict=True):
            self.keys[slot] = key
            self.index.write(slot)


def ranked(keys: np.ndarray, slots: np.ndarray, query: np.ndarray, k: int) -> np.ndarray:
    assert len(np.unique(slots)) == len(slots)
    return slots[best_first(rescore(keys[slots], query), slots, k)]


def expected(
    keys: np.ndarray, hidden: np.ndarray, partition: Partition, queries: np.ndarray, k: int
) -> list[np.ndarray]:
    """The contract, spelled out."""
    shown = np.flatnonzero(~hidden)
    cells = partition.assign(partition.centred(keys[shown]))
    wanted = []
    for query in queries:
        within = shown[np.isin(cells, partition.looked_into(query[None], len(shown)))]
        everything = len(shown) <= max(4096, k) or len(within) < k
        wanted.append(ranked(keys, shown if everything else within, query, k))
    return wanted


def make_bank(kind: str, seed: int, *, cosine: bool = True, dimension: int = 8, share_hidden: float = 0.02) -> Bank:
    random = np.random.default_rng(seed)
    keys = make_keys(kind, random, SLOTS, dimension)
    keys = unit(keys) if cosine else keys
    hidden = random.random(SLOTS) < share_hidden
    return Bank(keys, hidden, ApproximateIndex.trained(keys, np.arange(SLOTS), unit=cosine))


def some_queries(kind: str, seed: int, count: int, *, cosine: bool = True, dimension: int = 8) -> np.ndarray:
    queries = make_keys(kind, np.random.default_rng([seed, 1]), count, dimension)
    return unit(queries) if cosine else queries


def assert_equal(found: list[np.ndarray], wanted: list[np.ndarray]) -> None:
    assert [row.tolist() for row in found] == [row.tolist() for row in wanted]


@settings(max_examples=20, deadline=None)
@given(seeds, kinds, st.booleans(), st.sampled_from([1, 5, 32, 300]), st.sampled_from([0.0, 0.02, 0.3, 0.7]))
def test_the_best_visible_entries_of_the_cells_looked_into_are_found(seed, kind, cosine, k, share_hidden):
    """Exactly those, in exact order, whatever half precision and float32 make of the keys, for both metrics."""
    bank = make_bank(kind, seed, cosine=cosine, share_hidden=share_hidden)
    queries = some_queries(kind, seed, 5, cosine=cosine)
    queries[0] = bank.keys[77]
    assert_equal(bank.ask(queries, k), expected(bank.keys, bank.hidden, bank.index.partition, queries, k))


@settings(max_examples=4, deadline=None)
@given(seeds, kinds, st.booleans(), st.sampled_from([1, 32]))
def test_queries_asked_together_find_what_each_finds_alone(seed, kind, cosine, k):
    bank = make_bank(kind, seed, cosine=cosine)
    queries = some_queries(kind, seed, MANY + 3, cosine=cosine)
    together = bank.ask(queries, k)
    assert_equal([bank.ask(query[None], k)[0] for query in queries[::7]], together[::7])


@settings(max_examples=4, deadline=None)
@given(seeds, kinds, kinds)
def test_answers_depend_on_what_is_held_not_on_how_it_came_about(seed, before, after):
    """After any number of overwrites the answers are those of a new index over the same keys and cells."""
    bank = make_bank(before, seed)
    random = np.random.default_rng([seed, 2])
    queries = some_queries(after, seed, 4)
    for count in (1, 3, 0, 1500, 4000, 1):
        slots = random.integers(0, SLOTS, count)
        bank.write(slots, unit(make_keys(after, random, count, 8)))
        hidden = bank.hidden.copy()
        hidden[slots] = True
        pending = bank.ask(queries, 20, hidden)
        found = bank.ask(queries, 20)
        renewed = ApproximateIndex(bank.keys, bank.index.partition, np.arange(SLOTS), unit=True)
        fresh = Bank(bank.keys, bank.hidden, renewed)
        assert_equal(found, fresh.ask(queries, 20))
        assert_equal(pending, fresh.ask(queries, 20, hidden))
        assert not any(hidden[row].any() for row in pending)


def test_the_same_keys_in_other_slots_are_trained_to_the_same_cells():
    bank = make_bank("spread", 3)
    order = np.random.default_rng(3).permutation(SLOTS)
    moved = np.empty_like(bank.keys)
    moved[order] = bank.keys
    other = ApproximateIndex.trained(moved, order, unit=True)
    assert other.partition.centres.tobytes() == bank.index.partition.centres.tobytes()
    queries = some_queries("spread", 3, 5)
    assert_equal(
        Bank(moved, np.zeros(SLOTS, np.bool_), other).ask(queries, 9, np.zeros(SLOTS, np.bool_)),
        [order[row] for row in bank.ask(queries, 9, np.zeros(SLOTS, np.bool_))],
    )


def test_time_may_run_to_and_fro_and_symbols_may_be_chosen():
    """What is hidden changes by little and by much, back and forth; masks come and go, and memory is used anew."""
    bank = make_bank("spread", 4)
    queries = some_queries("spread", 4, 3)
    random = np.random.default_rng(4)
    for share in (0.0, 0.3, 0.01, 0.011, 0.34, 0.0, 0.02):
        hidden = np.random.default_rng(9).random(SLOTS) < share
        hidden[random.integers(0, SLOTS, 5)] = True
        wanted = expected(bank.keys, hidden, bank.index.partition, queries, 32)
        assert_equal(bank.ask(queries, 32, hidden), wanted)
        del hidden
        gc.collect()


def test_k_are_found_even_where_all_that_is_near_is_hidden():
    """The cells looked into hold nothing visible: no padding of FAISS is ever taken for a slot."""
    random = np.random.default_rng(5)
    near = np.arange(SLOTS) < 2000
    keys = unit(random.standard_normal((SLOTS, 8)) * 0.05 + np.where(near[:, None], 1.0, -1.0))
    fitted = fit_partition(keys, unit=True)
    partition = replace(fitted, reach=0.0)
    bank = Bank(keys, near, ApproximateIndex(keys, partition, np.arange(SLOTS), unit=True))
    shown = np.flatnonzero(~near)
    for queries in (keys[:1], keys[:MANY]):
        assert_equal(bank.ask(queries, 32), [ranked(keys, shown, query, 32) for query in queries])


@pytest.mark.parametrize("visible", [0, 1, 5, 300])
def test_with_few_visible_all_of_them_are_looked_at(visible):
    bank = make_bank("spread", 6)
    hidden = np.arange(SLOTS) >= visible
    for queries in (bank.keys[:2], bank.keys[: MANY + 1]):
        for row, found in enumerate(bank.ask(queries, 32, hidden)):
            assert found.tolist() == ranked(bank.keys, np.arange(visible), queries[row], 32).tolist()


def test_keys_of_any_length_are_found():
    """Inner products of keys of very different length, the longest of them written after training."""
    bank = make_bank("spread", 7, cosine=False)
    huge = (1e15 * bank.keys[:50]).astype(np.float32)
    bank.write(np.arange(50), huge)
    queries = some_queries("spread", 7, 4, cosine=False)
    assert_equal(bank.ask(queries, 10), expected(bank.keys, bank.hidden, bank.index.partition, queries, 10))


def test_keys_beyond_the_range_of_those_before_are_found():
    """Bytes hold what was there when their steps were chosen; a key that lies further out makes them be chosen anew."""
    random = np.random.default_rng(12)
    keys = unit(random.standard_normal((SLOTS, 8)) * 0.02 + np.eye(8)[0])
    bank = Bank(keys, np.zeros(SLOTS, np.bool_), ApproximateIndex.trained(keys, np.arange(SLOTS), unit=True))
    queries = keys[:4].copy()
    assert_equal(bank.ask(queries, 10), expected(keys, bank.hidden, bank.index.partition, queries, 10))
    bank.write(np.arange(10, 60), unit(random.standard_normal((50, 8))))
    queries = np.concatenate((queries, keys[10:14]))
    assert_equal(bank.ask(queries, 10), expected(keys, bank.hidden, bank.index.partition, queries, 10))


def test_slots_that_were_never_trained_on_are_found_when_they_fill():
    keys = np.zeros((SLOTS, 8), dtype=np.float32)
    keys[:5000] = unit(make_keys("spread", np.random.default_rng(8), 5000, 8))
    bank = Bank(keys, np.arange(SLOTS) >= 5000, ApproximateIndex.trained(keys, np.arange(5000), unit=True))
    bank.write(np.arange(5000, 6000), unit(make_keys("spread", np.random.default_rng(9), 1000, 8)))
    hidden = np.arange(SLOTS) >= 6000
    found = bank.ask(keys[5500:5510], 3, hidden)
    assert [row[0] for row in found] == list(range(5500, 5510))


def test_nearly_all_true_neighbours_are_found():
    keys = unit(make_keys("spread", np.random.default_rng(10), SLOTS, 12))
    bank = Bank(keys, np.zeros(SLOTS, dtype=np.bool_), ApproximateIndex.trained(keys, np.arange(SLOTS), unit=True))
    queries = some_queries("spread", 10, 200, dimension=12)
    everything = np.arange(SLOTS)
    pairs = zip(bank.ask(queries, 32), queries, strict=True)
    hits = [len(np.intersect1d(found, ranked(keys, everything, query, 32))) for found, query in pairs]
    assert np.mean(hits) / 32 > 0.985
    assert 1 < np.count_nonzero(bank.index.partition.looked_into(queries[:1], SLOTS) >= 0) < bank.index.partition.cells


def test_an_index_is_trained_when_the_bank_has_doubled_then_when_half_of_it_was_replaced():
    assert list(islice(training_points(50_000), 6)) == [8192, 16384, 32768, 50_000, 75_000, 100_000]
    assert list(islice(training_points(FIRST_TRAINING), 3)) == [8192, 12288, 16384]
    assert list(training_points(FIRST_TRAINING - 1)) == []


def test_the_training_point_of_a_bank_is_the_last_one_it_has_reached():
    assert trained_at(50_000, 8191) is None
    assert trained_at(50_000, 8192) == 8192
    assert trained_at(50_000, 99_999) == 75_000
    assert trained_at(100, 10**6) is None


def test_cells_survive_being_written_down():
    """The partition is all that a reopened bank needs to answer as before."""
    bank = make_bank("clustered", 11)
    told = bank.index.partition
    again = Partition(told.mean.copy(), told.centres.copy(), told.reach, told.recall, told.count, told.unit)
    reopened = Bank(bank.keys, bank.hidden, ApproximateIndex(bank.keys, again, np.arange(SLOTS), unit=True))
    queries = some_queries("clustered", 11, 5)
    assert_equal(reopened.ask(queries, 32), bank.ask(queries, 32))
    assert fit_partition(bank.keys, unit=True).centres.tobytes() == told.centres.tobytes()
