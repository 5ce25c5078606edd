"""The regime vote: shares that sum to one, a winner and its margin."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies.regime_vote import regime_name, regime_vote

VOTES = st.lists(st.tuples(st.integers(0, 5), st.floats(0.0, 1.0)), max_size=40)


def test_the_largest_share_wins_by_its_distance_to_the_next() -> None:
    """Weights count, not heads."""
    vote = regime_vote([4, 5, 5, 0], [0.5, 0.2, 0.2, 0.1])
    assert [(each.regime, each.count) for each in vote.shares] == [(4, 1), (5, 2), (0, 1)]
    assert vote.winner == 4
    assert vote.margin == pytest.approx(0.1)
    assert vote.share_of(5) == pytest.approx(0.4) and vote.share_of(3) == 0.0


def test_nobody_wins_without_votes_and_a_single_regime_wins_by_everything() -> None:
    """A neighbour without weight is no vote."""
    assert regime_vote([], []).winner is None
    assert regime_vote([3], [0.0]).shares == ()
    assert regime_vote([3, 3], [0.2, 0.1]).margin == 1.0


def test_of_equal_shares_the_lowest_label_wins() -> None:
    """So that the answer does not depend on the order of neighbours."""
    assert regime_vote([5, 1], [0.5, 0.5]).winner == regime_vote([1, 5], [0.5, 0.5]).winner == 1


@given(VOTES)
def test_shares_are_a_distribution_in_decreasing_order(votes: list[tuple[int, float]]) -> None:
    """Whatever the weights."""
    vote = regime_vote([regime for regime, _ in votes], [weight for _, weight in votes])
    shares = [each.share for each in vote.shares]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(1.0) or not shares
    assert 0.0 <= vote.margin <= 1.0
    assert sum(each.count for each in vote.shares) == sum(weight > 0.0 for _, weight in votes)


def test_a_label_that_is_not_ours_is_shown_by_its_number() -> None:
    """A strategy of the user's own may label as it likes."""
    assert regime_name(4) == "bear calm"
    assert regime_name(17) == "regime 17" and regime_name(-1) == "regime -1"
