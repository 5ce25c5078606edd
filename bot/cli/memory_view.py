"""What the memory's answers look like to a person."""

from __future__ import annotations

from math import exp
from typing import Any, Final

from rich.padding import Padding
from rich.text import Text

from bot.banks.answers import Answer, Neighbour, Outlook
from bot.banks.sources import OpenMemory, Source
from bot.banks.story import bars_text, moment_line, past_moments, sentences
from bot.cli.memory_table import Cell, Column, show_table
from bot.cli.terminal import facts, output
from memory_store.policy import RegimeRule, RetrievalPolicy, Scope
from strategies.bars import DAY_MS, HOUR_MS, MINUTE_MS, format_time, interval_ms
from strategies.regime_vote import regime_name

MOST_ROWS: Final = 10
MOST_MOMENTS: Final = 5
_LONG_INTERVALS: Final = {"D": "1 day", "W": "1 week", "M": "1 month"}


def percent(value: float | None) -> Text:
    """What followed, green where it rose and red where it fell."""
    if value is None:
        return Text("-")
    shown = f"{value:+.2%}"
    if shown.strip("+-") == "0.00%":
        return Text("0.00%")
    return Text(shown, style="green" if value > 0.0 else "red")


def span_text(milliseconds: int) -> str:
    """A span for people: days where it is some of them, else hours."""
    if milliseconds >= 2 * DAY_MS:
        return f"{milliseconds / DAY_MS:,.0f} days"
    return f"{milliseconds / HOUR_MS:,.1f} hours".replace(".0 ", " ")


def interval_text(interval: str) -> str:
    """Length of a bar for people."""
    if interval in _LONG_INTERVALS:
        return _LONG_INTERVALS[interval]
    minutes = interval_ms(interval) // MINUTE_MS
    return f"{minutes} min" if minutes % 60 else f"{minutes // 60} h"


def show_question(source: Source, memory: OpenMemory, answer: Answer) -> None:
    """Which moment was asked about, which memory, and what was known when it answered."""
    moment = answer.moment
    output.print(
        f"[bold]{moment.symbol}[/] bar of {interval_text(source.interval)} closed "
        f"[bold]{format_time(moment.close_time)}[/], {regime_name(moment.regime)}"
        f"  [dim]{source.title}[/]",
        soft_wrap=True,
    )
    if memory.reading.policy is not None:
        output.print(f"Wanted: {policy_text(memory.reading.policy, answer.moment.regime)}.", soft_wrap=True)
    for note in notes(memory, answer):
        output.print(note, style="yellow", soft_wrap=True)


def policy_text(policy: RetrievalPolicy, regime: int) -> str:
    """Which neighbours are wanted beyond being alike."""
    wanted = []
    if policy.scope is not Scope.ALL:
        wanted.append("moments of the same symbol" if policy.scope is Scope.SAME else "moments of other symbols")
    if policy.regimes is RegimeRule.SAME:
        wanted.append(f"only in a {regime_name(regime)} market")
    if policy.regimes is RegimeRule.PREFER:
        wanted.append(
            f"rather in a {regime_name(regime)} market (others at {exp(-policy.regime_penalty):.0%} of their weight)"
        )
    if policy.minimum_similarity is not None:
        wanted.append(f"similarity of {policy.minimum_similarity:.3f} or more")
    if policy.half_life_ms is not None:
        wanted.append(f"half the weight for every {span_text(policy.half_life_ms)} of age")
    if policy.one_per_moment:
        wanted.append("one of each time")
    return "; ".join(wanted)


def notes(memory: OpenMemory, answer: Answer) -> list[str]:
    """What a reader has to know before believing an answer."""
    found = []
    apart = answer.as_of - answer.moment.close_time
    if apart < 0:
        found.append(
            f"As of {format_time(answer.as_of)}, {span_text(-apart)} before the moment: nothing later is in it."
        )
    if apart > 0:
        found.append(
            f"As of {format_time(answer.as_of)}, {span_text(apart)} after the moment: it holds what nobody knew then."
        )
    if answer.stale_since is not None:
        found.append(
            f"The memory ends {format_time(answer.stale_since)}, {span_text(answer.as_of - answer.stale_since)} before the "
            "time asked: what came after that is missing from it."
        )
    learned = memory.reading.learned_until
    if learned is not None and learned > answer.as_of:
        found.append(
            f"The model learned from bars until {format_time(learned)}: what it finds alike is hindsight, though every "
            "moment it shows was known."
        )
    return found


