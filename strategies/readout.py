"""The parameter-free read-out of a memory: what followed the moments that were most alike.

It serves explanation, intervals and the honest baseline of the model. Neighbours whose moments overlap in time saw the
same market, also across symbols; a crowd of them is one piece of evidence and gets one share of the vote.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from memory_store import SearchResult, SearchResults
from memory_store.machine_code import compiled, fixed
from memory_store.moments import cluster_moments, effective_number, relative_strengths, row_sums, share_out
from strategies.neighbours import Columns, Neighbours

QUANTILES: Final = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


class HasQuantiles(Protocol):
    """A distribution that is known at the probabilities of ``QUANTILES``."""

    def quantile(self, probability: float) -> float:
        """The outcome at one of them."""


def level_at(quantiles: Sequence[tuple[float, float]], probability: float) -> float:
    """The level of one of the probabilities; a dictionary of so few pairs takes longer to make than to do without.

    Args:
        quantiles: pairs (probability, level).
        probability: one of theirs.
    """
    for known, level in quantiles:
        if known == probability:
            return level
    raise KeyError(probability)


class MemoryView(msgspec.Struct, frozen=True, eq=False):
    """The outcomes of the neighbours at one horizon, weighted."""

    count: int
    """Neighbours with a known outcome."""
    moments: int
    """How many moments they are when overlapping ones count once."""
    effective: float
    """Effective number of independent moments: 1 / sum of squared shares (Kish), at most ``moments``; 0 without any."""
    weights: FloatArray
    """``[k]`` shares that sum to 1; 0 where there is no neighbour."""
    mean: float
    """Weighted mean outcome, a log return; nan without neighbours, as all that follows."""
    deviation: float
    """Weighted standard deviation of the outcomes."""
    positive_ratio: float
    """Share of positive outcomes; an outcome of exactly 0 counts half."""
    quantiles: tuple[tuple[float, float], ...]
    """Pairs (probability, log return); empty without neighbours."""

    def quantile(self, probability: float) -> float:
        """The outcome at one of the probabilities of ``QUANTILES``."""
        return level_at(self.quantiles, probability)


class MemoryViews(NamedTuple):
    """Summaries of ``n`` searches as columns: see ``MemoryView`` for each."""

    counts: IntArray
    """``[n]``."""
    moments: IntArray
    """``[n]``."""
    effective: FloatArray
    """``[n]``."""
    weights: FloatArray
    """``[n, k]``."""
    means: FloatArray
    """``[n]``."""
    deviations: FloatArray
    """``[n]``."""
    positive_ratios: FloatArray
    """``[n]``."""
    levels: FloatArray
    """``[n, len(QUANTILES)]`` log returns; nan without neighbours."""

    def views(self) -> tuple[MemoryView, ...]:
        """One by one."""
        counts, moments, effective, _, means, deviations, ratios, levels = [column.tolist() for column in self]
        pairs = [
            tuple(zip(QUANTILES, row, strict=True)) if count else () for count, row in zip(counts, levels, strict=True)
        ]
        return tuple(map(MemoryView, counts, moments, effective, self.weights, means, deviations, ratios, pairs))


def weighted_quantiles(values: FloatArray, weights: FloatArray, probabilities: tuple[float, ...]) -> FloatArray:
    """Quantiles of weighted values row by row, ``[n, len(probabilities)]``.

    Linear between the midpoints of the values' shares (Hazen's rule for equal weights).

    Args:
        values: ``[n, k]``; inf is no value, and every row has at least one.
        weights: ``[n, k]``, not negative, with a positive sum; 0 where there is no value.
        probabilities: in [0, 1].
    """
    levels = np.empty((len(values), len(probabilities)))
    _find_quantiles(fixed(values), fixed(weights), np.array(probabilities), levels)
    return levels


@compiled
def _find_quantiles(values: FloatArray, weights: FloatArray, probabilities: FloatArray, levels: FloatArray) -> None:
    n, k = values.shape
    ordered, middles = np.empty(k), np.empty(k)
    for row in range(n):
        # Values in order, equal ones as they come, their weights beside them.
        count = 0
        for place in range(k):
            value = values[row, place]
            if value == np.inf:
                continue
            at = count
            while at > 0 and ordered[at - 1] > value:
                ordered[at], middles[at] = ordered[at - 1], middles[at - 1]
                at -= 1
            ordered[at], middles[at] = value, weights[row, place]
            count += 1
        if count == 0:
            levels[row] = np.nan
            continue
        total = 0.0
        for place in range(count):
            total += middles[place]
        below = 0.0
        for place in range(count):
            weight = middles[place]
            below += weight
            middles[place] = (below - 0.5 * weight) / total
        for number in range(len(probabilities)):
            wanted, high = probabilities[number], 0
            while high < count and middles[high] <= wanted:
                high += 1
            low, high = max(high - 1, 0), min(high, count - 1)
            span = middles[high] - middles[low]
            part = min(max((wanted - middles[low]) / (span if span > 0.0 else 1.0), 0.0), 1.0)
            lower, upper = ordered[low], ordered[high]
            levels[row, number] = min(lower + part * (upper - lower), upper)


def compile_read_out() -> None:
    """Have compiled what a read-out needs, where nobody waits for a decision."""
    one, known = np.zeros((1, 1)), np.ones((1, 1), dtype=np.bool_)
    _views(one, one, np.zeros((1, 1), dtype=np.int64), known, 1.0, 1)


def read_out(result: SearchResult, horizon: int, *, temperature: float, cluster_ms: int) -> MemoryView:
    """The summary of one search; see :func:`read_out_all`."""
    return read_out_all((result,), horizon, temperature=temperature, cluster_ms=cluster_ms)[0]


def read_out_all(
    results: Sequence[SearchResult], horizon: int, *, temperature: float, cluster_ms: int
) -> tuple[MemoryView, ...]:
    """Summaries of the outcomes of searches at one horizon, in float64 and in a fixed order.

    A summary has the same bits whatever others are made with it, and whatever masked rows its result has.

    Args:
        results: best neighbours first, all with the same ``k``.
        horizon: index into the bank's horizons; neighbours without an outcome there do not count.
        temperature: of the softmax over preferences, which are the scores unless a policy says otherwise; positive, smaller
            listens to fewer.
        cluster_ms: moments closer than this (positive) count as one, whose share is that of its best member and is divided
            among its members by their preferences.
    """
    columns = SearchResults.of(results)
    return read_out_columns(columns, horizon, temperature=temperature, cluster_ms=cluster_ms).views()


def read_out_columns(results: SearchResults, horizon: int, *, temperature: float, cluster_ms: int) -> MemoryViews:
    """The same as columns, which travel and are taken apart with less ado."""
    outcomes = results.outcomes[:, :, horizon]
    known = results.mask & ~np.isnan(outcomes)
    preferences, times = results.preferences, results.bar_times
    filled = known.any(axis=1)
    if filled.all():
        return _views(preferences, outcomes, times, known, temperature, cluster_ms)
    views = _nothing(*outcomes.shape)
    rows = np.flatnonzero(filled)
    if len(rows):
        seen = _views(preferences[rows], outcomes[rows], times[rows], known[rows], temperature, cluster_ms)
        for column, values in zip(views, seen, strict=True):
            column[rows] = values
    return views


def _views(
    preferences: FloatArray,
    outcomes: FloatArray,
    times: IntArray,
    known: npt.NDArray[np.bool_],
    temperature: float,
    cluster_ms: int,
) -> MemoryViews:
    """Summaries of rows ``[n, k]`` that all have something known."""
    shares, weights = share_out(
        relative_strengths(preferences, known, temperature), cluster_moments(times, known, cluster_ms)
    )
    values = np.where(known, outcomes, 0.0)
    means = row_sums(weights * values)
    deviations = np.sqrt(row_sums(weights * (values - means) ** 2))
    positive = np.clip(row_sums(weights * (0.5 * (np.sign(values) + 1.0))), 0.0, 1.0)
    return MemoryViews(
        np.count_nonzero(known, axis=1),
        np.count_nonzero(shares, axis=1),
        effective_number(shares),
        weights,
        means[:, 0],
        deviations[:, 0],
        positive[:, 0],
        weighted_quantiles(np.where(known, outcomes, np.inf), weights, QUANTILES),
    )


def _nothing(rows: int, k: int) -> MemoryViews:
    """The summaries of searches that found nothing known."""
    none, nan = np.zeros(rows, dtype=np.int64), np.full(rows, np.nan)
    levels = np.full((rows, len(QUANTILES)), np.nan)
    return MemoryViews(none, none.copy(), np.zeros(rows), np.zeros((rows, k)), nan, nan.copy(), nan.copy(), levels)


def neighbours(
    result: SearchResult, view: MemoryView, horizon: int, attention: npt.NDArray[np.floating] | None = None
) -> Neighbours:
    """The neighbours that had a vote, best first, as they are journalled and shown.

    Args:
        result: of the search.
        view: its summary.
        horizon: index into the bank's horizons.
        attention: ``[k]`` share that a model gave each.
    """

    def columns() -> Columns:
        outcomes = result.outcomes[:, horizon]
        return Columns(result.symbols, result.bar_times, result.scores, outcomes, result.regimes, attention)

    return Neighbours(result.ids.tolist(), view.weights.tolist(), columns)
