"""Which neighbours are wanted beyond being alike: recent ones, of the same regime, of this symbol, one per moment.

A policy turns a similarity into a *preference* by taking penalties off it, and leaves some entries out. Penalties are
never negative and subtraction rounds monotonically, so a preference never exceeds its similarity: whoever has looked at
every entry above some similarity knows the order of all preferences above it. That is what keeps a search under a policy
exact (see :func:`is_final`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from memory_store.moments import first_of_each_moment
from memory_store.records import TIME_LIMIT, BoolArray, IntArray, MemoryBankError, ScoreArray

_LOG_2: Final = math.log(2.0)


class Scope(StrEnum):
    """Whose moments answer."""

    ALL = "all"
    """Those of all symbols."""
    SAME = "same"
    """Those of the asker's symbol alone."""
    OTHER = "other"
    """Those of every other symbol."""


class RegimeRule(StrEnum):
    """What the regime of a moment is to a search."""

    ANY = "any"
    """Nothing."""
    SAME = "same"
    """Only moments of the asker's regime answer."""
    PREFER = "prefer"
    """Moments of another regime are penalised."""


@dataclass(frozen=True, slots=True)
class Asker:
    """Who searches: the moment that a policy compares entries with."""

    symbol: str
    regime: int
    bar_time: int
    """Milliseconds."""


@dataclass(frozen=True, slots=True)
class RetrievalPolicy:
    """Rules of a search. The default changes nothing.

    Penalties are counted in e-folds of a neighbour's weight: one e-fold is ``temperature`` points of similarity, so that a
    neighbour one half-life older weighs half as much under a softmax of that temperature.

    Raises:
        MemoryBankError: a value is out of range.
    """

    minimum_similarity: float | None = None
    """Entries that are less alike are no neighbours; ``None`` takes all."""
    half_life_ms: int | None = None
    """Age after which a neighbour counts half, milliseconds; ``None`` lets nothing age."""
    temperature: float = 0.07
    """Points of similarity that make one e-fold of weight, positive."""
    scope: Scope = Scope.ALL
    regimes: RegimeRule = RegimeRule.ANY
    regime_penalty: float = 1.0
    """E-folds of weight that another regime costs under ``RegimeRule.PREFER``, not negative."""
    cluster_ms: int = 0
    """Moments closer than this are one, milliseconds; 0 makes each its own."""
    one_per_moment: bool = False
    """Whether of every moment only the most preferred neighbour answers."""

    def __post_init__(self) -> None:
        minimum, half_life = self.minimum_similarity, self.half_life_ms
        checks = (
            ("minimum_similarity", minimum is None or math.isfinite(minimum), "a finite number or none"),
            ("half_life_ms", half_life is None or 0 < half_life < TIME_LIMIT, "1 millisecond or more, or none"),
            ("temperature", 0.0 < self.temperature < math.inf, "above 0"),
            ("scope", self.scope in tuple(Scope), ", ".join(Scope)),
            ("regimes", self.regimes in tuple(RegimeRule), ", ".join(RegimeRule)),
            ("regime_penalty", 0.0 <= self.regime_penalty < math.inf, "0 or more"),
            ("cluster_ms", 0 <= self.cluster_ms < TIME_LIMIT, "0 or more milliseconds"),
            ("one_per_moment", self.cluster_ms > 0 or not self.one_per_moment, "used with a positive cluster_ms"),
        )
        for name, sound, allowed in checks:
            if not sound:
                raise MemoryBankError(f"{name} of the policy is {getattr(self, name)}; it must be {allowed}")
        object.__setattr__(self, "scope", Scope(self.scope))
        object.__setattr__(self, "regimes", RegimeRule(self.regimes))

    @property
    def needs_asker(self) -> bool:
        """Whether a search under this policy must say who asks."""
        return self.half_life_ms is not None or self.scope is not Scope.ALL or self.regimes is not RegimeRule.ANY

    @property
    def penalises(self) -> bool:
        """Whether preferences may be lower than similarities."""
        prefers = self.regimes is RegimeRule.PREFER and self.regime_penalty > 0.0
        return self.half_life_ms is not None or prefers

    @property
    def excludes(self) -> bool:
        """Whether it leaves entries out by what they are."""
        return self.scope is not Scope.ALL or self.regimes is RegimeRule.SAME

    @property
    def changes_nothing(self) -> bool:
        """Whether every search under this policy finds the neighbours that it would find without."""
        filters = self.excludes or self.minimum_similarity is not None
        return not (filters or self.penalises or self.one_per_moment)


