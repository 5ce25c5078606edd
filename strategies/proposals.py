"""Neighbours proposed in bulk: what makes replay fast without changing a bit of it.

A replay knows the bars it is going to show. Their keys are computed ahead, and each time it reaches a new chunk the
bank is asked for the neighbours of the whole chunk at once. The bank adds to a proposal whatever became visible since,
scores exactly, and searches in full where a proposal does not fit, so results are those of single searches.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from memory_store import MemoryBank, Proposal
from strategies.bars import Bar, BarSeries

CHUNK: Final = 128
"""Batches of bars that close together whose neighbours are proposed at once."""


class ProposalPlan:
    """The queries to come, cut into chunks, and the proposal for the chunk being replayed.

    Args:
        upcoming: bars to come, per symbol.
        keys: ``[n, d]`` per symbol, the query of every such bar; a zero row for a bar that will not ask.
    """

    __slots__ = ("_as_of", "_bank", "_chunk", "_places", "_proposal", "_queries", "_skip_oldest")

    def __init__(
        self,
        upcoming: Mapping[str, BarSeries] | None = None,
        keys: Mapping[str, npt.NDArray[np.float32]] | None = None,
    ) -> None:
        self._queries: list[npt.NDArray[np.float32]] = []
        self._as_of: list[int] = []
        self._places: dict[tuple[str, int], tuple[int, int]] = {}
        self._chunk = -1
        self._bank: MemoryBank | None = None
        self._proposal: Proposal | None = None
        self._skip_oldest = CHUNK * len(upcoming or {})
        series = {symbol: bars for symbol, bars in (upcoming or {}).items() if len(bars)}
        if series and keys is not None:
            self._cut(series, keys)

    def _cut(self, upcoming: Mapping[str, BarSeries], keys: Mapping[str, npt.NDArray[np.float32]]) -> None:
        symbols = list(upcoming)
        closed = np.concatenate([upcoming[symbol].close_time for symbol in symbols])
        opened = np.concatenate([upcoming[symbol].open_time for symbol in symbols])
        numbers = np.repeat(np.arange(len(symbols)), [len(upcoming[symbol]) for symbol in symbols])
        queries = np.concatenate([keys[symbol] for symbol in symbols])
        chunks = np.unique(closed, return_inverse=True)[1] // CHUNK
        order = np.lexsort((numbers, closed))
        order = order[queries[order].any(axis=1)]
        if not len(order):
            return
        for members in np.split(order, np.flatnonzero(np.diff(chunks[order])) + 1):
            names = [symbols[number] for number in numbers[members].tolist()]
            for row, (symbol, time) in enumerate(zip(names, opened[members].tolist(), strict=True)):
                self._places[symbol, time] = (len(self._queries), row)
            self._queries.append(queries[members])
            self._as_of.append(int(closed[members[0]]))

    def proposal(self, bank: MemoryBank, bar: Bar, k: int) -> tuple[Proposal | None, int]:
        """The proposal that covers a bar of the plan, and its row there; ``None`` for any other bar.

        The bank checks that the query it is then asked is the one foreseen here.
        """
        chunk, row = self._places.get((bar.symbol, bar.open_time), (-1, 0))
        if chunk < 0:
            return None, 0
        if chunk != self._chunk or bank is not self._bank:
            self._chunk, self._bank = chunk, bank
            self._proposal = bank.propose(
                self._queries[chunk], as_of=self._as_of[chunk], k=k, skip_oldest=self._skip_oldest
            )
        return self._proposal, row
