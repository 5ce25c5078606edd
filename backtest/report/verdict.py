"""The first lines of a report: can the result be told from luck, and how much of it came from the memory, in plain words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from backtest.report.formats import number, percent
from backtest.report.judgement import Judgement
from backtest.report.recollection import Agreement, Recollection
from backtest.significance.verdict import Outcome

_HEADLINES: Final = {
    Outcome.SIGNIFICANT: ("Better than luck alone explains", "good"),
    Outcome.LUCK: ("Cannot be told from luck", "open"),
    Outcome.LOSS: ("A loss that luck alone does not explain", "bad"),
    Outcome.UNDECIDED: ("Too short to judge", "open"),
}
_NOTHING_TRADED: Final = ("Nothing was traded to an end", "open")
_FIRST: Final = 2
"""Sentences about luck and about the memory, which come first in every verdict."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A headline and the sentences under it."""

    headline: str
    tone: str
    """``good``, ``bad`` or ``open``."""
    sentences: tuple[str, ...]
    """About luck, and about the memory."""
    grounds: tuple[str, ...]
    """What they rest on."""


def verdict_of(judgement: Judgement, trades: int, recollection: Recollection | None) -> Verdict:
    """What the returns of a run prove.

    Args:
        judgement: of the run.
        trades: closed round trips.
        recollection: what the memory said, where there was one.
    """
    judged = judgement.significance
    said, grounds = judged["sentences"][:_FIRST], judged["sentences"][_FIRST:]
    headline, tone = _HEADLINES[Outcome(judged["outcome"])] if trades else _NOTHING_TRADED
    return Verdict(headline, tone, tuple(said), (*grounds, *_memory(recollection)))


def _memory(recollection: Recollection | None) -> tuple[str, ...]:
    if recollection is None:
        return ()
    sentences = []
    gate = recollection.mean_gate
    if gate is not None:
        sentences.append(f"The memory's mean share in the forecast was {percent(gate, 1)}.")
    if recollection.correlation is not None and recollection.correlation_error is not None:
        strength = abs(recollection.correlation) / recollection.correlation_error
        known = "can be told from none" if strength > 2.0 else "cannot be told from none"
        sentences.append(
            f"What it said and what followed have a correlation of {number(recollection.correlation, 3, signed=True)} "
            f"± {number(recollection.correlation_error, 3)}, which {known}."
        )
    if recollection.agreed.count or recollection.disagreed.count:
        sentences.append(_disagreement(recollection.disagreed))
    return tuple(sentences)


def _disagreement(disagreed: Agreement) -> str:
    share, error = disagreed.memory_share, disagreed.standard_error
    if share is None or error is None:
        return "It never disagreed with a model about the side, so its part in the result cannot be told apart."
    if abs(share - 0.5) < 2.0 * error:
        who = "so neither was better than a coin"
    else:
        who = "so the memory knew better" if share > 0.5 else "so the model knew better"
    return (
        f"When it disagreed with the model, at {disagreed.count:,} decisions, the memory was right in {percent(share, 1)} "
        f"(± {percent(error, 1)}), {who}."
    )
