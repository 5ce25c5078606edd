"""The contract's records: what an earlier version journalled is still read, and what they say of themselves."""

from __future__ import annotations

import msgspec
import pytest

from strategies.base import Explanation, Neighbour, Signal

EARLIER = (
    b'{"symbol":"BTCUSDT","bar_open_time":1722837600000,"target_exposure":0.4,"reason":"why","expected_return":0.01,'
    b'"quantiles":[[0.1,-0.2],[0.9,0.3]],"stop_distance":null,"target_distance":null,"explanation":{"features":[0.5],'
    b'"model_id":"mt-1","memory_size":7,"prediction":0.25,"memory_mean":null,"gate":0.5,"neighbours":[{"entry_id":3,'
    b'"symbol":"ETHUSDT","bar_open_time":1715000400000,"similarity":0.75,"weight":1.0,"outcome":-0.01}]}}'
)


def test_a_signal_journalled_by_the_first_version_is_read():
    signal = msgspec.json.decode(EARLIER, type=Signal)
    seen = signal.explanation
    assert seen.neighbours == (Neighbour(3, "ETHUSDT", 1715000400000, 0.75, 1.0, -0.01),)
    assert (seen.independent, seen.novelty, seen.neighbours[0].regime) == (None, None, -1)
    assert seen.regime_vote.winner is None


def test_a_signal_is_read_back_as_it_was_written():
    neighbours = (Neighbour(3, "ETHUSDT", 1715000400000, 0.75, 1.0, -0.01, 4),)
    signal = Signal("BTCUSDT", 1, 0.4, explanation=Explanation(neighbours=neighbours, independent=1.0, novelty=0.25))
    assert msgspec.json.decode(msgspec.json.encode(signal), type=Signal) == signal


def test_the_regimes_of_the_neighbours_vote_by_their_weight():
    def neighbour(weight: float, regime: int) -> Neighbour:
        return Neighbour(1, "ETHUSDT", 1, 0.5, weight, 0.0, regime)

    vote = Explanation(neighbours=(neighbour(0.5, 2), neighbour(0.2, 5), neighbour(0.3, 5))).regime_vote
    assert [(share.regime, share.share, share.count) for share in vote.shares] == [(2, 0.5, 1), (5, 0.5, 2)]
    assert (vote.winner, vote.margin) == (2, 0.0)
    clear = Explanation(neighbours=(neighbour(0.75, 1), neighbour(0.25, 0))).regime_vote
    assert (clear.winner, clear.margin) == (1, pytest.approx(0.5))
    assert Explanation().regime_vote.shares == ()
