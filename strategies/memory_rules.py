"""Rules of the memory that every strategy with one obeys: who stays, who may answer, who may come in."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from memory_store import BankConfig, Metric
from memory_store.policy import RegimeRule, RetrievalPolicy, Scope
from memory_store.records import Eviction, IndexKind
from strategies.bars import DAY_MS
from strategies.errors import SettingsError

EVERY_BAR: Final = 10**9
"""As many past bars as there are: wanted by a memory that does not simply keep the latest."""


EXACT_UP_TO: Final = 262_144
"""Moments up to which an exact search takes less than a millisecond, so that nothing speaks for another one."""


class IndexRule(StrEnum):
    """How neighbours are found."""

    AUTO = "auto"
    """Exactly up to ``EXACT_UP_TO`` moments, and above approximately, where the oldest makes room."""
    EXACT = "exact"
    APPROXIMATE = "approximate"

    def kind(self, capacity: int, eviction: Eviction) -> IndexKind:
        """What it means for a memory of so many moments."""
        if self is not IndexRule.AUTO:
            return IndexKind(self.value)
        return IndexKind.APPROXIMATE if capacity > EXACT_UP_TO and eviction is Eviction.FIFO else IndexKind.EXACT


@dataclass(frozen=True, slots=True)
class MemoryRules:
    """Settings of a memory; the default keeps the latest moments and asks all of them alike.

    Raises:
        SettingsError: a value is out of range.
    """

    eviction: Eviction = Eviction.FIFO
    """Which moment makes room for a new one."""
    eviction_half_life_days: float = 365.0
    """How much longer a moment of double importance stays, where importance counts."""
    index: IndexRule = IndexRule.AUTO
    """How neighbours are found."""
    sealed_size: int = 0
    """Moments kept beyond the memory's size, in sealed segments, where the oldest makes room."""
    age_half_life_days: float = 0.0
    """Age after which a neighbour counts half; 0 lets nothing age."""
    scope: Scope = Scope.ALL
    """Whose moments answer, seen from the symbol that asks."""
    regimes: RegimeRule = RegimeRule.ANY
    """What the regime of a moment is to a search."""
    regime_penalty: float = 1.0
    """E-folds of weight that another regime costs under ``RegimeRule.PREFER``."""
    minimum_similarity: float = -1.0
    """Cosine below which a moment is no neighbour; -1 takes all."""
    one_per_moment: bool = False
    """Whether of moments that overlap in time only the best answers."""
    glitch_wick: float = 8.0
    """See ``strategies.admission``; 0 admits every bar."""

    def __post_init__(self) -> None:
        checks = (
            ("eviction", self.eviction in tuple(Eviction), f"one of {', '.join(Eviction)}"),
            ("eviction_half_life_days", 0.0 < self.eviction_half_life_days <= 1e6, "above 0 and at most 1000000"),
            ("index", self.index in tuple(IndexRule), f"one of {', '.join(IndexRule)}"),
            ("sealed_size", 0 <= self.sealed_size <= 10**9, "between 0 and 1000000000"),
            ("age_half_life_days", 0.0 <= self.age_half_life_days <= 1e6, "between 0 and 1000000"),
            ("scope", self.scope in tuple(Scope), f"one of {', '.join(Scope)}"),
            ("regimes", self.regimes in tuple(RegimeRule), f"one of {', '.join(RegimeRule)}"),
            ("regime_penalty", 0.0 <= self.regime_penalty < math.inf, "0 or more"),
            ("minimum_similarity", -1.0 <= self.minimum_similarity <= 1.0, "between -1 and 1"),
            ("glitch_wick", 0.0 <= self.glitch_wick < math.inf, "0 or more"),
        )
        for name, sound, allowed in checks:
            if not sound:
                raise SettingsError(f"memory: {name} is {getattr(self, name)}; it must be {allowed}")
        object.__setattr__(self, "eviction", Eviction(self.eviction))
        object.__setattr__(self, "index", IndexRule(self.index))
        if self.index is IndexRule.APPROXIMATE and not self.keeps_latest:
            raise SettingsError(f"memory: eviction is {self.eviction.value}; with index approximate it must be fifo")
        if self.sealed_size and not self.keeps_latest:
            raise SettingsError(f"memory: eviction is {self.eviction.value}; with a sealed_size it must be fifo")
        object.__setattr__(self, "scope", Scope(self.scope))
        object.__setattr__(self, "regimes", RegimeRule(self.regimes))

    @property
    def keeps_latest(self) -> bool:
        """Whether the memory is a function of its latest moments alone, so that older bars need not be shown to it."""
        return self.eviction is Eviction.FIFO

    def bank_config(
        self,
        *,
        capacity: int,
        dimension: int,
        horizons: tuple[int, ...],
        primary: int,
        embargo_ms: int,
        outcome_scale: float,
    ) -> BankConfig:
        """The shape and rules of a bank of cosine keys.

        What only importance looks at is left at its default where the oldest makes room, so that it makes no difference to
        which stored bank fits.

        Args:
            capacity: entries.
            dimension: of keys.
            horizons: in bars.
            primary: index into horizons.
            embargo_ms: milliseconds.
            outcome_scale: size of an ordinary outcome over the primary horizon, a log return.
        """
        config = BankConfig(
            capacity=capacity,
            dimension=dimension,
            horizons=horizons,
            primary=primary,
            embargo_ms=embargo_ms,
            metric=Metric.COSINE,
            eviction=self.eviction,
            half_life_ms=0 if self.keeps_latest else max(1, round(self.eviction_half_life_days * DAY_MS)),
            index=self.index.kind(capacity, self.eviction),
            sealed=self.sealed_size,
        )
        return config if self.keeps_latest else replace(config, outcome_scale=outcome_scale)

    def policy(self, *, temperature: float, cluster_ms: int) -> RetrievalPolicy | None:
        """The policy of searches, ``None`` where it would change nothing.

        Args:
            temperature: of the vote, in which penalties are counted.
            cluster_ms: moments closer than this overlap.
        """
        policy = RetrievalPolicy(
            minimum_similarity=None if self.minimum_similarity == -1.0 else self.minimum_similarity,
            half_life_ms=max(1, round(self.age_half_life_days * DAY_MS)) if self.age_half_life_days else None,
            temperature=temperature,
            scope=self.scope,
            regimes=self.regimes,
            regime_penalty=self.regime_penalty,
            cluster_ms=cluster_ms,
            one_per_moment=self.one_per_moment,
        )
        return None if policy.changes_nothing else policy