def excluded(
    policy: RetrievalPolicy,
    asker: Asker | None,
    *,
    symbols: npt.NDArray[np.int32] | IntArray,
    asker_symbol: int,
    regimes: npt.NDArray[np.int32] | IntArray,
) -> BoolArray:
    """Which entries the policy leaves out before anything is compared, ``[m]``.

    Args:
        policy: the rules.
        asker: who asks.
        symbols: ``[m]`` numbers of the entries' symbols.
        asker_symbol: number of the asker's symbol; any number that no entry has where it is not known.
        regimes: ``[m]``.

    Raises:
        MemoryBankError: the policy needs an asker and there is none.
    """
    out = np.zeros(len(symbols), dtype=np.bool_)
    if policy.scope is Scope.SAME:
        out |= symbols != asker_symbol
    elif policy.scope is Scope.OTHER:
        out |= symbols == asker_symbol
    if policy.regimes is RegimeRule.SAME:
        out |= regimes != _present(policy, asker).regime
    elif policy.needs_asker:
        _present(policy, asker)
    return out


def preferences(
    policy: RetrievalPolicy,
    asker: Asker | None,
    scores: ScoreArray,
    *,
    bar_times: IntArray,
    regimes: npt.NDArray[np.int32] | IntArray,
) -> ScoreArray:
    """What entries are worth to the asker, ``[m]``, in float64 and in a fixed order of operations: the one routine for it.

    ``score - temperature * (ln 2 * age / half_life + regime_penalty * [another regime])``, ages from bar to bar and never
    below 0; -inf for a similarity below the minimum. Every entry's has the same bits however many are asked for at once,
    and none exceeds its score.

    Args:
        policy: the rules.
        asker: who asks.
        scores: ``[m]`` exact similarities.
        bar_times: ``[m]`` milliseconds.
        regimes: ``[m]``.

    Raises:
        MemoryBankError: the policy needs an asker and there is none.
    """
    worth = np.array(scores, dtype=np.float64)
    if policy.penalises:
        worth -= penalties(policy, asker, bar_times=bar_times, regimes=regimes)
    if policy.minimum_similarity is not None:
        worth[scores < policy.minimum_similarity] = -np.inf
    return worth


def penalties(
    policy: RetrievalPolicy,
    asker: Asker | None,
    *,
    bar_times: IntArray,
    regimes: npt.NDArray[np.int32] | IntArray,
) -> ScoreArray:
    """What the policy takes off similarities, ``[m]``, never negative; see :func:`preferences`."""
    who = _present(policy, asker)
    folds = np.zeros(len(bar_times), dtype=np.float64)
    if policy.half_life_ms is not None:
        ages = np.maximum(who.bar_time - bar_times, 0).astype(np.float64)
        folds += ages * (_LOG_2 / policy.half_life_ms)
    if policy.regimes is RegimeRule.PREFER:
        folds += policy.regime_penalty * (regimes != who.regime)
    folds *= policy.temperature
    return folds


def most_preferred(
    policy: RetrievalPolicy, worth: ScoreArray, *, ids: IntArray, bar_times: IntArray, k: int
) -> IntArray:
    """Places of the neighbours chosen from entries, most preferred first and equal ones in the order of ids; at most ``k``.

    With ``one_per_moment`` an entry is taken if no entry taken before it is closer than ``cluster_ms``.

    Args:
        policy: the rules.
        worth: ``[m]`` from ``preferences``; -inf is never chosen.
        ids: ``[m]``.
        bar_times: ``[m]`` milliseconds.
        k: neighbours wanted.
    """
    eligible = np.flatnonzero(worth > -np.inf)
    order = eligible[np.lexsort((ids[eligible], -worth[eligible]))]
    if not policy.one_per_moment:
        return order[:k]
    return order[first_of_each_moment(bar_times[order], policy.cluster_ms, k)]


def is_final(policy: RetrievalPolicy, chosen: ScoreArray, k: int, unseen: float) -> bool:
    """Whether a choice among some entries is the choice among all of them.

    The choice walks down the preferences and stops at the ``k``-th neighbour. An entry not looked at has a preference of
    at most its similarity, hence of at most ``unseen``; if that is below the last preference chosen, or below the least
    similarity allowed, the walk never meets it. An equal one might have a lower id.

    Args:
        policy: the rules.
        chosen: preferences of what ``most_preferred`` chose, in order.
        k: neighbours wanted.
        unseen: no entry that was left out of the choice is more similar; -inf where all were looked at.
    """
    if unseen == -math.inf:
        return True
    if policy.minimum_similarity is not None and unseen < policy.minimum_similarity:
        return True
    return len(chosen) == k and bool(chosen[-1] > unseen)


def _present(policy: RetrievalPolicy, asker: Asker | None) -> Asker:
    if asker is None:
        raise MemoryBankError(
            f"the policy asks for {_wants(policy)} and nobody said who asks; give the search an asker"
        )
    return asker


def _wants(policy: RetrievalPolicy) -> str:
    """What of the policy depends on the asker."""
    if policy.half_life_ms is not None:
        return "a half-life"
    return "one scope of symbols" if policy.scope is not Scope.ALL else "regimes"
