"""How a strategy reads its memory: what explanations need in order to ask and to weigh neighbours as its decisions do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

from memory_store import BankConfig
from memory_store.policy import RetrievalPolicy
from strategies.bars import interval_ms
from strategies.base import Strategy
from strategies.shape import SHAPE_WINDOW
from strategies.similarity import SimilarityStrategy

if TYPE_CHECKING:
    from strategies.memory_transformer.strategy import MemoryTransformerStrategy

_NEIGHBORS: Final = 32
_TEMPERATURE: Final = 0.07


@dataclass(frozen=True, slots=True)
class Reading:
    """Terms of a question to the memory."""

    n_neighbors: int
    temperature: float
    """Of the softmax over similarities."""
    cluster_ms: int
    """Moments closer than this count as one."""
    policy: RetrievalPolicy | None = None
    """Which neighbours are wanted beyond being alike; ``None``: the nearest."""
    learned_until: int | None = None
    """Close of the last bar that the strategy's model was trained on, milliseconds; ``None`` where nothing was."""


def reading_of(strategy: Strategy, bank: BankConfig, interval: str) -> Reading:
    """How this strategy asks; for a strategy of the user's own the defaults of the built-in ones.

    Args:
        strategy: the strategy.
        bank: shape and rules of its memory.
        interval: of its bars.
    """
    if isinstance(strategy, SimilarityStrategy):
        settings = strategy.settings
        span_ms = (SHAPE_WINDOW + settings.primary) * interval_ms(interval)
        policy = settings.rules.policy(temperature=settings.temperature, cluster_ms=span_ms)
        return Reading(settings.n_neighbors, settings.temperature, span_ms, policy)
    span_ms = bank.horizons[bank.primary] * interval_ms(interval) + bank.embargo_ms
    if strategy.name == "memory_transformer":
        return _of_transformer(cast("MemoryTransformerStrategy", strategy), span_ms)
    return Reading(_NEIGHBORS, _TEMPERATURE, span_ms)


def _of_transformer(strategy: MemoryTransformerStrategy, span_ms: int) -> Reading:
    settings = strategy.settings
    neighbors = settings.n_neighbors or strategy.bundle.config.n_neighbors
    temperature = strategy.bundle.model.memory_read.temperature
    policy = settings.rules.policy(temperature=temperature, cluster_ms=span_ms)
    return Reading(neighbors, temperature, span_ms, policy, strategy.bundle.training_span[1])
