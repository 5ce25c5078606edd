"""The contract of a strategy: closed bars in, one signal per bar out.

A strategy is a deterministic function of the bars it was shown. It opens no socket, file or database, reads no clock and
draws no random numbers, so that replay, paper and live decide the same.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import msgspec
from msgspec.structs import replace

from strategies.bars import Bar, BarSeries
from strategies.regime_vote import RegimeVote, regime_vote

if TYPE_CHECKING:
    from memory_store import MemoryBank


class Neighbour(msgspec.Struct, frozen=True, gc=False):
    """One remembered moment that spoke for a decision."""

    entry_id: int
    symbol: str
    bar_open_time: int
    similarity: float
    weight: float
    """Share of the vote in [0, 1]."""
    outcome: float
    """Log return over the primary horizon after that moment."""
    regime: int = -1
    """Label of that moment, an index into ``REGIME_NAMES``; -1 in decisions from before it was written down."""
    attention: float | None = None
    """Share that the model itself gave it; what all are short of 1 went to the null entry."""


class Explanation(msgspec.Struct, frozen=True):
    """What a strategy saw when it decided: enough to audit the decision and to show it to a person."""

    features: tuple[float, ...] = ()
    """Feature vector of the bar, in the order of the strategy's ``feature_names``."""
    model_id: str = ""
    memory_size: int = 0
    """Entries that were visible to the query."""
    prediction: float | None = None
    """The model's own forecast."""
    memory_mean: float | None = None
    """Weighted mean outcome of the neighbours."""
    gate: float | None = None
    """Share that the memory got in the model's mixture, in [0, 1]."""
    neighbours: tuple[Neighbour, ...] = ()
    """A strategy may give ``strategies.neighbours.Neighbours``, which are no tuple yet: see ``Signal.made``."""
    independent: float | None = None
    """Effective number of independent moments that the neighbours are."""
    novelty: float | None = None
    """One minus the similarity of the closest moment; 1 where there was none."""
    rise_probability: float | None = None
    """Calibrated probability that the price rises over the primary horizon."""
    volatility: float | None = None
    """The model's forecast of realised volatility over the primary horizon, a log return."""

    @property
    def regime_vote(self) -> RegimeVote:
        """In which regimes the neighbours lived, by their weight."""
        known = [neighbour for neighbour in self.neighbours if neighbour.regime >= 0]
        return regime_vote([each.regime for each in known], [each.weight for each in known])


class Signal(msgspec.Struct, frozen=True, gc=False):
    """What a strategy wants after one bar.

    ``target_exposure`` is in [-1, 1] of equity: the side times a confidence. 0 means *abstain*: be flat. ``None`` means
    *unknown*: hold whatever is held, open nothing.
    """

    symbol: str
    bar_open_time: int
    target_exposure: float | None
    reason: str = ""
    expected_return: float | None = None
    """Log return expected over the primary horizon."""
    quantiles: tuple[tuple[float, float], ...] = ()
    """Pairs (probability, log return) of the forecast distribution."""
    stop_distance: float | None = None
    """Distance of the stop loss from the entry as a fraction of price; ``None`` takes the risk layer's own."""
    target_distance: float | None = None
    """Distance of the take profit from the entry as a fraction of price; ``None`` takes the risk layer's own."""
    explanation: Explanation | None = None

    @property
    def made(self) -> Signal:
        """The same with neighbours that are a tuple, which is how a signal is kept and encoded."""
        seen = self.explanation
        if seen is None or type(seen.neighbours) is tuple:
            return self
        return replace(self, explanation=replace(seen, neighbours=tuple(seen.neighbours)))


class Strategy(ABC):
    """Base of all strategies. One instance serves all symbols of a run.

    At every closed bar batch the core calls, in this order: ``settle`` with all bars of the batch, ``on_bar`` for each bar
    in a fixed order, ``remember`` with all bars of the batch (settle what has matured, query, decide, append).

    After a crash a new instance is shown the same bars by ``warm`` and must go on as if nothing had happened. So what a
    strategy knows must either be a function of the bars shown, or be in ``state``, which is given back by ``restore``.
    """

    name: ClassVar[str]

    bank: MemoryBank | None = None
    """The memory, for strategies that have one."""

    @property
    def learned_until(self) -> int | None:
        """Close time, in milliseconds, of the last bar that the strategy was fitted to; ``None`` where it learns nothing
        beforehand. Decisions on bars before it are hindsight."""
        return None

    def attach_bank(self, bank: MemoryBank) -> None:
        """Take a bank that was loaded from storage in place of the own empty one; ``warm`` follows, without remembering."""
        self.bank = bank

    @property
    @abstractmethod
    def required_bars(self) -> int:
        """Bars of each symbol that ``warm`` needs before the first ``on_bar`` is a sensible question."""

    @property
    def history_bars(self) -> int:
        """Bars of each symbol worth showing to ``warm``; a memory wants its whole capacity."""
        return self.required_bars

    @abstractmethod
    def warm(self, history: Mapping[str, BarSeries], *, remember: bool = True) -> None:
        """Show past bars of every symbol before the first ``on_bar``.

        Args:
            history: the past of every symbol of the run, in order.
            remember: fill the memory from these bars; ``False`` when it was loaded from storage.
        """

    def state(self) -> bytes:
        """What the decisions of this run have taught the strategy and bars alone do not tell, such as how its forecasts fared.

        It is journalled with every step of a paper run and compared by the audit, so keep it small, and a function of what
        happened: equal runs have equal bytes. A replay does not ask for it. Nothing by default.
        """
        return b""

    def restore(self, state: bytes) -> None:  # noqa: B027 - only strategies with a state have something to take up
        """Go on from ``state`` of another instance that was shown the same bars; ``warm`` has been called.

        Not called where a run is new, or where its state is empty.

        Raises:
            msgspec.MsgspecError: these bytes are no such state; the run is refused in one sentence.
        """

    def preview(self, upcoming: Mapping[str, BarSeries]) -> None:  # noqa: B027 - an optional accelerator
        """Offer the bars that a replay is going to show, so that work on them can be done in bulk.

        A strategy may use them only in ways that leave every signal as it would be without; ``recall probe`` and the
        parity tests hold it to that.
        """

    def settle(self, bars: Sequence[Bar]) -> None:  # noqa: B027 - only memories have something to settle
        """Record what the closing bars reveal about earlier moments."""

    @abstractmethod
    def on_bar(self, bar: Bar) -> Signal:
        """Decide on one closed bar."""

    def remember(self, bars: Sequence[Bar]) -> None:  # noqa: B027 - only memories have something to append
        """Append the moments of these bars to the memory, pending until their outcome is known.

        A strategy that is going to take over a run is shown bars which another one decides on: ``settle`` and ``remember``
        come without ``on_bar`` then.
        """
