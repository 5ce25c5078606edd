"""Settings of the strategy: how a forecast becomes a position. The model itself is in its bundle."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum

from strategies.errors import SettingsError
from strategies.memory_rules import MemoryRules


class ExitRule(StrEnum):
    """Where a signal puts its stop loss and its take profit."""

    FORECAST = "forecast"
    """At calibrated quantiles of the model's forecast, within bounds set by the volatility that it expects."""
    MEMORY = "memory"
    """At quantiles of what followed the neighbours, within bounds set by the volatility."""
    VOLATILITY = "volatility"
    """At multiples of the volatility over the primary horizon."""
    RISK = "risk"
    """Nowhere: the risk layer uses its own."""


@dataclass(frozen=True, slots=True)
class MemoryTransformerSettings:
    """Settings of the memory transformer strategy.

    Raises:
        SettingsError: a value is out of range.
    """

    memory_size: int | None = None
    """Moments remembered, of all symbols together; ``None`` takes the model's."""
    n_neighbors: int | None = None
    """Moments asked for per bar; ``None`` takes the model's."""
    entry_threshold: float = 0.4
    """Confidence below which the strategy abstains, in [0, 1]."""
    holding_bars: int = 24
    """Bars that each forecast is held for: the target is the mean of what the last so many wanted; 1 follows each alone."""
    minimum_neighbors: int = 8
    """Fewer than this many neighbours is no answer: the position is held and none is opened."""
    exits: ExitRule = ExitRule.FORECAST
    target_volatility: float = 0.8
    """Volatility per year that a whole position may have: it shrinks where more is forecast. 0 leaves sizes alone."""
    abstains: bool = True
    """Whether forecasts that validation found too uncertain to use are not traded."""
    needs_skill: bool = False
    """Whether a model whose direction has shown no skill on validation is not traded at all."""
    stop_multiple: float = 1.0
    """Stop distance in volatilities over the primary horizon, for ``exits = "volatility"``."""
    target_multiple: float = 1.5
    """Target distance in volatilities over the primary horizon, for ``exits = "volatility"``."""
    uses_memory: bool = True
    """Whether it remembers and asks; without, the model decides alone, as with an empty memory that it does not miss."""
    rules: MemoryRules = field(default_factory=MemoryRules)
    """Who stays in the memory, and who of it may answer."""

    def __post_init__(self) -> None:
        if self.exits not in tuple(ExitRule):
            raise SettingsError(f"memory_transformer: exits is {self.exits!r}; use {', '.join(ExitRule)}")
        object.__setattr__(self, "exits", ExitRule(self.exits))
        if not self.uses_memory and self.exits is ExitRule.MEMORY:
            raise SettingsError("memory_transformer: exits is memory, and there is none; use another rule")
        checks = (
            ("memory_size", self.memory_size is None or self.memory_size >= 1, "at least 1"),
            ("n_neighbors", self.n_neighbors is None or self.n_neighbors >= 1, "at least 1"),
            ("entry_threshold", 0.0 <= self.entry_threshold <= 1.0, "between 0 and 1"),
            ("holding_bars", self.holding_bars >= 1, "at least 1"),
            ("minimum_neighbors", self.minimum_neighbors >= 1, "at least 1"),
            ("target_volatility", 0.0 <= self.target_volatility < math.inf, "0 or more"),
            ("stop_multiple", 0.0 < self.stop_multiple < math.inf, "above 0"),
            ("target_multiple", 0.0 < self.target_multiple < math.inf, "above 0"),
        )
        for name, sound, allowed in checks:
            if not sound:
                raise SettingsError(f"memory_transformer: {name} is {getattr(self, name)}; it must be {allowed}")
