"""Moments: neighbours that lie close in time saw the same thing, and count once.

Ten look-alikes of one day, of one symbol or of several that move together, are one observation. So the weights of an
answer are shared out in two steps: among moments first, each by its best member, and then among the members of each.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from memory_store.machine_code import compiled, fixed

_SMALLEST_STRENGTH: Final = 1e-300  # a far neighbour's share stays a number that can be divided

_Floats = npt.NDArray[np.float64]
_Integers = npt.NDArray[np.int64]
_Booleans = npt.NDArray[np.bool_]


def cluster_moments(times: _Integers, known: _Booleans, cluster_ms: int) -> _Integers:
    """Place of the leader of the moment that each time belongs to, ``[n, k]``; of no meaning where unknown.

    Row by row: a time that is at least ``cluster_ms`` from all leaders before it leads a moment of its own; any other joins
    the first leader closer than that. Pass the best neighbour first and it leads.

    Args:
        times: ``[n, k]``.
        known: ``[n, k]``, which of them count.
        cluster_ms: 0 makes every time a moment of its own.
    """
    leaders: _Integers = np.zeros(times.shape, dtype=np.int64)
    _find_leaders(fixed(times), fixed(known), cluster_ms, leaders)
    return leaders


@compiled
def _find_leaders(times: _Integers, known: _Booleans, cluster_ms: int, leaders: _Integers) -> None:
    n, k = times.shape
    leading = np.empty(k, np.int64)
    for row in range(n):
        count = 0
        for place in range(k):
            if not known[row, place]:
                continue
            leader = place
            for other in leading[:count]:
                if abs(times[row, place] - times[row, other]) < cluster_ms:
                    leader = other
                    break
            if leader == place:
                leading[count] = place
                count += 1
            leaders[row, place] = leader


def first_of_each_moment(times: _Integers, cluster_ms: int, k: int) -> _Integers:
    """Places of the first ``k`` leaders, in order: what is left when every moment keeps its first member alone.

    The leaders are those of :func:`cluster_moments`; this way of finding them is made for many times and few leaders.

    Args:
        times: ``[m]``, best first.
        cluster_ms: 0 keeps everything.
        k: leaders wanted; fewer come where there are fewer.
    """
    if cluster_ms == 0:
        return np.arange(min(k, len(times)))
    leaders: list[int] = []
    remaining = np.arange(len(times))
    while len(leaders) < k and len(remaining):
        leader = int(remaining[0])
        leaders.append(leader)
        remaining = remaining[np.abs(times[remaining] - times[leader]) >= cluster_ms]
    return np.array(leaders, dtype=np.int64)


def relative_strengths(preferences: _Floats, known: _Booleans, temperature: float) -> _Floats:
    """How loudly each neighbour speaks beside the best of its row, ``[n, k]`` in [0, 1]; 0 where unknown.

    Args:
        preferences: ``[n, k]``; every row has something known.
        known: ``[n, k]``.
        temperature: of the softmax, positive; smaller listens to fewer.
    """
    preferences = np.where(known, preferences, -np.inf)
    best = preferences.max(axis=1, keepdims=True)
    strengths: _Floats = np.maximum(np.exp((preferences - best) / temperature), _SMALLEST_STRENGTH)
    return strengths * known


def share_out(strengths: _Floats, leaders: _Integers) -> tuple[_Floats, _Floats]:
    """Shares of moments, at the places of their leaders, and of their members, both ``[n, k]`` with rows summing to 1.

    A moment's share is that of its strongest member, divided among its members by their strengths.

    Args:
        strengths: ``[n, k]``, every row with a positive sum.
        leaders: from ``cluster_moments``.
    """
    shares, members = np.zeros(strengths.shape), np.zeros(strengths.shape)
    _share_out(fixed(strengths), fixed(leaders), shares, members)
    return shares, members


@compiled
def _share_out(strengths: _Floats, leaders: _Integers, shares: _Floats, members: _Floats) -> None:
    """Sums go from left to right, as those of ``row_sums``."""
    n, k = strengths.shape
    totals = np.empty(k)
    for row in range(n):
        totals[:] = 0.0
        for place in range(k):
            leader, strength = leaders[row, place], strengths[row, place]
            totals[leader] += strength
            shares[row, leader] = max(shares[row, leader], strength)
        whole = 0.0
        for place in range(k):
            whole += shares[row, place]
        for place in range(k):
            shares[row, place] /= whole
        told = 0.0
        for place in range(k):
            leader = leaders[row, place]
            part = shares[row, leader] / totals[leader] if totals[leader] > 0.0 else shares[row, leader]
            members[row, place] = strengths[row, place] * part
            told += members[row, place]
        for place in range(k):
            members[row, place] /= told


def effective_number(shares: _Floats) -> _Floats:
    """Effective number of independent moments, ``[n]``: 1 / sum of squared shares (Kish, Survey Sampling, 1965).

    Args:
        shares: ``[n, k]``, rows summing to 1.
    """
    numbers: _Floats = 1.0 / row_sums(shares * shares)[:, 0]
    return numbers


def row_sums(rows: _Floats) -> _Floats:
    """Sums of rows, ``[n, 1]``, added from left to right: zeros at the end change no bit, as they would pairwise."""
    return np.cumsum(rows, axis=1)[:, -1:]


class Independence(NamedTuple):
    """How much evidence an answer is."""

    moments: int
    """Neighbours, those of one moment counted once."""
    effective: float
    """Effective number of them, at most ``moments``; 0 without any."""


def independence(
    preferences: _Floats, times: _Integers, known: _Booleans, *, cluster_ms: int, temperature: float
) -> Independence:
    """How many independent moments one answer holds.

    Args:
        preferences: ``[k]``, best first.
        times: ``[k]`` bar times, milliseconds.
        known: ``[k]`` which are real neighbours.
        cluster_ms: times closer than this are one moment; 0 makes each its own.
        temperature: of the softmax over preferences, positive.
    """
    if not known.any():
        return Independence(0, 0.0)
    leaders = cluster_moments(times[None], known[None], cluster_ms)
    shares, _ = share_out(relative_strengths(preferences[None], known[None], temperature), leaders)
    return Independence(int(np.count_nonzero(shares)), float(effective_number(shares)[0]))
