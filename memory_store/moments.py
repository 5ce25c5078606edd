"""Moments: neighbours that lie close in time saw the same thing, and count once.

Ten look-alikes of one day, of one symbol or of several that move together, are one observation. So the weights of an
answer are shared out in two steps: among moments first, each by its best member, and then among the members of each.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

_SMALLEST_STRENGTH: Final = 1e-300  # a far neighbour's share stays a number that can be divided

_WORD: Final = 64  # bits

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
    if cluster_ms == 0:
        return np.tile(np.arange(times.shape[1]), (len(times), 1))
    near = np.abs(times[:, :, None] - times[:, None, :]) < cluster_ms
    before = _packed(near & np.tri(times.shape[1], k=-1, dtype=np.bool_))
    leads = known
    # Whether a place leads depends on earlier places alone: every round settles at least one more place for good.
    while True:
        led = before & _packed(leads)[:, None]
        leading = known & (led[:, :, 0] == 0 if led.shape[2] == 1 else ~led.any(axis=2))
        if np.array_equal(leading, leads):
            break
        leads = leading
    leaders: _Integers = (near & leads[:, None, :]).argmax(axis=2)
    return leaders


def _packed(flags: _Booleans) -> npt.NDArray[np.uint64]:
    """Flags as bits of as few words as hold them, ``[..., words]``."""
    width = flags.shape[-1]
    words = np.zeros((*flags.shape[:-1], -(-width // _WORD) * _WORD // 8), dtype=np.uint8)
    words[..., : -(-width // 8)] = np.packbits(flags, axis=-1)
    return words.view(np.uint64)


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
    cells = leaders + np.arange(len(leaders))[:, None] * leaders.shape[1]
    best = np.zeros(strengths.size)
    np.maximum.at(best, cells.ravel(), strengths.ravel())
    totals = np.bincount(cells.ravel(), weights=strengths.ravel(), minlength=strengths.size)
    shares = best.reshape(strengths.shape)
    shares /= row_sums(shares)
    members = strengths * (shares.ravel() / np.where(totals > 0.0, totals, 1.0))[cells]
    return shares, members / row_sums(members)


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
