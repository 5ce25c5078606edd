"""Tests by permutation: positions moved in time against the bars, and a memory whose outcomes are those of other moments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from backtest.evaluation.intervals import Resamples
from backtest.significance.sharpe import block_length, moves
from backtest.significance.verdict import MemoryContribution, PermutationTest
from strategies.bars import FloatArray

TWINS_FOR_A_PERMUTATION: Final = 19
"""Twins without which a rank cannot reach a p-value of 0.05."""
_TOLERANCE: Final = 1e-9
"""Share of the spread within which two sums count as equal: they come out of a Fourier transform."""


def shifted_signals(exposure: FloatArray, returns: FloatArray, *, nearest: int | None = None) -> PermutationTest | None:
    """What positions earned before costs, among what they would have earned at every other time of the span.

    Positions are moved in a circle, all symbols together, so that how long they last, how often they change and how they go
    together stays as it was, and only their timing is lost (the circular shifts of a block of the whole length: Politis and
    Romano 1992; as a test of trading rules Aronson, "Evidence-based technical analysis", 2006, chapter 6).

    Args:
        exposure: ``[n, symbols]`` fraction of equity at every close.
        returns: ``[n, symbols]`` from that close to the next.
        nearest: least shift, in closes, either way; one hundredth of the span by default.

    Returns:
        ``None`` where nothing was held, or the span is too short.
    """
    count = len(exposure)
    nearest = max(1, count // 100) if nearest is None else nearest
    if count <= 2 * nearest + 1 or not np.any(exposure):
        return None
    spectrum = np.conj(np.fft.rfft(exposure, axis=0)) * np.fft.rfft(returns, axis=0)
    earned = np.fft.irfft(spectrum.sum(axis=1), n=count)
    others = earned[nearest : count - nearest + 1]
    margin = _TOLERANCE * max(float(np.abs(earned).max()), 1e-300)
    reached = int(np.count_nonzero(others >= earned[0] - margin))
    return PermutationTest(float(earned[0]), float(others.mean()), len(others), (1 + reached) / (1 + len(others)))


def memory_contribution(
    returns: FloatArray, twins: Sequence[FloatArray], days_per_year: int, *, level: float, resamples: int, seed: int
) -> MemoryContribution | None:
    """A run beside twins whose memory tells outcomes of other moments (``ShuffledOutcomes``).

    With few twins the p-value is that of a paired stationary bootstrap of the difference of daily log returns, centred on
    zero; with ``TWINS_FOR_A_PERMUTATION`` or more it is the rank of the run's return among theirs (Phipson and Smyth 2010).

    Args:
        returns: simple daily returns of the run, ``[n]``.
        twins: of every twin on the same days, ``[n]`` each.
        days_per_year: of the calendar.
        level: share of the resamples outside the interval.
        resamples: how many.
        seed: of the draws.

    Returns:
        ``None`` where there are no twins, or none has returns on the same days.
    """
    alike = [twin for twin in twins if len(twin) == len(returns)]
    if not alike or not len(returns):
        return None
    logs = np.array([np.log1p(twin) for twin in alike])
    difference = np.log1p(returns) - logs.mean(axis=0)
    total, shuffled = float(np.expm1(np.log1p(returns).sum())), np.expm1(logs.sum(axis=1))

    def annual(weights: FloatArray) -> FloatArray:
        return np.asarray(days_per_year * (weights @ difference) / weights.sum(axis=-1))

    length = block_length(difference) if moves(difference) else 1
    drawn = Resamples.draw(len(difference), length, resamples=resamples, seed=seed)
    figure = drawn.figure(annual, level=1.0 - level)
    if len(alike) >= TWINS_FOR_A_PERMUTATION:
        p_value = (1 + int(np.count_nonzero(shuffled >= total))) / (1 + len(alike))
        method = "permutation"
    else:
        mean = float(annual(np.ones(len(difference))))
        luck = annual(drawn.counts) - mean
        p_value = (1 + int(np.count_nonzero(luck >= mean))) / (1 + len(luck))
        method = "paired bootstrap"
    return MemoryContribution(len(alike), total, float(shuffled.mean()), figure, p_value, method)
