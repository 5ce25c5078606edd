"""What goes into a memory bank and what comes out: frozen records, and the one error."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from memory_store.moments import Independence, independence

if TYPE_CHECKING:
    from memory_store.approximate import CellsLookedInto
    from memory_store.policy import RetrievalPolicy

KeyArray = npt.NDArray[np.float32]
ScoreArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


TIME_LIMIT: Final = 2**62
"""Times and spans of this many milliseconds and more are mistakes."""
REGIME_LIMIT: Final = 2**31
"""Regimes are 32-bit numbers."""
DEFAULT_TEMPERATURE: Final = 0.07
"""Points of similarity that make one e-fold of weight, where nobody says otherwise."""
LARGEST_NOVELTY: Final = float(np.finfo(np.float32).max)
"""Novelties are kept as float32."""
SMALLEST_SCALE: Final = 1e-100
"""Outcomes of ordinary size are neither smaller than this nor larger than its inverse."""
_THE_SCORES: Final[ScoreArray] = np.empty(0)
"""Stands for preferences that are the scores."""


class MemoryBankError(ValueError):
    """A bank was asked for something that its rules forbid; the message is one sentence that names it."""


class Metric(StrEnum):
    """How alike two keys are; greater is closer."""

    COSINE = "cosine"
    """Inner product of the keys scaled to length one, in [-1, 1]."""
    INNER_PRODUCT = "inner_product"
    """Inner product of the keys as they are."""


class Eviction(StrEnum):
    """Which entry makes room at capacity."""

    FIFO = "fifo"
    """The oldest."""
    IMPORTANCE = "importance"
    """The least important; twice the importance stays one half-life longer."""
    RESERVOIR = "reservoir"
    """The least important of the regime that holds most entries."""


class IndexKind(StrEnum):
    """How neighbours are found."""

    EXACT = "exact"
    """All of the nearest, always."""
    APPROXIMATE = "approximate"
    """Nearly all of them, faster; scores are exact."""


@dataclass(frozen=True, slots=True)
class BankConfig:
    """The shape and the rules of a bank; they never change during its life.

    Raises:
        MemoryBankError: a value is out of range.
    """

    capacity: int
    """Entries held in memory at most; ``eviction`` says which makes room for the next."""
    dimension: int
    """Numbers in a key."""
    horizons: tuple[int, ...]
    """Spans over which outcomes are recorded, in the caller's unit (bars), strictly increasing."""
    primary: int
    """Index into ``horizons``: an entry becomes visible through the outcome of this one."""
    embargo_ms: int
    """Milliseconds that must pass after an outcome is known before a search may use it."""
    metric: Metric
    eviction: Eviction = Eviction.FIFO
    half_life_ms: int = 0
    """How much longer an entry of double importance stays, milliseconds; positive unless first in, first out."""
    outcome_scale: float = 1.0
    """Size of an ordinary outcome, the unit in which importance measures outcomes and credit; positive."""
    index: IndexKind = IndexKind.EXACT
    sealed: int = 0
    """Entries kept beyond ``capacity``: those that had to make room, in sealed segments; see ``memory_store.archive``."""

    def __post_init__(self) -> None:
        if self.capacity < 1:
            raise MemoryBankError(f"capacity is {self.capacity}; a memory bank holds at least 1 entry")
        if self.dimension < 1:
            raise MemoryBankError(f"dimension is {self.dimension}; a key has at least 1 number")
        increasing = all(a < b for a, b in zip(self.horizons, self.horizons[1:], strict=False))
        if not self.horizons or self.horizons[0] < 1 or not increasing:
            raise MemoryBankError(f"horizons are {self.horizons}; give one or more positive spans in increasing order")
        if not 0 <= self.primary < len(self.horizons):
            raise MemoryBankError(f"primary is {self.primary}; it is an index into the {len(self.horizons)} horizons")
        if not 0 <= self.embargo_ms < TIME_LIMIT:
            raise MemoryBankError(f"embargo_ms is {self.embargo_ms}; give 0 or more milliseconds, fewer than 2**62")
        if not 0 <= self.half_life_ms < TIME_LIMIT:
            raise MemoryBankError(f"half_life_ms is {self.half_life_ms}; give 0 or more milliseconds, fewer than 2**62")
        if self.eviction is not Eviction.FIFO and self.half_life_ms == 0:
            raise MemoryBankError(f"half_life_ms is 0; eviction by {self.eviction.value} needs a positive one")
        if self.index is IndexKind.APPROXIMATE and self.eviction is not Eviction.FIFO:
            # Cells are learned from entries that a reopened bank must still hold, so that it learns the same.
            raise MemoryBankError(
                f"index is approximate and eviction {self.eviction.value}; an approximate index needs eviction fifo"
            )
        if not 0 <= self.sealed < TIME_LIMIT:
            raise MemoryBankError(f"sealed is {self.sealed}; give 0 or more entries")
        if self.sealed and self.eviction is not Eviction.FIFO:
            raise MemoryBankError(
                f"sealed is {self.sealed} and eviction {self.eviction.value}; only what leaves by age can be sealed, with fifo"
            )
        if not SMALLEST_SCALE <= self.outcome_scale <= 1.0 / SMALLEST_SCALE:
            raise MemoryBankError(f"outcome_scale is {self.outcome_scale}; give a positive number such as 0.02")

    @property
    def holds(self) -> int:
        """Entries held at most, sealed ones included."""
        return self.capacity + self.sealed


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """One remembered moment."""

    entry_id: int
    """Stable for ever: counted from 0 in the order of appending, never given twice."""
    symbol: str
    bar_time: int
    """Name of the bar, milliseconds."""
    key: KeyArray
    """``[dimension]``, read-only; of length one where the metric is cosine."""
    regime: int
    encoder_version: str
    """Which encoder made the key."""
    outcomes: tuple[float | None, ...]
    """Per horizon, ``None`` while pending."""
    settled_times: tuple[int | None, ...]
    """Per horizon, when its outcome became known, milliseconds; ``None`` while pending."""
    novelty: float = 0.0
    """One minus the best similarity that the search of its own bar found; 0 where nobody said."""
    hits: int = 0
    """Decisions that used it."""
    last_hit: int | None = None
    """When it was last used, milliseconds."""
    credit: float = 0.0
    """How much it improved the forecasts that used it, in units of the outcome; negative where it misled."""


