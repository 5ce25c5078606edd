"""Options of the commands that ask a memory, and what they mean together."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from bot.assembly import home_of
from bot.cli.common import (
    Context,
    chosen_market,
    standard_options,
    stored_calendars,
    strategy_options,
    with_choices,
)
from bot.cli.runs import open_journal
from bot.cli.terminal import console, watched_bar
from bot.cli.why import find_decision
from bot.config import Config
from bot.errors import UsageError
from memory_store.policy import RegimeRule, Scope
from strategies.bars import parse_time

if TYPE_CHECKING:
    from bot.assembly import Home
    from bot.banks.sources import Source
    from bot.orders import Decision
    from memory_store import MemoryBank

_OPTIONS: Final = (
    "at", "symbol", "as_of", "k", "run_id", "bank", "symbols", "interval", "strategy", "model_id", "memory_size",
)  # fmt: skip
_RULES: Final = (
    "scope", "regimes", "regime_penalty", "minimum_similarity", "age_half_life_days", "one_per_moment",
)  # fmt: skip
Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Question:
    """What the options say: which moment, of which memory, as of when."""

    context: Context
    config: Config
    at: int | None
    symbol: str | None
    as_of: int | None
    k: int | None
    stored: str | None
    """Name of the run or bank whose memory is asked; ``None``: one is made from stored candles."""
    symbols: str | None
    interval: str | None
    rules: Mapping[str, Any] = field(default_factory=dict)
    """Keys of ``memory`` that are to be other than configured."""


def question_options(command: Command) -> Command:
    """Add the options of a question; the command gets a :class:`Question` first."""

    @click.option("--at", "at", metavar="TIME", help="The moment: the bar that was the last one closed then (UTC).")
    @click.option("--symbol", help="Its symbol [default: the configured one, if there is only one].")
    @click.option("--as-of", metavar="TIME", help="Answer with what was known then [default: the moment's close].")
    @click.option("-k", "--neighbors", "k", type=click.IntRange(1, 1024), help="Moments to recall [default: config].")
    @click.option("--run", "run_id", metavar="RUN", help="Ask the memory of a run, or 'latest'.")
    @click.option("--bank", "bank", metavar="NAME", help="Ask a bank of recall memory warm.")
    @click.option("--symbols", help="Symbols whose candles fill the memory [default: config].")
    @click.option("--interval", help="Bar interval [default: config, or the only one stored].")
    @strategy_options
    @rule_options
    @standard_options
    @functools.wraps(command)
    def wrapped(context: Context, **options: Any) -> Any:
        rules = {name: options.pop(name) for name in _RULES}
        question = _question(context, **{name: options.pop(name) for name in _OPTIONS})
        chosen = {name: value for name, value in rules.items() if value is not None}
        if chosen and question.stored is None:
            question = replace(question, config=question.config.changed({"memory": chosen}, "the command line"))
        if "regime_penalty" in chosen and not _prefers(question, chosen):
            raise UsageError("--regime-penalty is what another regime costs with --regimes prefer; give that too")
        return command(replace(question, rules=chosen), **options)

    return wrapped  # type: ignore[return-value]


def _prefers(question: Question, chosen: Mapping[str, Any]) -> bool:
    """Whether neighbours of the own regime are preferred; of a stored memory only its own settings could tell."""
    if "regimes" in chosen or question.stored is None:
        return bool(chosen.get("regimes", question.config.memory.regimes) == RegimeRule.PREFER)
    return True


def rule_options(command: Command) -> Command:
    """Add the rules by which neighbours are chosen, each named as its key in ``memory``."""
    options = (
        click.option(
            "--scope",
            type=click.Choice([scope.value for scope in Scope]),
            help="Whose moments answer [default: config].",
        ),
        click.option(
            "--regimes",
            type=click.Choice([rule.value for rule in RegimeRule]),
            help="What another regime costs [default: config].",
        ),
        click.option(
            "--regime-penalty",
            type=float,
            help="With --regimes prefer: 1 leaves 37% of the weight, 2 leaves 14% [default: config].",
        ),
        click.option("--minimum-similarity", type=float, help="Less alike is no neighbour [default: config]."),
        click.option("--age-half-life-days", type=float, help="Age that halves a weight; 0: off [default: config]."),
        click.option(
            "--one-per-moment/--every-neighbor",
            default=None,
            help="Of overlapping moments only the best [default: config].",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def _question(
    context: Context,
    *,
    at: str | None,
    symbol: str | None,
    as_of: str | None,
    k: int | None,
    run_id: str | None,
    bank: str | None,
    symbols: str | None,
    interval: str | None,
    strategy: str | None,
    model_id: str | None,
    memory_size: int | None,
) -> Question:
    made = {"--symbols": symbols, "--interval": interval, "--strategy": strategy, "--model": model_id}
    made["--memory-size"] = None if memory_size is None else str(memory_size)
    given = [name for name, value in made.items() if value is not None]
    if run_id is not None and bank is not None:
        raise UsageError("--run and --bank exclude each other: each names the memory that is asked; choose one")
    stored = bank if run_id is None else run_id
    if stored is not None and given:
        raise UsageError(
            f"{given[0]} describes a memory made from candles, and the one of {stored} is what it is; leave out either"
        )
    config = with_choices(context, strategy=strategy, model_id=model_id, memory_size=memory_size)
    return Question(context, config, _time("--at", at), symbol, _time("--as-of", as_of), k, stored, symbols, interval)


def moment_asked(question: Question) -> tuple[str, int]:
    """Symbol and time of the moment.

    Raises:
        UsageError: one of them is missing.
    """
    if question.at is None:
        raise UsageError("--at is missing: it names the moment to ask about, such as --at 2024-08-05T06:00")
    if question.symbol is not None:
        return question.symbol, question.at
    names = question.config.market.symbols
    if len(names) > 1:
        raise UsageError(f"--symbol is missing: the configuration names {', '.join(names)}; choose one of them")
    return names[0], question.at


def decision_asked(question: Question, decision: str) -> Decision:
    """A decision of a run.

    Raises:
        UsageError: there is no such decision.
    """
    journal = open_journal(question.context)
    return find_decision(journal, journal.find_run(question.stored or "latest"), decision)


@contextmanager
def opened_source(question: Question, symbol: str | None) -> Iterator[Source]:
    """The memory that a question is for; while it is filled a progress bar is shown.

    Args:
        question: the options.
        symbol: of the moment asked about, if there is one.
    """
    # Imported here because candle files take their time to load, and `--help` does without.
    from bot.banks.sources import CandleSource, StoredSource, find_memory

    if question.stored is not None:
        journal = open_journal(question.context)
        with console.status("opening the memory ..."):
            yield StoredSource(question.config, journal, find_memory(journal, question.stored), rules=question.rules)
        return
    home = home_of(question.config)
    names, interval = market_asked(question.config, home, question.symbols, question.interval, symbol)
    calendars = stored_calendars(home.candles, names, interval)
    with watched_bar("remembering") as watch:

        def tell(bank: MemoryBank, bars: int) -> None:
            watch(lambda: bank.next_id, bars)

        yield CandleSource(question.config, home, calendars, interval, tell)


def market_asked(
    config: Config, home: Home, symbols: str | None, interval_asked: str | None, symbol: str | None = None
) -> tuple[tuple[str, ...], str]:
    """Symbols that fill a memory made from candles, and their interval.

    Args:
        config: the configuration.
        home: where the candles are.
        symbols: as the option says.
        interval_asked: as the option says; without it the only one that is stored will do.
        symbol: of the moment asked about, if there is one.

    Raises:
        UsageError: they are not usable.
    """
    names, interval = chosen_market(config, symbols, interval_asked)
    if symbols is None and symbol is not None and symbol not in names:
        names = (symbol,)
    if interval_asked is None:
        stored = [each.interval for each in home.candles.list() if each.symbol == names[0]]
        if interval not in stored and len(stored) == 1:
            console.print(
                f"{names[0]} has no stored candles of the configured interval {interval}: taking {stored[0]}.",
                soft_wrap=True,
            )
            interval = stored[0]
    return names, interval


def _time(option: str, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return parse_time(text)
    except ValueError as problem:
        raise UsageError(f"{option}: {problem}") from None
