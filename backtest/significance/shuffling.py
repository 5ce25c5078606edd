"""The memory's own null hypothesis: the same moments, found in the same way, with what followed other moments.

Every entry is given the outcomes of an earlier entry of its symbol, drawn at random among those whose outcomes are all known,
at the time at which its own would have become known. So the twin sees as much, as early and as often, from the same
distribution, and nothing of it has to do with the moment that it is attached to. Nothing later is used.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from memory_store import BankConfig, MemoryBank
from strategies.base import Strategy

_NOBODY: Final = -1


class ShuffledOutcomes(MemoryBank):
    """A bank that settles its entries with outcomes of others.

    Args:
        config: see ``MemoryBank``.
        encoder_version: see ``MemoryBank``.
        seed: of the draws.
    """

    def __init__(self, config: BankConfig, *, encoder_version: str, seed: int) -> None:
        super().__init__(config, encoder_version=encoder_version)
        self._random = np.random.default_rng(seed)
        self._symbols: dict[int, str] = {}
        self._true: dict[int, list[float]] = {}
        """Outcomes of entries that are not all known yet."""
        self._known: dict[str, list[tuple[float, ...]]] = {}
        """Outcomes that are, by symbol."""
        self._donor: dict[int, int] = {}

    def append(self, key: npt.ArrayLike, *, symbol: str, bar_time: int, regime: int = 0, novelty: float = 0.0) -> int:
        """See ``MemoryBank.append``."""
        entry_id = super().append(key, symbol=symbol, bar_time=bar_time, regime=regime, novelty=novelty)
        self._symbols[entry_id] = symbol
        return entry_id

    def settle(self, entry_id: int, horizon: int, outcome: float, settled_time: int) -> None:
        """Note what followed, and tell the memory what followed another."""
        symbol = self._symbols[entry_id]
        pool = self._known.setdefault(symbol, [])
        if entry_id not in self._donor:
            self._donor[entry_id] = int(self._random.integers(len(pool))) if pool else _NOBODY
        donor = self._donor[entry_id]
        told = outcome if donor == _NOBODY else pool[donor][horizon]
        super().settle(entry_id, horizon, told, settled_time)
        true = self._true.setdefault(entry_id, [])
        true.append(outcome)
        if len(true) == len(self.config.horizons):
            pool.append(tuple(self._true.pop(entry_id)))
            del self._donor[entry_id], self._symbols[entry_id]


def shuffle_memory(strategy: Strategy, seed: int) -> None:
    """Give a strategy that is not warmed yet a memory that tells outcomes of other moments.

    Args:
        strategy: with a memory.
        seed: of the draws; other seeds are other twins.
    """
    assert strategy.bank is not None, "a strategy without a memory has nothing to shuffle"
    bank = ShuffledOutcomes(strategy.bank.config, encoder_version=strategy.bank.encoder_version, seed=seed)
    strategy.attach_bank(bank)
