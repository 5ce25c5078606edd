"""Where a memory comes from: stored candles and the configured strategy, or a run's or a standing bank of the journal."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

import msgspec
import numpy as np

from bot.assembly import Home, build_strategy, needs_model
from bot.banks.moments import Moment, bank_of, closed_by, encoded_moment, held_moment, last_closed
from bot.banks.reading import Reading, reading_of
from bot.banks.standing import reopen
from bot.config import Config
from bot.errors import UsageError
from bot.journal import Journal, RunKind, StoredRun
from bot.session import Session, extended_history, reopen_session
from memory_store import MemoryBank
from memory_store.schema import memory_settlements
from strategies.bars import Bar, BarSeries, Calendar, close_time_of
from strategies.base import Strategy

Watch = Callable[[MemoryBank, int], None]
"""Told the memory that is going to be filled, and how many bars with."""

_SMALL_MEMORY: Final = {"memory_size": 100, "eviction": "fifo", "glitch_wick": 0.0}
"""Settings that keep the moment of the last bar whatever it looks like; 100 are the fewest that may be asked for."""


@dataclass(frozen=True, slots=True)
class OpenMemory:
    """A memory as it was at a time, ready to be asked."""

    bank: MemoryBank
    as_of: int
    """Milliseconds; nothing later is in what it answers."""
    reading: Reading


class Source(ABC):
    """A memory that can be opened as of any time, and the bars that its moments are made of."""

    interval: str
    calendars: Mapping[str, Calendar]
    strategy_name: str
    model_id: str
    """Empty for a strategy without a model."""
    history_bars: int | None = None
    """How many bars before a moment count for it; ``None``: all that are known."""

    @property
    @abstractmethod
    def title(self) -> str:
        """What it is, for people."""

    @abstractmethod
    def bars(self, symbol: str) -> BarSeries:
        """All bars of a symbol that it knows, whether or not the memory holds them."""

    @abstractmethod
    def build(self, symbols: tuple[str, ...]) -> Strategy:
        """The strategy, cold, with a memory that is large enough for one moment."""

    @abstractmethod
    def open(self, as_of: int) -> OpenMemory:
        """The memory as of a time."""

    def last_bar(self, symbol: str, time: int) -> BarSeries:
        """A symbol's bars up to the one that was the last closed at a time.

        Raises:
            UsageError: there is no such bar.
        """
        series = self.bars(symbol)
        return series.slice(0, last_closed(series, time) + 1)

    def moment(self, bars: BarSeries, memory: OpenMemory) -> Moment:
        """The moment of the last of these bars: as the memory holds it, else made anew.

        Raises:
            UsageError: the bar is too early to have a key.
        """
        opened, closed = int(bars.open_time[-1]), int(bars.close_time[-1])
        held = held_moment(memory.bank, bars.symbol, opened, closed)
        first = 0 if self.history_bars is None else max(0, len(bars) - 1 - self.history_bars)
        return held or encoded_moment(self.build, bars.slice(first, len(bars)))

    def close_of(self, symbol: str, open_time: int) -> int:
        """When a bar of the memory was known, milliseconds."""
        return close_time_of(open_time, self.interval, self.calendars.get(symbol, Calendar.CONTINUOUS))


class CandleSource(Source):
    """A memory made on the spot: as of every time the one that a bot started on these candles would have had.

    Args:
        config: names strategy and model.
        home: where candles and models are.
        calendars: of the symbols whose moments fill the memory, in order.
        interval: of the bars.
        watch: see there.
    """

    def __init__(
        self, config: Config, home: Home, calendars: Mapping[str, Calendar], interval: str, watch: Watch
    ) -> None:
        self.interval = interval
        self.calendars = calendars
        self._config = config
        self._home = home
        self._watch = watch
        self._bars: dict[str, BarSeries] = {}
        self._symbols = tuple(calendars)
        strategy, self.model_id = self._build(config, self._symbols)
        bank_of(strategy)
        self.strategy_name = strategy.name
        self.history_bars = strategy.history_bars

    @property
    def title(self) -> str:
        """See ``Source``."""
        return f"{self.strategy_name} on stored candles of {', '.join(self._symbols)}"

    def bars(self, symbol: str) -> BarSeries:
        """See ``Source``: everything that is stored."""
        if symbol not in self._bars:
            self._bars[symbol] = self._home.candles.load(symbol, self.interval)
        return self._bars[symbol]

    def build(self, symbols: tuple[str, ...]) -> Strategy:
        """See ``Source``."""
        return self._build(_with_small_memory(self._config), symbols)[0]

    def open(self, as_of: int) -> OpenMemory:
        """See ``Source``: warmed on all bars before those that close at ``as_of``, which are only settled.

        So a bot stands when it asks at that close: what matured is settled, and nothing is remembered yet.
        """
        strategy = self._build(self._config, self._symbols)[0]
        bank = bank_of(strategy)
        bank.stop_recording()
        past: dict[str, BarSeries] = {}
        closing: list[Bar] = []
        for symbol in self._symbols:
            known = closed_by(self.bars(symbol), as_of)
            earlier = known.slice(0, int(np.searchsorted(known.close_time, as_of, side="left")))
            past[symbol] = earlier.slice(max(0, len(earlier) - strategy.history_bars), len(earlier))
            closing += known.slice(len(earlier), len(known)).bars()
        self._watch(bank, min(bank.config.holds, sum(map(len, past.values()))))
        strategy.warm(past)
        strategy.settle(closing)
        return OpenMemory(bank, as_of, reading_of(strategy, bank.config, self.interval))

    def _build(self, config: Config, symbols: tuple[str, ...]) -> tuple[Strategy, str]:
        try:
            return build_strategy(config, symbols, self.interval, self._home.models)
        except UsageError as problem:
            if needs_model(config):
                raise UsageError(f"{problem}; or ask with --strategy similarity, which needs no model") from None
            raise


class StoredSource(Source):
    """The memory of a run, or a standing bank, from the journal.

    Args:
        config: says where candles and models are now.
        journal: where it is stored.
        run: whose memory.
        rules: keys of ``memory`` that are to be other than in the run's own configuration.

    Raises:
        UsageError: the run has no memory in the journal, or its model or candles are gone.
    """

    def __init__(self, config: Config, journal: Journal, run: StoredRun, *, rules: Mapping[str, Any]) -> None:
        record = run.record
        self.interval = record.interval
        self.calendars = record.calendars
        self.strategy_name = record.strategy
        self.model_id = record.model_id
        self._config = config
        self._rules = rules
        self._journal = journal
        self._run = run
        self._bank_id = _bank_id_of(run)
        self._swaps = [swap for _, swap in journal.read_swaps(record.run_id)]

    @property
    def title(self) -> str:
        """See ``Source``."""
        return f"{'bank' if self._run.record.kind is RunKind.MEMORY else 'run'} {self._run.record.run_id}"

    @cached_property
    def session(self) -> Session:
        """The run's settings and, but for a copy, the candles that it was warmed from."""
        record = self._run.record
        if record.copied:
            alone = replace(self._run, record=msgspec.structs.replace(record, warm={}))
            return reopen_session(self._config, alone)
        return reopen(self._config, self._journal, self._run)

    @cached_property
    def history(self) -> dict[str, BarSeries]:
        """The bars that the run was warmed from and those that it was shown."""
        return extended_history(self.session, self._journal, self._run)

    def bars(self, symbol: str) -> BarSeries:
        """See ``Source``: what the run saw; of a symbol that it never saw, what is stored."""
        seen = self.history.get(symbol)
        return self._stored_bars(symbol) if seen is None else seen

    def last_bar(self, symbol: str, time: int) -> BarSeries:
        """See ``Source``; a bar that the run never saw may be stored."""
        try:
            return super().last_bar(symbol, time)
        except UsageError:
            stored = self._stored_bars(symbol)
            return stored.slice(0, last_closed(stored, time) + 1)

    def build(self, symbols: tuple[str, ...]) -> Strategy:
        """See ``Source``."""
        return self._build(_with_small_memory(self.session.config), symbols)

    def open(self, as_of: int) -> OpenMemory:
        """See ``Source``; of a run that has changed its model, the memory of the one that decided then."""
        record = self._run.record
        # What a step at that very time appended and evicted comes after its own questions.
        present = max(as_of - 1, record.warmed_until) if record.warm else None
        self._choose(present)
        bank = self._journal.load_bank(self._bank_id, as_of=present)
        if present is not None:
            self._settle_closing(bank, as_of)
        return OpenMemory(bank, as_of, reading_of(self._reader(), bank.config, self.interval))

    def _choose(self, present: int | None) -> None:
        """From now on be about the model that decided at a time, and its bank; ``None``: the one in force."""
        if not self._swaps:
            return
        used = [swap for swap in self._swaps if present is None or swap.as_of <= present]
        self.model_id = used[-1].model_id if used else self._run.record.model_id
        bank_id = self._journal.find_bank(used[-1].bank if used else self._run.record.run_id)
        assert bank_id is not None, "a bank that an event names is gone"
        self._bank_id = bank_id

    def _settle_closing(self, bank: MemoryBank, time: int) -> None:
        """Tell a memory what became known at a time: a step settles before it asks, and without an embargo that counts."""
        for row in self._journal.read_rows(memory_settlements, bank_id=self._bank_id, settled_time=time):
            if row["entry_id"] < bank.next_id:
                bank.settle(row["entry_id"], row["horizon"], row["outcome"], row["settled_time"])

    def _reader(self) -> Strategy:
        """The strategy that asks: the run's own, but for other rules of the memory, and for a model that came later."""
        if not self._rules and self.model_id == self.session.model_id:
            return self.session.strategy
        return self._build(
            self.session.config.changed({"memory": self._rules}, "the command line"), tuple(self.calendars)
        )

    def _build(self, config: Config, symbols: tuple[str, ...]) -> Strategy:
        models, model_id = self.session.home.models, self.model_id or None
        return build_strategy(config, symbols, self.interval, models, model_id=model_id)[0]

    def _stored_bars(self, symbol: str) -> BarSeries:
        return self.session.home.candles.load(symbol, self.interval)


def find_memory(journal: Journal, name: str) -> StoredRun:
    """The run or the standing bank of a name.

    Raises:
        UsageError: there is none, or it has no memory in the journal.
    """
    try:
        run = journal.find_run(name)
    except UsageError:
        if name == "latest":
            raise UsageError(
                "there is no paper run yet whose memory 'latest' could be; start recall paper, or name a bank: "
                "see recall memory stats"
            ) from None
        raise UsageError(f"there is no memory named {name!r} in the journal; see recall memory stats") from None
    _bank_id_of(run)
    return run


def _bank_id_of(run: StoredRun) -> int:
    if run.bank_id is None:
        reason = "a replay keeps its memory to itself" if run.record.kind is RunKind.REPLAY else "its strategy has none"
        raise UsageError(f"run {run.record.run_id} has no memory in the journal: {reason}; see recall memory stats")
    return run.bank_id


def _with_small_memory(config: Config) -> Config:
    """Settings of a strategy that is made for the sake of one moment."""
    return config.changed({"memory": _SMALL_MEMORY}, "a moment of its own")
