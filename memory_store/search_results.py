"""The results of many searches as columns: a replay makes arrays of them again, and looks at few one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from memory_store.policy import RetrievalPolicy
from memory_store.records import BoolArray, IntArray, KeyArray, ScoreArray, SearchResult


@dataclass(frozen=True, slots=True, eq=False)
class SearchResults(Sequence[SearchResult]):
    """Results of ``n`` searches, ``[n, k, ...]`` each: see ``SearchResult`` for what they are."""

    ids: IntArray
    scores: ScoreArray
    mask: BoolArray
    keys: KeyArray
    """``[n, k, dimension]``."""
    outcomes: ScoreArray
    """``[n, k, horizons]``."""
    bar_times: IntArray
    symbols: npt.NDArray[Any]
    regimes: IntArray
    visible: Sequence[int]
    """``[n]``."""
    preferences: ScoreArray
    policy: RetrievalPolicy | None = None

    @classmethod
    def of(cls, results: Sequence[SearchResult]) -> SearchResults:
        """The same results, one or more, all with the same ``k`` and policy."""
        if isinstance(results, SearchResults):
            return results
        names = (
            "ids",
            "scores",
            "mask",
            "keys",
            "outcomes",
            "bar_times",
            "symbols",
            "regimes",
            "visible",
            "preferences",
        )
        ids, scores, mask, keys, outcomes, bar_times, symbols, regimes, visible, preferences = (
            [getattr(result, name) for result in results] for name in names
        )
        return cls(
            np.array(ids),
            np.array(scores),
            np.array(mask),
            np.array(keys),
            np.array(outcomes),
            np.array(bar_times),
            np.array(symbols, dtype=object),
            np.array(regimes),
            visible,
            np.array(preferences),
            results[0].policy,
        )

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, place: int) -> SearchResult: ...

    @overload
    def __getitem__(self, place: slice) -> SearchResults: ...

    def __getitem__(self, place: int | slice) -> SearchResult | SearchResults:
        ids, scores, mask = self.ids[place], self.scores[place], self.mask[place]
        keys, outcomes, times = self.keys[place], self.outcomes[place], self.bar_times[place]
        symbols, regimes, preferences = self.symbols[place], self.regimes[place], self.preferences[place]
        if isinstance(place, slice):
            visible = self.visible[place]
            return SearchResults(
                ids, scores, mask, keys, outcomes, times, symbols, regimes, visible, preferences, self.policy
            )
        names = tuple(symbols.tolist())
        return SearchResult(
            ids, scores, mask, keys, outcomes, times, names, regimes, self.visible[place], preferences, self.policy
        )
