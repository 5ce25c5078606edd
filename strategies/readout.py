"""The parameter-free read-out of a memory: what followed the moments that were most alike.

It serves explanation, intervals and the honest baseline of the model. Neighbours whose moments overlap in time saw the
same market, also across symbols; a crowd of them is one piece of evidence and gets one share of the vote.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from memory_store import SearchResult
from strategies.base import Neighbour

QUANTILES: Final = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)

_NO_LEADER: Final = (-1, 0)
_SMALLEST_STRENGTH: Final = 1e-300  # a far neighbour's share stays a number that can be divided

FloatArray = npt.NDArray[np.float64]


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


def cluster_moments(times: npt.NDArray[np.int64], cluster_ms: int) -> npt.NDArray[np.int64]:
    """Number of the moment that each time belongs to, ``[n]``.

    A time that is at least ``cluster_ms`` from all leaders so far leads a moment of its own; any other joins the first
    leader closer than that. Pass the best neighbour first and it leads.
    """
    leaders: dict[int, tuple[int, int]] = {}  # leaders are that far apart, so a stretch of that length has one at most
    clusters = np.empty(len(times), dtype=np.int64)
    for place, time in enumerate(times.tolist()):
        stretch = time // cluster_ms
        near = [
            number
            for number, leader in (leaders.get(stretch + step, _NO_LEADER) for step in (-1, 0, 1))
            if number >= 0 and abs(time - leader) < cluster_ms
        ]
        if not near:
            near = [len(leaders)]
            leaders[stretch] = (len(leaders), time)
        clusters[place] = min(near)
    return clusters


def weighted_quantiles(values: FloatArray, weights: FloatArray, probabilities: tuple[float, ...]) -> FloatArray:
    """Quantiles of weighted values, linear between the midpoints of their shares (Hazen's rule for equal weights).

    Args:
        values: ``[n]``, n at least 1.
        weights: ``[n]``, not negative, with a positive sum.
        probabilities: in [0, 1].
    """
    order = np.argsort(values, kind="stable")
    shares = weights[order] / weights.sum()
    middles = np.cumsum(shares) - 0.5 * shares
    return np.interp(probabilities, middles, values[order])


def read_out(result: SearchResult, horizon: int, *, temperature: float, cluster_ms: int) -> MemoryView:
    """Summary of the outcomes of a search at one horizon, in float64 and in a fixed order.

    Args:
        result: best neighbours first.
        horizon: index into the bank's horizons; neighbours without an outcome there do not count.
        temperature: of the softmax over scores, positive; smaller listens to fewer.
        cluster_ms: moments closer than this (positive) count as one, whose share is that of its best member's score and
            is divided among its members by their scores.
    """
    outcomes = result.outcomes[:, horizon]
    known = np.flatnonzero(result.mask & ~np.isnan(outcomes))
    weights = np.zeros(len(outcomes), dtype=np.float64)
    if len(known) == 0:
        nan = float("nan")
        return MemoryView(0, 0, 0.0, weights, nan, nan, nan, ())
    values = outcomes[known]
    scores = result.scores[known]
    strengths = np.maximum(np.exp((scores - scores.max()) / temperature), _SMALLEST_STRENGTH)
    clusters = cluster_moments(result.bar_times[known], cluster_ms)
    best = np.zeros(int(clusters.max()) + 1, dtype=np.float64)
    np.maximum.at(best, clusters, strengths)
    shares = best / best.sum()
    members = strengths * (shares / np.bincount(clusters, weights=strengths))[clusters]
    members /= members.sum()
    weights[known] = members
    mean = float((members * values).sum())
    positive = float((members * (0.5 * (np.sign(values) + 1.0))).sum())
    levels = weighted_quantiles(values, members, QUANTILES)
    return MemoryView(
        count=len(known),
        moments=len(best),
        effective=float(1.0 / (shares * shares).sum()),
        weights=weights,
        mean=mean,
        deviation=float(np.sqrt((members * (values - mean) ** 2).sum())),
        positive_ratio=min(max(positive, 0.0), 1.0),
        quantiles=tuple(zip(QUANTILES, levels.tolist(), strict=True)),
    )


def neighbours(result: SearchResult, view: MemoryView, horizon: int) -> tuple[Neighbour, ...]:
    """The neighbours that had a vote, best first, as they are journalled and shown."""
    columns = zip(
        result.ids.tolist(),
        result.symbols,
        result.bar_times.tolist(),
        result.scores.tolist(),
        view.weights.tolist(),
        result.outcomes[:, horizon].tolist(),
        strict=True,
    )
    return tuple([Neighbour(*row) for row in columns if row[4] > 0.0])
