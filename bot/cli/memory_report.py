"""What stored memories look like to a person: a list of them, one in detail, and how it differs from its candles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from rich.markup import escape

from bot.cli.common import Context
from bot.cli.memory_table import Column, show_table
from bot.cli.memory_view import interval_text, span_text
from bot.cli.terminal import facts, output
from strategies.bars import format_time

if TYPE_CHECKING:
    from backtest.memory_check import MemoryReport
    from bot.journal.memories import StoredMemory


_MOST_PRUNED: Final = 10


def show_memories(context: Context, memories: Sequence[StoredMemory]) -> None:
    """Every memory of the database in a line."""
    if context.as_json:
        context.answer([_memory_document(memory) for memory in memories])
        return
    if not memories:
        output.print(
            "There is no memory in the database yet: recall memory warm fills a bank, and a paper run has its own.",
            soft_wrap=True,
        )
        return
    columns = (
        Column("memory"),
        Column("holds", right=True),
        Column("of", right=True, spare=4),
        Column("from", spare=2),
        Column("to", spare=1),
        Column("symbols", spare=3),
    )
    rows = []
    for memory in memories:
        counts = memory.statistics
        first, last = (
            "-" if time is None else format_time(time)[:10] for time in (counts.first_bar_time, counts.last_bar_time)
        )
        symbols = ", ".join(symbol for symbol, _ in counts.symbols) or "-"
        rows.append((memory.bank.name, f"{counts.held:,}", f"{memory.bank.config.holds:,}", first, last, symbols))
    show_table(columns, rows)


def show_statistics(document: dict[str, Any]) -> None:
    """One memory in detail; the document is that of ``--json``."""
    table = facts()
    for name, value in _facts_of(document):
        table.add_row(name, value)
    output.print(table)
    for heading, key in (("Used most", "most_used"), ("Helped most", "most_helpful"), ("Misled most", "most_harmful")):
        if document[key]:
            _show_entries(heading, document[key])


def show_differences(report: MemoryReport) -> None:
    """Every field that came out differently, and how much was compared."""
    for difference in report.differences:
        output.print(
            f"[red]{difference.where}[/]: [bold]{difference.field}[/] is {escape(str(difference.recorded))}, its candles "
            f"give {escape(str(difference.replayed))}",
            soft_wrap=True,
        )
    more = report.differing - len(report.differences)
    if more:
        output.print(f"... and {more:,} more fields")
    recalled = f", {report.recollections:,} decisions that remembered" if report.recollections else ""
    output.print(
        f"{report.name}: {report.entries:,} entries, {report.settlements:,} outcomes{recalled}: "
        f"[bold]{report.differing:,} differences[/]",
        soft_wrap=True,
    )


def show_pruned(document: dict[str, Any]) -> None:
    """What was pruned, or would be."""
    entries = document["entries"]
    if entries:
        stays = document["dry_run"] or document["waiting"]
        _show_entries("Would go" if stays else "Gone", entries[:_MOST_PRUNED])
    if len(entries) > _MOST_PRUNED:
        output.print(f"and {len(entries) - _MOST_PRUNED:,} more; --json shows all", style="dim")
    if document["waiting"]:
        output.print(
            f"\n{document['memory']} prunes its memory before its next bar; now that would be {document['pruned']:,} of "
            f"{document['held']:,} moments.",
            soft_wrap=True,
        )
        return
    verb = "would be evicted from" if document["dry_run"] else "evicted from"
    held = f"; it holds {document['held']:,}" if not document["dry_run"] else f", which holds {document['held']:,}"
    if entries:
        output.print()
    output.print(
        f"{document['pruned']:,} moments {verb} {document['memory']}{held}, as of {format_time(document['as_of'])}.",
        soft_wrap=True,
    )


def _memory_document(memory: StoredMemory) -> dict[str, Any]:
    counts = memory.statistics
    return {
        "memory": memory.bank.name,
        "encoder_version": memory.bank.encoder_version,
        "capacity": memory.bank.config.holds,
        "held": counts.held,
        "pending": counts.pending,
        "evicted": counts.evicted,
        "decisions_remembered": counts.recollections,
        "symbols": dict(counts.symbols),
        "first_bar_time": counts.first_bar_time,
        "last_bar_time": counts.last_bar_time,
    }


def _facts_of(document: dict[str, Any]) -> list[tuple[str, str]]:
    held = document["held"]
    return [
        ("memory", f"{document['memory']}  ({document['strategy']}, bars of {interval_text(document['interval'])})"),
        ("encoder", document["encoder_version"]),
        ("holds", f"{held:,} of {document['capacity']:,} moments ({held / document['capacity']:.0%})"),
        (
            "",
            f"{document['visible']:,} may answer, {document['pending']:,} wait for their outcome, "
            f"{held - document['visible'] - document['pending']:,} for the end of their embargo",
        ),
        ("evicted", f"{document['evicted']:,}; at capacity {_eviction_text(document)}"),
        ("span", _span(document)),
        ("symbols", _shares(document["symbols"], held)),
        ("regimes", _shares(document["regimes"], held)),
        ("outcomes", _outcomes(document)),
        (
            "keys",
            f"{document['dimension']} numbers, {document['metric']}, mean cosine of pairs {document['anisotropy']:+.4f}",
        ),
        ("neighbours", _neighbours(document)),
        ("novelty", _novelty(document)),
        ("used", _used(document)),
        ("index", _index(document)),
        ("size", _size(document)),
    ]


def _eviction_text(document: dict[str, Any]) -> str:
    if document["eviction"] == "fifo":
        return "the oldest makes room (fifo)"
    half_life = span_text(document["half_life_ms"])
    leaving = (
        "the least important" if document["eviction"] == "importance" else "the least important of the largest regime"
    )
    return f"{leaving} makes room ({document['eviction']}, half-life {half_life})"


def _span(document: dict[str, Any]) -> str:
    if document["first_close"] is None:
        return "-"
    return f"{format_time(document['first_close'])} to {format_time(document['last_close'])}"


def _shares(counts: dict[str, int], whole: int) -> str:
    return ", ".join(f"{name} {count:,} ({count / whole:.0%})" for name, count in counts.items()) or "-"


def _outcomes(document: dict[str, Any]) -> str:
    horizons = ", ".join(map(str, document["horizons"]))
    return f"after {horizons} bars; {document['primary']} counts, and may be used {span_text(document['embargo_ms'])} later"


def _neighbours(document: dict[str, Any]) -> str:
    if document["neighbours"] is None:
        return "-"
    return (
        f"{document['neighbours']:.1f} found on average, worth {document['effective_neighbours']:.1f} independent moments "
        f"(of {document['moments_asked']} asked)"
    )


def _novelty(document: dict[str, Any]) -> str:
    if document["novelty_median"] is None:
        return "-"
    return f"{document['novelty_median']:.3f} is the median, 95% lie below {document['novelty_95']:.3f}"


def _used(document: dict[str, Any]) -> str:
    if not document["decisions_remembered"]:
        return "by no decision yet"
    return (
        f"{document['used']:,} moments, {document['hits']:,} times, by {document['decisions_remembered']:,} decisions"
    )


def _index(document: dict[str, Any]) -> str:
    found = document["recall"]
    if found is None:
        return str(document["index"])
    share = (
        f"{found['share']:.1%} of the true neighbours found ({found['worst']:.0%} at worst), asked of {found['asked']} of "
        "its own moments"
    )
    alarm = "; ALARM: too few, an exact index would see others" if found["alarm"] else ""
    return f"{document['index']}, {share}{alarm}"


def _size(document: dict[str, Any]) -> str:
    times = document["bytes_per_entry"] / document["bytes_per_key"]
    return f"{document['bytes_per_entry']:,.0f} bytes per entry in memory, {times:.2f} times its key"


def _show_entries(heading: str, entries: Sequence[dict[str, Any]]) -> None:
    columns = (
        Column("closed"),
        Column("symbol", spare=1),
        Column("regime", spare=3),
        Column("hits", right=True),
        Column("credit", right=True),
        Column("last used", spare=2),
    )
    rows = []
    for each in entries:
        last = "-" if each["last_hit"] is None else format_time(each["last_hit"])
        cells = (format_time(each["close_time"]), each["symbol"], each["regime"], f"{each['hits']:,}")
        rows.append((*cells, f"{each['credit']:+.4f}", last))
    output.print(f"\n[bold]{heading}[/]")
    show_table(columns, rows)
