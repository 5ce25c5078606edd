"""The hash over decisions: what it comes to does not depend on how the lines came to it."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from bot.decision_hash import BLOCK, DecisionHash
from bot.orders import Verdict

QUIET = ((Verdict.WITHIN_BAND,), (Verdict.ON_TARGET,), (Verdict.LATE_BAR, Verdict.ON_TARGET))
PLAIN = st.tuples(st.sampled_from(("BTCUSDT", "BRK-B", "^GSPC")), st.integers(-(2**40), 2**50), st.sampled_from(QUIET))
TOLD = st.text("abc|:;,.0123456789", min_size=1).map(lambda text: (text, 0, None))


def feed(digest: DecisionHash, number: int, decision: tuple[str, int, tuple[Verdict, ...] | None]) -> str:
    """Add one decision as the core does; returns its text."""
    symbol, time, verdicts = decision
    if verdicts is None:
        digest.add(symbol)
    elif verdicts is digest.verdicts and symbol is digest.symbol:
        digest.times.append(time)
    else:
        digest.begin(symbol, verdicts, time)
    if not (number + 1) % BLOCK:
        digest.end_block()
    return symbol if verdicts is None else f"{symbol}|{time}|{','.join(verdicts)}"


@given(st.lists(st.one_of(PLAIN, TOLD), max_size=80), st.integers(0, 80))
def test_lines_hashed_together_come_to_what_line_by_line_comes_to_and_looking_changes_nothing(
    decisions: list[tuple[str, int, tuple[Verdict, ...] | None]], looked: int
) -> None:
    digest = DecisionHash()
    link, tail = hashlib.sha256(b"decisions").hexdigest(), list[str]()
    for number, decision in enumerate(decisions):
        tail.append(feed(digest, number, decision))
        if len(tail) == BLOCK:
            link, tail = hashlib.sha256("\n".join([link, *tail]).encode()).hexdigest(), []
        if number == looked:
            assert (digest.link, digest.tail) == (link, tuple(tail))
            again = DecisionHash()
            again.restore(digest.link, digest.tail)
            digest = again
    assert digest.sha256 == hashlib.sha256("\n".join([link, *tail]).encode()).hexdigest()


def test_the_lines_of_a_long_quiet_stretch_are_those_of_its_bars() -> None:
    digest = DecisionHash()
    lines = [feed(digest, number, ("BTCUSDT", 60_000 * number, QUIET[0])) for number in range(BLOCK - 1)]
    assert digest.tail == tuple(lines)
