"""In which regimes the neighbours of a moment lived: their distribution, the vote and how clear it was."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from strategies.regimes import REGIME_NAMES


@dataclass(frozen=True, slots=True)
class RegimeShare:
    """What one regime has of the vote."""

    regime: int
    share: float
    """Weight of its neighbours, in (0, 1]."""
    count: int
    """How many neighbours they are."""


@dataclass(frozen=True, slots=True)
class RegimeVote:
    """The regimes of the neighbours, the largest share first and equal ones in the order of their labels."""

    shares: tuple[RegimeShare, ...]
    """Of the regimes that have any; they sum to 1. Empty without neighbours."""

    @property
    def winner(self) -> int | None:
        """The regime with the largest share; ``None`` without neighbours."""
        return self.shares[0].regime if self.shares else None

    @property
    def margin(self) -> float:
        """How far the largest share is ahead of the next, in [0, 1]; 0 without neighbours."""
        leading = [each.share for each in self.shares[:2]]
        return leading[0] - sum(leading[1:]) if leading else 0.0

    def share_of(self, regime: int) -> float:
        """The share of one regime; 0 where no neighbour lived in it."""
        return next((each.share for each in self.shares if each.regime == regime), 0.0)


def regime_vote(regimes: Iterable[int], weights: Iterable[float]) -> RegimeVote:
    """Count the vote of neighbours.

    Args:
        regimes: label of each neighbour.
        weights: share of each, not negative; a neighbour without weight has no vote.
    """
    totals: dict[int, tuple[float, int]] = {}
    for regime, weight in zip(regimes, weights, strict=True):
        if weight > 0.0:
            total, count = totals.get(regime, (0.0, 0))
            totals[regime] = total + weight, count + 1
    whole = sum(total for total, _ in totals.values())
    shares = [RegimeShare(regime, total / whole, count) for regime, (total, count) in totals.items()]
    return RegimeVote(tuple(sorted(shares, key=lambda each: (-each.share, each.regime))))


def regime_name(regime: int) -> str:
    """Name of a label of ``strategies.regimes`` for people; of any other label its number."""
    return REGIME_NAMES[regime] if 0 <= regime < len(REGIME_NAMES) else f"regime {regime}"
