"""An answer in words: when have we seen this before, and what came of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from bot.banks.answers import Answer, Neighbour, Outlook
from memory_store.moments import cluster_moments
from strategies.bars import format_time
from strategies.regime_vote import regime_name

_ORDINARY: Final = 0.5
_UNUSUAL: Final = 0.9
_NEW: Final = 0.98


@dataclass(frozen=True, slots=True)
class PastMoment:
    """Neighbours of one time, told as one."""

    leader: Neighbour
    """The most alike of them."""
    others: int
    weight: float
    """Of all of them together."""


def past_moments(answer: Answer, cluster_ms: int) -> list[PastMoment]:
    """The moments of an answer, those with most weight first.

    Args:
        answer: from ``ask``.
        cluster_ms: neighbours closer than this are one moment, positive.
    """
    if not answer.neighbours:
        return []
    times = np.array([[each.open_time for each in answer.neighbours]], dtype=np.int64)
    leaders = cluster_moments(times, np.ones_like(times, dtype=np.bool_), cluster_ms)[0].tolist()
    found = []
    for place in sorted(set(leaders)):
        members = [each for each, leader in zip(answer.neighbours, leaders, strict=True) if leader == place]
        weight = sum(each.weight for each in members)
        found.append(PastMoment(answer.neighbours[place], len(members) - 1, weight))
    return sorted(found, key=lambda each: -each.weight)


def sentences(answer: Answer) -> Iterator[str]:
    """What the answer says, one thought per sentence; the moments themselves are told apart."""
    if not answer.neighbours:
        yield "The memory cannot say: nothing in it had an outcome that was known then, the embargo included."
        return
    yield _how_often(answer)
    if answer.novelty_percentile is not None:
        yield _how_new(answer.novelty_percentile)
    outlook = answer.outlooks[answer.primary]
    if outlook.known:
        yield _what_followed(outlook)
    if answer.vote.winner is not None:
        yield _which_regime(answer)


def moment_line(answer: Answer, past: PastMoment) -> str:
    """One earlier moment, with how much it counts and what came of it."""
    leader = past.leader
    company = "" if not past.others else f" with {past.others} more of that time"
    followed = ", ".join(
        f"{value:+.2%} after {bars_text(outlook.bars)}"
        for outlook, value in zip(answer.outlooks, leader.returns, strict=True)
        if value is not None
    )
    return (
        f"{format_time(leader.close_time)} {leader.symbol}, {regime_name(leader.regime)}: similarity "
        f"{leader.similarity:.3f}, {past.weight:.0%} of the weight{company}; then {followed or 'nothing known yet'}"
    )


def bars_text(bars: int) -> str:
    """A number of bars for people."""
    return f"{bars} bar" if bars == 1 else f"{bars} bars"


def _how_often(answer: Answer) -> str:
    count, apart = len(answer.neighbours), answer.moments
    return (
        f"Of {answer.visible:,} moments that it knew then, the {count} most alike come from {apart} separate "
        f"{'time' if apart == 1 else 'times'}, which by weight are as good as {answer.effective:.1f} independent ones."
    )


def _how_new(percentile: float) -> str:
    share = f"{percentile:.0%} of earlier moments"
    if percentile < _ORDINARY:
        return f"It had seen much like this: only {share} were more familiar to it."
    if percentile < _UNUSUAL:
        return f"It had seen as much like this as of most: it was less familiar than {share}."
    if percentile < _NEW:
        return f"It had seen little like this: it was less familiar than {share}."
    return f"It had seen nothing like this: it was less familiar than {share}, so what follows is thin evidence."


def _what_followed(outlook: Outlook) -> str:
    levels = dict(outlook.quantiles)
    return (
        f"After {bars_text(outlook.bars)} {outlook.rose:.0%} of the weight had risen, {outlook.mean:+.2%} on average: half "
        f"of it between {levels[0.25]:+.2%} and {levels[0.75]:+.2%}, one part in twenty below {levels[0.05]:+.2%} and one "
        f"above {levels[0.95]:+.2%}."
    )


def _which_regime(answer: Answer) -> str:
    vote, own = answer.vote, answer.moment.regime
    winner = vote.shares[0]
    ahead = f", {100 * vote.margin:.0f} points ahead of {regime_name(vote.shares[1].regime)}" if vote.shares[1:] else ""
    agrees = "as it was then" if winner.regime == own else f"while it was {regime_name(own)} then"
    return f"By weight {winner.share:.0%} of them lived in a {regime_name(winner.regime)} market{ahead}, {agrees}."
