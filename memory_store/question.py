"""What a search asks."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from memory_store.policy import Asker, RetrievalPolicy
from memory_store.records import KeyArray, ScoreArray


class Question(NamedTuple):
    """A search."""

    query: KeyArray
    """``[1, d]``."""
    margin: ScoreArray
    """``[1]`` from ``scan_margin``."""
    as_of: int
    """Milliseconds."""
    k: int
    """Neighbours wanted."""
    symbols: Collection[str] | None = None
    """Search only these."""
    policy: RetrievalPolicy | None = None
    """What is preferred beyond being alike."""
    asker: Asker | None = None
    """Who asks."""
