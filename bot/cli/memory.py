"""``recall memory``: ask the memory, fill it, look after it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click

from bot.banks.answers import Answer, ask, document, moment_document, policy_document, vote_document
from bot.banks.sources import OpenMemory, Source
from bot.cli import memory_banks
from bot.cli.help import ExampleCommand, ExampleGroup
from bot.cli.memory_options import Question, decision_asked, moment_asked, opened_source, question_options
from bot.cli.memory_view import MOST_ROWS, show_answer, show_question, show_regimes, show_story, story_document
from bot.cli.terminal import output
from bot.errors import UsageError
from strategies.bars import BarSeries


@click.group(
    cls=ExampleGroup,
    examples=(
        "recall memory search --at 2024-08-05T06:00 --symbol BTCUSDT",
        "recall memory warm --symbols BTCUSDT --interval 60",
    ),
)
def memory() -> None:
    """Ask the memory, fill it and look after it."""


@memory.command(
    cls=ExampleCommand,
    examples=(
        "recall memory search --at 2024-08-05T06:00 --symbol BTCUSDT",
        "recall memory search --at 2024-08-05T06:00 --symbol BTCUSDT --as-of 2022-01-01 --strategy similarity",
        "recall memory search --at 2024-08-05T06:00 --run latest -k 64 --json",
    ),
)
@question_options
def search(question: Question) -> None:
    """Find the moments most like one, and what followed each.

    The moment is the bar that was the last one closed at --at; all times shown are closes. The memory answers as it stood
    at that close, or at --as-of. It is the one that a bot started on the stored candles would have had; --run and --bank
    ask a stored one. Weight is a share of the vote; neighbours of one time share theirs. What followed is in percent of
    price, so many bars (+24 bars) after the close shown.
    """
    source, opened, answer = _ask(question)
    if question.context.as_json:
        question.context.answer({**_asked(source, opened), **document(answer)})
        return
    show_question(source, opened, answer)
    show_answer(answer, rows=MOST_ROWS if question.k is None else question.k)


@memory.command(
    cls=ExampleCommand,
    examples=(
        "recall memory explain --at 2024-08-05T06:00 --symbol BTCUSDT",
        "recall memory explain last --run latest",
        "recall memory explain 1042 --run RUN --json",
    ),
)
@click.argument("decision", required=False)
@question_options
def explain(question: Question, decision: str | None) -> None:
    """Say in words when it was like this before.

    And what came of it: of a moment (--at), or of a DECISION of a run, its number or 'last'. A decision is explained with
    the memory as it was when it was made.
    """
    as_decided = None
    if decision is None:
        source, opened, answer = _ask(question)
    else:
        source, opened, answer, as_decided = _ask_again(question, decision)
    if question.context.as_json:
        story = story_document(answer, opened.reading.cluster_ms)
        question.context.answer({**_asked(source, opened), **document(answer), "as_decided": as_decided, **story})
        return
    show_question(source, opened, answer)
    if as_decided is False:
        output.print("The decision itself was made with other neighbours: see recall why.", style="yellow")
    show_story(answer, opened.reading.cluster_ms)


@memory.command(
    cls=ExampleCommand,
    examples=(
        "recall memory regime --at 2024-08-05T06:00 --symbol BTCUSDT",
        "recall memory regime --at 2024-08-05T06:00 --symbol BTCUSDT --as-of 2022-01-01 --json",
    ),
)
@question_options
def regime(question: Question) -> None:
    """Show in which regimes the moments most like one lived.

    The label of a bar is causal: trend and volatility against the medians of all bars up to it. The vote is that of the
    neighbours, by weight; its margin is the distance to the second.
    """
    source, opened, answer = _ask(question)
    if question.context.as_json:
        found = {**moment_document(answer.moment), "as_of": answer.as_of, "visible": answer.visible}
        question.context.answer({**_asked(source, opened), **found, **vote_document(answer.vote)})
        return
    show_question(source, opened, answer)
    show_regimes(answer)


def _asked(source: Source, opened: OpenMemory) -> dict[str, Any]:
    """What was asked, and for which neighbours."""
    return {"memory": source.title, "policy": policy_document(opened.reading.policy)}


def _ask(question: Question) -> tuple[Source, OpenMemory, Answer]:
    """Ask about the moment that the options name."""
    symbol, at = moment_asked(question)
    with opened_source(question, symbol) as source:
        return _ask_about(question, source, source.last_bar(symbol, at))


def _ask_again(question: Question, decision: str) -> tuple[Source, OpenMemory, Answer, bool]:
    """Ask what a decision asked, as of its time; and whether it was made with these neighbours."""
    if question.at is not None or question.symbol is not None or question.as_of is not None:
        raise UsageError("DECISION names the moment, so --at, --symbol and --as-of have nothing to say; leave them out")
    asked = replace(question, stored=question.stored or "latest")
    found = decision_asked(asked, decision)
    with opened_source(asked, found.signal.symbol) as source:
        source, opened, answer = _ask_about(asked, source, source.last_bar(found.signal.symbol, found.close_time))
    seen = () if found.signal.explanation is None else found.signal.explanation.neighbours
    voting = [each for each in answer.neighbours if each.weight > 0.0]
    same = [(each.symbol, each.open_time, each.weight) for each in voting] == [
        (each.symbol, each.bar_open_time, each.weight) for each in seen
    ]
    return source, opened, answer, same


def _ask_about(question: Question, source: Source, bars: BarSeries) -> tuple[Source, OpenMemory, Answer]:
    """Ask about the last of these bars."""
    as_of = int(bars.close_time[-1]) if question.as_of is None else question.as_of
    opened = source.open(as_of)
    return source, opened, ask(source, opened, source.moment(bars, opened), k=question.k)


for command in memory_banks.COMMANDS:
    memory.add_command(command)