@dataclass(frozen=True, slots=True)
class Settlement:
    """An outcome that became known."""

    entry_id: int
    horizon: int
    """Index into the bank's horizons."""
    outcome: float
    settled_time: int
    """Milliseconds."""


@dataclass(frozen=True, slots=True, eq=False)
class Recollection:
    """What a decision remembered: the neighbours that spoke for it."""

    asker_id: int
    """The entry of the bar that was decided."""
    as_of: int
    """When it asked, milliseconds."""
    ids: IntArray
    """``[n]`` the neighbours, best first."""
    weights: ScoreArray
    """``[n]`` their shares of the vote, not negative."""


@dataclass(frozen=True, slots=True)
class BankChanges:
    """What happened to a bank since it was last asked, each kind in the order in which it happened.

    ``appended`` shows entries as they were appended, all horizons pending; what was settled since is in ``settlements``.
    An entry may be in ``appended`` and in ``evicted``.
    """

    appended: tuple[Entry, ...] = ()
    settlements: tuple[Settlement, ...] = ()
    evicted: tuple[int, ...] = ()
    recollections: tuple[Recollection, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.appended or self.settlements or self.evicted or self.recollections)


@dataclass(frozen=True, slots=True, eq=False)
class SearchResult:
    """The nearest visible entries to one query, best first; equal ones in the order of their ids.

    All arrays have ``k`` rows. Where fewer entries were visible, the rows at the end are masked: id -1, score -inf, key
    and time 0, regime -1, empty symbol, outcomes nan. Under a policy the order is that of preferences.
    """

    ids: IntArray
    scores: ScoreArray
    mask: BoolArray
    """True where the row is a real neighbour."""
    keys: KeyArray
    """``[k, dimension]``."""
    outcomes: ScoreArray
    """``[k, horizons]``; nan where an outcome was not yet usable at the time asked."""
    bar_times: IntArray
    symbols: tuple[str, ...]
    regimes: IntArray
    visible: int
    """Entries that the search could choose from: visible then, and of the symbols asked for."""
    preferences: ScoreArray = field(default_factory=lambda: _THE_SCORES)
    """What each is worth to the asker under the policy; the scores without one. Masked rows: -inf."""
    policy: RetrievalPolicy | None = None
    """By which they were chosen."""

    def __post_init__(self) -> None:
        if self.preferences is _THE_SCORES:
            object.__setattr__(self, "preferences", self.scores)

    @property
    def count(self) -> int:
        """How many rows are real neighbours."""
        return int(np.count_nonzero(self.mask))

    def with_visible(self, visible: int) -> SearchResult:
        """The same with another count of entries to choose from; ``dataclasses.replace`` takes three times as long."""
        return SearchResult(
            self.ids,
            self.scores,
            self.mask,
            self.keys,
            self.outcomes,
            self.bar_times,
            self.symbols,
            self.regimes,
            visible,
            self.preferences,
            self.policy,
        )

    @property
    def moments(self) -> int:
        """Neighbours, those that the policy takes for one moment counted once."""
        return self._independence().moments

    @property
    def effective(self) -> float:
        """Effective number of independent moments (Kish): few if one outweighs the others; 0 without neighbours."""
        return self._independence().effective

    def _independence(self) -> Independence:
        cluster_ms = 0 if self.policy is None else self.policy.cluster_ms
        temperature = DEFAULT_TEMPERATURE if self.policy is None else self.policy.temperature
        return independence(self.preferences, self.bar_times, self.mask, cluster_ms=cluster_ms, temperature=temperature)


@dataclass(frozen=True, slots=True, eq=False)
class Proposal:
    """The neighbours of a block of queries among the entries that later searches cannot lose: the *stable* set.

    Made by ``MemoryBank.propose`` and handed back to ``MemoryBank.search``, which adds the entries outside the stable set
    and otherwise computes nothing twice. Rows whose queries are too alike to everything (``complete`` False), and rows that
    have since lost neighbours to eviction beyond those listed in reserve, are searched in full.
    """

    as_of: int
    k: int
    queries: KeyArray
    """``[n, dimension]`` as searched."""
    ids: IntArray
    """``[n, m]`` best first, ``m`` at least k; -1 where the stable set has fewer."""
    scores: ScoreArray
    """``[n, m]`` exact; -inf where ``ids`` is -1."""
    complete: BoolArray
    """``[n]``."""
    slots: IntArray
    """``[n, m]`` where those entries lie."""
    stable_count: int
    first_stable: int
    """Lowest id of the stable set."""
    outside: IntArray
    """Ids that lived when the proposal was made and are not in the stable set."""
    outside_slots: IntArray
    """Where they lie."""
    next_id: int
    """The id that the next append was going to get."""
    owner: int
    """Number of the ring that it was made for."""
    looked_into: CellsLookedInto | None = field(default=None, repr=False)
    """Where an approximate index looked for them; ``None`` where it was everywhere."""
