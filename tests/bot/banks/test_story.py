"""An answer in words: moments told once, and sentences that say what the numbers say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bot.banks.answers import Answer, Neighbour, Outlook
from bot.banks.moments import Moment
from bot.banks.story import moment_line, past_moments, sentences
from strategies.bars import HOUR_MS, parse_time
from strategies.regime_vote import regime_vote

NOON = parse_time("2024-05-01T12:00")


def neighbour(hour: int, weight: float, regime: int = 4, *, similarity: float = 0.5) -> Neighbour:
    opened = NOON + hour * HOUR_MS
    return Neighbour("BTCUSDT", opened, opened + HOUR_MS, similarity, weight, regime, (0.01, -0.02, None))


def answer(*neighbours: Neighbour, percentile: float | None = 0.4, regime: int = 4) -> Answer:
    levels = tuple((level, level - 0.5) for level in (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95))
    outlooks = [Outlook(bars, len(neighbours), 0.003, 0.02, 0.6, levels) for bars in (1, 4, 24)]
    return Answer(
        moment=Moment("BTCUSDT", NOON + 900 * HOUR_MS, NOON + 901 * HOUR_MS, np.ones(3, dtype=np.float32), regime),
        as_of=NOON + 901 * HOUR_MS,
        visible=1234,
        neighbours=neighbours,
        moments=2,
        effective=1.7,
        outlooks=tuple(outlooks),
        primary=2,
        vote=regime_vote([each.regime for each in neighbours], [each.weight for each in neighbours]),
        novelty=0.2,
        novelty_percentile=percentile,
    )


def test_neighbours_of_one_time_are_told_once_by_their_most_alike() -> None:
    """With the weight of all of them, the heaviest moment first."""
    told = answer(neighbour(0, 0.2, similarity=0.9), neighbour(500, 0.5), neighbour(3, 0.3))
    first, second = past_moments(told, 24 * HOUR_MS)
    assert (first.leader, first.others) == (told.neighbours[0], 1) and first.weight == pytest.approx(0.5)
    assert (second.leader, second.others, second.weight) == (told.neighbours[1], 0, 0.5)
    assert moment_line(told, first) == (
        "2024-05-01T13:00Z BTCUSDT, bear calm: similarity 0.900, 50% of the weight with 1 more of that time; then "
        "+1.00% after 1 bar, -2.00% after 4 bars"
    )


def test_sentences_say_what_the_numbers_say() -> None:
    """How much evidence, how new, what followed, which regime."""
    often, new, followed, regime = sentences(answer(neighbour(0, 0.7), neighbour(500, 0.3, 5)))
    assert often == (
        "Of 1,234 moments that it knew then, the 2 most alike come from 2 separate times, which by weight are as good as "
        "1.7 independent ones."
    )
    assert new == "It had seen much like this: only 40% of earlier moments were more familiar to it."
    assert followed == (
        "After 24 bars 60% of the weight had risen, +0.30% on average: half of it between -25.00% and +25.00%, one part in "
        "twenty below -45.00% and one above +45.00%."
    )
    assert regime == (
        "By weight 70% of them lived in a bear calm market, 40 points ahead of bear volatile, as it was then."
    )


@pytest.mark.parametrize(
    ("percentile", "beginning"),
    [
        (0.1, "It had seen much"),
        (0.7, "It had seen as much"),
        (0.95, "It had seen little"),
        (0.99, "It had seen nothing"),
    ],
)
def test_how_new_it_was_is_told_in_four_steps(percentile: float, beginning: str) -> None:
    """From familiar to never seen."""
    assert list(sentences(answer(neighbour(0, 1.0), percentile=percentile)))[1].startswith(beginning)


def test_the_regime_of_the_moment_is_told_where_the_vote_is_for_another() -> None:
    """Neighbours may all come from elsewhere."""
    told = list(sentences(answer(neighbour(0, 1.0), regime=3)))[-1]
    assert told == "By weight 100% of them lived in a bear calm market, while it was bull volatile then."


def test_a_memory_that_knew_nothing_says_so() -> None:
    """One sentence, and no moments."""
    nothing = answer(percentile=None)
    assert past_moments(nothing, HOUR_MS) == []
    (only,) = sentences(nothing)
    assert only.startswith("The memory cannot say: nothing in it had an outcome that was known then")


def test_neighbours_without_a_known_outcome_give_no_forecast() -> None:
    """They are counted, and nothing is said of what followed."""
    told = answer(neighbour(0, 0.0), percentile=None)
    unknown = replace(told, outlooks=tuple([Outlook(bars, 0, None, None, None, ()) for bars in (1, 4, 24)]))
    assert len(list(sentences(unknown))) == 1
