"""The memory bank in plain Python: lists, dictionaries and ``math.fsum``, nothing shared with the real one."""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass
class Moment:
    entry_id: int
    symbol: str
    bar_time: int
    key: list[float]
    regime: int
    settled: dict[int, tuple[float, int]] = field(default_factory=dict)


@dataclass
class Oracle:
    capacity: int
    primary: int
    embargo_ms: int
    horizons: int
    cosine: bool
    moments: list[Moment] = field(default_factory=list)
    next_id: int = 0

    def append(self, key: list[float], symbol: str, bar_time: int, regime: int) -> None:
        self.moments.append(Moment(self.next_id, symbol, bar_time, key, regime))
        self.next_id += 1
        self.moments = self.moments[-self.capacity :]

    def settle(self, entry_id: int, horizon: int, outcome: float, settled_time: int) -> None:
        for moment in self.moments:
            if moment.entry_id == entry_id:
                moment.settled.setdefault(horizon, (outcome, settled_time))

    def usable(self, moment: Moment, horizon: int, as_of: int) -> bool:
        return horizon in moment.settled and moment.settled[horizon][1] + self.embargo_ms <= as_of

    def visible(self, as_of: int, symbols: list[str] | None) -> list[Moment]:
        asked = [m for m in self.moments if symbols is None or m.symbol in symbols]
        return [m for m in asked if self.usable(m, self.primary, as_of)]

    def score(self, moment: Moment, query: list[float]) -> float:
        product = math.fsum(a * b for a, b in zip(moment.key, query, strict=True))
        if not self.cosine:
            return product
        return product / math.sqrt(math.fsum(a * a for a in moment.key) * math.fsum(b * b for b in query))

    def outcomes(self, moment: Moment, as_of: int) -> list[float]:
        return [
            moment.settled[horizon][0] if self.usable(moment, horizon, as_of) else math.nan
            for horizon in range(self.horizons)
        ]
