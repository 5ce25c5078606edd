"""The parameter-free read-out of a memory: what followed the moments that were most alike.

It serves explanation, intervals and the honest baseline of the model. Neighbours whose moments overlap in time saw the
same market, also across symbols; a crowd of them is one piece of evidence and gets one share of the vote.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import compress, repeat
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from memory_store import SearchResult
from memory_store.moments import cluster_moments, effective_number, relative_strengths, row_sums, share_out
from strategies.base import Neighbour

QUANTILES: Final = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)

FloatArray = npt.NDArray[np.float64]


class HasQuantiles(Protocol):
    """A distribution that is known at the probabilities of ``QUANTILES``."""

    def quantile(self, probability: float) -> float:
        """The outcome at one of them."""


@dataclass(frozen=True, slots=True, eq=False)
class MemoryView:
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
        return dict(self.quantiles)[probability]


def weighted_quantiles(values: FloatArray, weights: FloatArray, probabilities: tuple[float, ...]) -> FloatArray:
    """Quantiles of weighted values row by row, ``[n, len(probabilities)]``.

    Linear between the midpoints of the values' shares (Hazen's rule for equal weights).

    Args:
        values: ``[n, k]``; inf is no value, and every row has at least one.
        weights: ``[n, k]``, not negative, with a positive sum; 0 where there is no value.
        probabilities: in [0, 1].
    """
    order = np.argsort(values, axis=1, kind="stable")
    values, weights = np.take_along_axis(values, order, axis=1), np.take_along_axis(weights, order, axis=1)
    sums = np.cumsum(weights, axis=1)
    middles = (sums - 0.5 * weights) / sums[:, -1:]
    last = np.count_nonzero(values < np.inf, axis=1)[:, None] - 1
    wanted = np.array(probabilities)
    reached = np.count_nonzero(middles[:, None, :] <= wanted[:, None], axis=2)
    low, high = np.minimum(np.maximum(reached - 1, 0), last), np.minimum(reached, last)
    start, stop = np.take_along_axis(middles, low, axis=1), np.take_along_axis(middles, high, axis=1)
    part = np.clip((wanted - start) / np.where(stop > start, stop - start, 1.0), 0.0, 1.0)
    lower, upper = np.take_along_axis(values, low, axis=1), np.take_along_axis(values, high, axis=1)
    return np.minimum(lower + part * (upper - lower), upper)


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
    outcomes = np.array([result.outcomes[:, horizon] for result in results])
    known = np.array([result.mask for result in results]) & ~np.isnan(outcomes)
    filled = known.any(axis=1)
    views = [_nothing(outcomes.shape[1])] * len(results)
    if filled.any():
        rows = np.flatnonzero(filled)
        preferences = np.array([result.preferences for result in results])[rows]
        times = np.array([result.bar_times for result in results])[rows]
        seen = _views(preferences, outcomes[rows], times, known[rows], temperature, cluster_ms)
        for row, view in zip(rows.tolist(), seen, strict=True):
            views[row] = view
    return tuple(views)


def _views(
    preferences: FloatArray,
    outcomes: FloatArray,
    times: npt.NDArray[np.int64],
    known: npt.NDArray[np.bool_],
    temperature: float,
    cluster_ms: int,
) -> Iterator[MemoryView]:
    """Summaries of rows ``[n, k]`` that all have something known."""
    shares, weights = share_out(
        relative_strengths(preferences, known, temperature), cluster_moments(times, known, cluster_ms)
    )
    values = np.where(known, outcomes, 0.0)
    means = row_sums(weights * values)
    deviations = np.sqrt(row_sums(weights * (values - means) ** 2))
    positive = np.clip(row_sums(weights * (0.5 * (np.sign(values) + 1.0))), 0.0, 1.0)
    levels = weighted_quantiles(np.where(known, outcomes, np.inf), weights, QUANTILES)
    columns = zip(
        np.count_nonzero(known, axis=1).tolist(),
        np.count_nonzero(shares, axis=1).tolist(),
        effective_number(shares).tolist(),
        weights,
        means[:, 0].tolist(),
        deviations[:, 0].tolist(),
        positive[:, 0].tolist(),
        levels.tolist(),
        strict=True,
    )
    for count, moments, effective, row, mean, deviation, ratio, quantiles in columns:
        pairs = tuple(zip(QUANTILES, quantiles, strict=True))
        yield MemoryView(count, moments, effective, row, mean, deviation, ratio, pairs)


def _nothing(k: int) -> MemoryView:
    """The summary of a search that found nothing known."""
    nan = float("nan")
    return MemoryView(0, 0, 0.0, np.zeros(k), nan, nan, nan, ())


def neighbours(
    result: SearchResult, view: MemoryView, horizon: int, attention: Sequence[float] | None = None
) -> tuple[Neighbour, ...]:
    """The neighbours that had a vote, best first, as they are journalled and shown.

    Args:
        result: of the search.
        view: its summary.
        horizon: index into the bank's horizons.
        attention: ``[k]`` share that a model gave each.
    """
    columns: tuple[Iterable[Any], ...] = (
        result.ids.tolist(),
        result.symbols,
        result.bar_times.tolist(),
        result.scores.tolist(),
        view.weights.tolist(),
        result.outcomes[:, horizon].tolist(),
        result.regimes.tolist(),
        repeat(None) if attention is None else attention,
    )
    if not view.weights.all():
        voting = (view.weights > 0.0).tolist()
        columns = tuple([compress(column, voting) for column in columns])
    return tuple(map(Neighbour, *columns))