def show_answer(answer: Answer, *, rows: int) -> None:
    """Neighbours, what followed over every horizon, and how much the answer is worth."""
    if not answer.neighbours:
        output.print("\nIt remembers nothing yet: no moment's outcome was known then, embargo included.")
        return
    _show_neighbours(answer, rows)
    _show_outlooks(answer)
    table = facts()
    table.add_row("chosen from", f"{answer.visible:,} moments known then")
    table.add_row("independent", f"{answer.effective:.1f} effective, {answer.moments} apart in time")
    table.add_row("novelty", novelty_text(answer))
    table.add_row("regimes", vote_text(answer))
    output.print()
    output.print(table)


def show_story(answer: Answer, cluster_ms: int) -> None:
    """An answer in words."""
    output.print()
    for sentence in sentences(answer):
        output.print(sentence)
    past = past_moments(answer, cluster_ms)
    if past:
        output.print("\n[bold]When have we seen this before?[/]")
    for each in past[:MOST_MOMENTS]:
        output.print(Padding(Text(moment_line(answer, each)), (0, 0, 0, 2)))
    if len(past) > MOST_MOMENTS:
        output.print(f"  and {len(past) - MOST_MOMENTS} other times; recall memory search shows every one", style="dim")


def story_document(answer: Answer, cluster_ms: int) -> dict[str, Any]:
    """An answer in words, as plain values."""
    past = past_moments(answer, cluster_ms)
    return {"sentences": list(sentences(answer)), "seen_before": [moment_line(answer, each) for each in past]}


def show_regimes(answer: Answer) -> None:
    """The regimes of the neighbours."""
    output.print()
    if answer.vote.winner is None:
        output.print(vote_text(answer) + ".")
        return
    rows = []
    for each in answer.vote.shares:
        own = "  (its own label)" if each.regime == answer.moment.regime else ""
        rows.append((f"{regime_name(each.regime)}{own}", f"{each.share:.1%}", str(each.count)))
    show_table((Column("regime"), Column("share", right=True), Column("neighbours", right=True)), rows)
    output.print(f"\nThe vote: {vote_text(answer)}, from {answer.visible:,} moments known then.", soft_wrap=True)


def novelty_text(answer: Answer) -> str:
    """How new the moment is to the memory."""
    if answer.novelty_percentile is None:
        return f"{answer.novelty:.3f}"
    return f"{answer.novelty:.3f}, less familiar than {answer.novelty_percentile:.0%} of earlier moments were"


def vote_text(answer: Answer) -> str:
    """Which regime the neighbours vote for."""
    vote = answer.vote
    if vote.winner is None:
        return "no vote: no neighbour's outcome was known"
    ahead = f"{100 * vote.margin:.0f} points ahead of the next" if vote.shares[1:] else "and no other"
    return f"{vote.shares[0].share:.0%} {regime_name(vote.winner)}, {ahead}"


def _show_neighbours(answer: Answer, rows: int) -> None:
    """A row per neighbour; its outcomes are what is asked for, the primary one above all."""
    horizons = [
        Column(f"+{bars_text(outlook.bars)}", right=True, spare=0 if place == answer.primary else 1)
        for place, outlook in enumerate(answer.outlooks)
    ]
    columns = (
        Column("closed"),
        Column("symbol", spare=2),
        Column("similarity", right=True, spare=3),
        Column("weight", right=True),
        Column("regime", spare=4),
        *horizons,
    )
    cells: list[tuple[Cell, ...]] = [
        (
            format_time(each.close_time),
            _symbol_text(answer, each),
            f"{each.similarity:.3f}",
            f"{each.weight:.1%}",
            regime_name(each.regime),
            *map(percent, each.returns),
        )
        for each in answer.neighbours[:rows]
    ]
    output.print()
    show_table(columns, cells)
    if len(answer.neighbours) > rows:
        output.print(
            f"and {len(answer.neighbours) - rows} more; -k {len(answer.neighbours)} or --json shows all", style="dim"
        )


def _show_outlooks(answer: Answer) -> None:
    spare = {"known": 2, "25 %": 1, "75 %": 1}
    names = ("known", "rose", "mean", "5 %", "25 %", "median", "75 %", "95 %")
    columns = [Column(name, right=True, spare=spare.get(name, 0)) for name in names]
    output.print()
    show_table(
        (Column("what followed"), *columns),
        [(f"after {bars_text(outlook.bars)}", *_outlook_cells(outlook)) for outlook in answer.outlooks],
    )


def _outlook_cells(outlook: Outlook) -> list[Text | str]:
    levels = dict(outlook.quantiles)
    rose = "-" if outlook.rose is None else f"{outlook.rose:.0%}"
    quantiles = [percent(levels.get(level)) for level in (0.05, 0.25, 0.5, 0.75, 0.95)]
    return [str(outlook.known), rose, percent(outlook.mean), *quantiles]


def _symbol_text(answer: Answer, neighbour: Neighbour) -> str:
    moment = answer.moment
    is_itself = (neighbour.symbol, neighbour.open_time) == (moment.symbol, moment.open_time)
    return "itself" if is_itself else neighbour.symbol
