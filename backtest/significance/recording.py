"""What a strategy wanted at every bar, kept while it runs, and played again under other assumptions.

Signals depend on bars alone and not on the account, so that costs and delays can be varied without asking model and memory
again: a replay from a tape takes a tenth of the time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from memory_store import MemoryBank
from strategies.bars import Bar, BarSeries
from strategies.base import Signal, Strategy


@dataclass(frozen=True, slots=True)
class Answer:
    """What of a signal decides about orders."""

    open_time: int
    target_exposure: float | None
    stop_distance: float | None
    target_distance: float | None


@dataclass(slots=True)
class SignalTape:
    """The signals of a run by symbol in order of time, and which moments spoke for them."""

    answers: dict[str, list[Answer]] = field(default_factory=dict)
    youngest: list[tuple[int, dict[str, int]]] = field(default_factory=list)
    """Of every decision with neighbours: its close, and the open of the youngest neighbour of every symbol, milliseconds."""

    def note(self, bar: Bar, signal: Signal) -> None:
        """Keep a signal."""
        answer = Answer(bar.open_time, signal.target_exposure, signal.stop_distance, signal.target_distance)
        self.answers.setdefault(bar.symbol, []).append(answer)
        latest = youngest_neighbours(signal)
        if latest:
            self.youngest.append((bar.close_time, latest))


def youngest_neighbours(signal: Signal) -> dict[str, int]:
    """Open of the youngest neighbour of every symbol that spoke for a signal, milliseconds."""
    latest: dict[str, int] = {}
    for neighbour in () if signal.explanation is None else signal.explanation.neighbours:
        if neighbour.bar_open_time > latest.get(neighbour.symbol, -1):
            latest[neighbour.symbol] = neighbour.bar_open_time
    return latest


class RecordingStrategy(Strategy):
    """Another strategy, whose signals are kept on a tape."""

    name: ClassVar[str] = "recording"

    def __init__(self, inner: Strategy) -> None:
        self.inner = inner
        self.tape = SignalTape()
        self.bank: MemoryBank | None = inner.bank

    @property
    def learned_until(self) -> int | None:
        """See ``Strategy.learned_until``."""
        return self.inner.learned_until

    @property
    def required_bars(self) -> int:
        """See ``Strategy.required_bars``."""
        return self.inner.required_bars

    @property
    def history_bars(self) -> int:
        """See ``Strategy.history_bars``."""
        return self.inner.history_bars

    def attach_bank(self, bank: MemoryBank) -> None:
        """See ``Strategy.attach_bank``."""
        self.inner.attach_bank(bank)
        self.bank = bank

    def warm(self, history: Mapping[str, BarSeries], *, remember: bool = True) -> None:
        """See ``Strategy.warm``."""
        self.inner.warm(history, remember=remember)

    def preview(self, upcoming: Mapping[str, BarSeries]) -> None:
        """See ``Strategy.preview``."""
        self.inner.preview(upcoming)

    def settle(self, bars: Sequence[Bar]) -> None:
        """See ``Strategy.settle``."""
        self.inner.settle(bars)

    def on_bar(self, bar: Bar) -> Signal:
        """The other's signal."""
        signal = self.inner.on_bar(bar)
        self.tape.note(bar, signal)
        return signal

    def remember(self, bars: Sequence[Bar]) -> None:
        """See ``Strategy.remember``."""
        self.inner.remember(bars)


class RecordedStrategy(Strategy):
    """The signals of a tape.

    Args:
        tape: of a run over the same bars.
        bars_late: how many bars of its symbol every signal comes late.
    """

    name: ClassVar[str] = "recorded"

    def __init__(self, tape: SignalTape, *, bars_late: int = 0) -> None:
        self._wanted = {
            symbol: dict(
                zip(
                    [answer.open_time for answer in answers[bars_late:]],
                    answers[: len(answers) - bars_late],
                    strict=True,
                )
            )
            for symbol, answers in tape.answers.items()
        }

    @property
    def required_bars(self) -> int:
        """None: it looks at nothing."""
        return 0

    def warm(self, history: Mapping[str, BarSeries], *, remember: bool = True) -> None:
        """See ``Strategy.warm``; there is nothing to know."""

    def on_bar(self, bar: Bar) -> Signal:
        """What was wanted then; unknown where the tape has nothing."""
        answer = self._wanted.get(bar.symbol, {}).get(bar.open_time)
        if answer is None:
            return Signal(bar.symbol, bar.open_time, None, "nothing recorded")
        return Signal(
            bar.symbol,
            bar.open_time,
            answer.target_exposure,
            "recorded",
            stop_distance=answer.stop_distance,
            target_distance=answer.target_distance,
        )
