"""A segment: entries that follow each other in ids and have left the ring, as columns with an exact index of their own.

The segment being filled lies in memory. A sealed one is never written again, but for the note that an entry is gone; it may
be mapped from a file, so that what nobody asks for takes no memory.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from memory_store.index import BLOCK, best_first, rescore
from memory_store.policy import excluded
from memory_store.pruned import WORTHWHILE, PrunedIndex
from memory_store.question import Question
from memory_store.records import BankConfig, BoolArray, IntArray, KeyArray, ScoreArray
from memory_store.restoration import BankState, usable_times
from memory_store.ring import EMPTY, NEVER, NOT_YET, Ring

COLUMNS: Final = ("keys", "symbols", "bar_times", "regimes", "novelties", "outcomes", "usable_from")
"""What of an entry is kept, by the names that the ring has for it, where symbols are numbered by the segment."""


class Eligible(NamedTuple):
    """What of a segment a search may choose from."""

    hidden: BoolArray
    """``[rows]``."""
    eligible: int
    """Rows not hidden."""
    visible: int
    """Entries visible, of the symbols asked for; what a policy leaves out among them."""


@dataclass(slots=True, eq=False)
class Segment:
    """Rows of entries; the row of an entry is its id less ``first``."""

    first: int
    names: list[str]
    """Symbol of every number in ``symbols``."""
    keys: KeyArray
    """``[rows, d]``, a multiple of ``BLOCK`` of them, as of all columns."""
    symbols: npt.NDArray[np.int32]
    bar_times: IntArray
    regimes: npt.NDArray[np.int32]
    novelties: KeyArray
    outcomes: ScoreArray
    """``[rows, horizons]``."""
    usable_from: IntArray
    """``[rows, horizons]``; ``NEVER`` for an outcome that was not known when the entry came here."""
    index: PrunedIndex
    gone: BoolArray
    """``[rows]``, True where there is no entry: none yet, or it was evicted."""
    count: int = 0
    """Entries held."""
    latest: int = -NEVER
    """From when all of its entries are visible, milliseconds."""
    longest: float = 0.0
    """Upper bound of the lengths of keys."""
    sealed: bool = False
    """Whether all of its entries have come."""
    mapped: bool = False
    """Whether its columns lie in a file."""
    _numbers: dict[str, int] = field(default_factory=dict)

    @classmethod
    def empty(cls, config: BankConfig, first: int, entries: int) -> Segment:
        """One to be filled, in memory."""
        rows, horizons = -(-entries // BLOCK) * BLOCK, len(config.horizons)
        keys: KeyArray = np.zeros((rows, config.dimension), dtype=np.float32)
        return cls(
            first=first,
            names=[],
            keys=keys,
            symbols=np.zeros(rows, dtype=np.int32),
            bar_times=np.zeros(rows, dtype=np.int64),
            regimes=np.zeros(rows, dtype=np.int32),
            novelties=np.zeros(rows, dtype=np.float32),
            outcomes=np.full((rows, horizons), np.nan),
            usable_from=np.full((rows, horizons), NEVER, dtype=np.int64),
            index=PrunedIndex(keys),
            gone=np.ones(rows, dtype=np.bool_),
        )

    def take(self, ring: Ring, slot: int, symbol: str) -> None:
        """Take over an entry that leaves the ring, as it is."""
        row = int(ring.ids[slot]) - self.first
        for name in COLUMNS:
            getattr(self, name)[row] = getattr(ring, name)[slot]
        self.symbols[row] = self.number(symbol)
        self.index.write(row)
        self.gone[row] = False
        self.count += 1
        self.latest = max(self.latest, int(ring.visible_from[slot]))
        self.longest = max(self.longest, float(np.sqrt(rescore(self.keys[row : row + 1], self.keys[row]))[0]))

    def fill(self, state: BankState, rows: IntArray, config: BankConfig) -> None:
        """Take over some rows of columns, of entries whose primary outcome is known."""
        mine, known = state.ids[rows] - self.first, state.settled_times[rows]
        for name in COLUMNS:
            if name not in ("symbols", "usable_from"):
                getattr(self, name)[mine] = getattr(state, name)[rows]
        numbers = np.array([self.number(name) for name in state.names] or [0], dtype=np.int32)
        self.symbols[mine] = numbers[state.symbols[rows]]
        self.usable_from[mine] = usable_times(config, known)
        for row in mine.tolist():
            self.index.write(row)
        self.gone[mine] = False
        self.count += len(mine)
        self.latest = max(self.latest, int(self.usable_from[mine, config.primary].max()))
        self.longest = max(self.longest, float(np.sqrt(rescore(self.keys[mine], self.keys[mine]).max())))

    def seal(self) -> None:
        """All of its entries have come: learn the index once and for all."""
        self.sealed = True
        if self.scans_bounds:
            self.index = PrunedIndex.fitted(self.keys, *PrunedIndex(self.keys).fit())

    @property
    def scans_bounds(self) -> bool:
        """Whether it is so large that its index scans bounds, not all keys."""
        return len(self.gone) >= WORTHWHILE

    def number(self, symbol: str) -> int:
        """Number of a symbol in this segment, a new one if it has none yet."""
        number = self._numbers.setdefault(symbol, len(self.names))
        if number == len(self.names):
            self.names.append(symbol)
        return number

    def holds(self, entry_id: int) -> bool:
        """Whether this entry is here."""
        row = entry_id - self.first
        return 0 <= row < len(self.gone) and not self.gone[row]

    def forget(self, entry_id: int) -> None:
        """An entry that is here is gone."""
        self.gone[entry_id - self.first] = True
        self.count -= 1

    def forget_before(self, entry_id: int) -> None:
        """All entries below an id are gone."""
        self.gone[: max(0, entry_id - self.first)] = True
        self.count = len(self.gone) - int(np.count_nonzero(self.gone))

    def forget_all_but(self, ids: IntArray) -> None:
        """All entries but these are gone; those that are gone already stay so."""
        held = np.zeros(len(self.gone), dtype=np.bool_)
        held[ids - self.first] = True
        self.gone |= ~held
        self.count = len(self.gone) - int(np.count_nonzero(self.gone))

    def state(self, rows: IntArray, config: BankConfig, *, next_id: int) -> BankState:
        """Some of its entries as columns, as if no decision had used them."""
        usable = self.usable_from[rows]
        columns = {name: getattr(self, name)[rows] for name in COLUMNS if name != "usable_from"}
        return BankState(
            next_id=next_id,
            last_times={},
            names=tuple(self.names),
            ids=self.first + rows,
            settled_times=np.where(usable == NEVER, NEVER, usable - config.embargo_ms),
            hits=np.zeros(len(rows), dtype=np.int32),
            last_hits=np.full(len(rows), NOT_YET, dtype=np.int64),
            credits=np.zeros(len(rows), dtype=np.int64),
            **columns,
        )

    def find(self, symbol: str, bar_time: int) -> int | None:
        """Id of the entry of a bar, if it is here."""
        if symbol not in self.names:
            return None
        rows = np.flatnonzero((self.bar_times == bar_time) & ~self.gone)
        mine = rows[self.symbols[rows] == self.names.index(symbol)]
        return self.first + int(mine[0]) if len(mine) else None

    def eligible(self, question: Question, primary: int) -> Eligible:
        """What a search may choose from: what was visible at its time, less what it leaves out."""
        hidden, visible = self.gone, self.count
        if question.as_of < self.latest:
            hidden = hidden | (self.usable_from[:, primary] > question.as_of)
            visible = len(hidden) - int(np.count_nonzero(hidden))
        if question.symbols is not None:
            unwanted = np.array([name not in question.symbols for name in self.names] or [True], dtype=np.bool_)
            hidden = hidden | np.take(unwanted, self.symbols)
            visible = len(hidden) - int(np.count_nonzero(hidden))
        policy, asker = question.policy, question.asker
        if policy is None or not policy.excludes:
            return Eligible(hidden, visible, visible)
        number = self.names.index(asker.symbol) if asker is not None and asker.symbol in self.names else EMPTY
        out = excluded(policy, asker, symbols=self.symbols, asker_symbol=number, regimes=self.regimes)
        hidden = hidden | out
        return Eligible(hidden, len(hidden) - int(np.count_nonzero(hidden)), visible)

    def nearest(self, question: Question, hidden: BoolArray, k: int, known: float) -> tuple[IntArray, ScoreArray]:
        """Ids and scores of its ``k`` nearest, best first, as far as they reach a score that ``k`` others are known to have."""
        query = question.query
        rows = self.index.candidates(hidden, query, k, question.margin, known=known)
        scores = rescore(self.keys[rows], query[0])
        best = best_first(scores, rows, k)
        return self.first + rows[best], scores[best]
