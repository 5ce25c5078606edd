"""The whole memory in plain Python: dictionaries, loops and ``math.fsum``. Slow, obvious, and nothing shared with the real one.

Every rule is written down as the documentation states it, so that the real bank, its indexes and its durable form can be
compared with it step by step.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any


@dataclass
class PlainRecollection:
    ids: list[int]
    weights: list[int]
    outcomes: list[Fraction]
    """Primary outcomes of the neighbours, which were known when the question was asked."""


@dataclass
class PlainMoment:
    entry_id: int
    symbol: str
    bar_time: int
    key: list[float]
    regime: int
    novelty: float
    settled: dict[int, tuple[float, int]] = field(default_factory=dict)
    hits: int = 0
    last_hit: int | None = None
    credit: int = 0
    recollection: PlainRecollection | None = None
    sealed: bool = False
    """Left the ring: kept as it was, and as if no decision had used it."""

    def seal(self) -> None:
        self.sealed, self.recollection = True, None
        self.hits, self.last_hit, self.credit = 0, None, 0


@dataclass
class PlainBank:
    capacity: int
    primary: int
    embargo_ms: int
    horizons: int
    eviction: str = "fifo"
    half_life_ms: int = 0
    outcome_scale: float = 1.0
    sealed: int = 0
    moments: dict[int, PlainMoment] = field(default_factory=dict)
    next_id: int = 0
    last_times: dict[str, int] = field(default_factory=dict)

    # -- writing

    def append(self, key: list[float], symbol: str, bar_time: int, regime: int, novelty: float) -> list[int]:
        """Remember; returns who had to go."""
        victims = self.victims(regime)
        for victim in victims:
            del self.moments[victim]
        self.moments[self.next_id] = PlainMoment(self.next_id, symbol, bar_time, key, regime, novelty)
        self.last_times[symbol] = bar_time
        self.next_id += 1
        return victims

    def settle(self, entry_id: int, horizon: int, outcome: float, settled_time: int) -> bool:
        """Returns whether it is news."""
        moment = self.moments.get(entry_id)
        if moment is None or moment.sealed or horizon in moment.settled:
            return False
        moment.settled[horizon] = (outcome, settled_time)
        if horizon == self.primary and moment.recollection is not None:
            self.give_credit(moment.recollection, Fraction(outcome))
        return True

    def note(self, asker_id: int, as_of: int, ids: list[int], weights: list[int]) -> tuple[list[int], list[int]] | None:
        """Returns what is remembered: who has left since it answered is left out."""
        pairs = zip(ids, weights, strict=True)
        held = [(i, weight) for i, weight in pairs if i in self.moments and not self.moments[i].sealed]
        if not any(weight for _, weight in held):
            return None
        ids, weights = [entry_id for entry_id, _ in held], [weight for _, weight in held]
        outcomes = [Fraction(self.moments[entry_id].settled[self.primary][0]) for entry_id in ids]
        self.moments[asker_id].recollection = PlainRecollection(ids, weights, outcomes)
        self.count_hits(ids, as_of)
        return ids, weights

    def count_hits(self, ids: list[int], as_of: int) -> None:
        for entry_id in ids:
            neighbour = self.moments.get(entry_id)
            if neighbour is not None and not neighbour.sealed:
                neighbour.hits += 1
                neighbour.last_hit = max(as_of, neighbour.last_hit if neighbour.last_hit is not None else as_of)

    def give_credit(self, recollection: PlainRecollection, outcome: Fraction) -> None:
        """How much worse the forecast would have been without each neighbour, in whole units of 2**-32 of a scale."""
        scale = Fraction(self.outcome_scale)
        votes = list(zip(recollection.ids, recollection.weights, recollection.outcomes, strict=True))
        error = abs(outcome - weighted_mean(votes))
        for vote in votes:
            without = abs(outcome - weighted_mean([other for other in votes if other is not vote]))
            if vote[0] in self.moments and not self.moments[vote[0]].sealed and vote[1] > 0:
                self.moments[vote[0]].credit += round((without - error) / scale * 2**32)

    def evict(self, ids: list[int]) -> None:
        for entry_id in ids:
            del self.moments[entry_id]

    # -- who goes

    def importance(self, moment: PlainMoment) -> float:
        size = abs(moment.settled[self.primary][0]) if self.primary in moment.settled else 0.0
        return 1.0 + moment.novelty + size / self.outcome_scale + max(0, moment.credit) / 2**32

    def priority(self, moment: PlainMoment) -> int:
        return moment.bar_time + round(self.half_life_ms * math.log2(self.importance(moment)))

    def victims(self, regime: int) -> list[int]:
        """Who leaves before a moment of this regime comes."""
        if self.eviction == "fifo":
            return self.turn(self.next_id - self.capacity)
        if len(self.moments) < self.capacity:
            return []
        candidates = list(self.moments.values())
        if self.eviction == "reservoir":
            sizes = Counter(moment.regime for moment in candidates)
            if regime in sizes:
                sizes[regime] += 1
            largest = min(sizes, key=lambda label: (-sizes[label], label))
            candidates = [moment for moment in candidates if moment.regime == largest]
        return [min(candidates, key=lambda moment: (self.priority(moment), moment.entry_id)).entry_id]

    def turn(self, leaving: int) -> list[int]:
        """An entry leaves the ring: into the archive if its outcome is known, whose oldest leaves for it."""
        moment = self.moments.get(leaving)
        if moment is not None and self.sealed and self.primary in moment.settled:
            moment.seal()
            leaving -= self.sealed
            return [leaving] if leaving in self.moments else []
        return [i for i in self.moments if i == leaving or (self.sealed and i == leaving - self.sealed)]

    def prunable(self, as_of: int, unused_for_ms: int | None, credit_below: float | None) -> list[int]:
        units = None if credit_below is None else round(Fraction(credit_below) / Fraction(self.outcome_scale) * 2**32)
        return [
            moment.entry_id
            for moment in self.moments.values()
            if not moment.sealed
            if (unused_for_ms is not None and moment.hits == 0 and moment.bar_time < as_of - unused_for_ms)
            or (units is not None and moment.credit < units)
        ]

    # -- asking

    def usable(self, moment: PlainMoment, horizon: int, as_of: int) -> bool:
        return horizon in moment.settled and moment.settled[horizon][1] + self.embargo_ms <= as_of

    def visible(self, as_of: int, symbols: list[str] | None = None) -> list[PlainMoment]:
        asked = [m for m in self.moments.values() if symbols is None or m.symbol in symbols]
        return [m for m in asked if self.usable(m, self.primary, as_of)]

    def outcomes(self, moment: PlainMoment, as_of: int) -> list[float]:
        return [
            moment.settled[horizon][0] if self.usable(moment, horizon, as_of) else math.nan
            for horizon in range(self.horizons)
        ]


def product(key: list[float], query: list[float]) -> float:
    return math.fsum(a * b for a, b in zip(key, query, strict=True))


def weighted_mean(votes: list[tuple[int, int, Fraction]]) -> Fraction:
    """Of the outcomes of (id, weight, outcome); zero of nothing: who has no neighbour forecasts no move."""
    total = sum(weight for _, weight, _ in votes)
    return sum((weight * outcome for _, weight, outcome in votes), Fraction()) / total if total else Fraction()


def preference(policy: Any, asker: Any, score: float, moment: PlainMoment) -> float | None:
    """What a neighbour is worth under a policy; ``None`` for one that the policy leaves out."""
    same_symbol = asker is not None and moment.symbol == asker.symbol
    if policy.minimum_similarity is not None and score < policy.minimum_similarity:
        return None
    if (policy.scope == "same" and not same_symbol) or (policy.scope == "other" and same_symbol):
        return None
    other_regime = asker is not None and moment.regime != asker.regime
    if policy.regimes == "same" and other_regime:
        return None
    folds = 0.0
    if policy.half_life_ms is not None:
        folds += math.log(2.0) * max(0, asker.bar_time - moment.bar_time) / policy.half_life_ms
    if policy.regimes == "prefer" and other_regime:
        folds += policy.regime_penalty
    return score - policy.temperature * folds


def one_per_moment(ranked: list[PlainMoment], cluster_ms: int) -> list[PlainMoment]:
    """In order, leaving out whoever is closer in time than ``cluster_ms`` to one already taken."""
    taken: list[PlainMoment] = []
    for moment in ranked:
        if all(abs(moment.bar_time - other.bar_time) >= cluster_ms for other in taken):
            taken.append(moment)
    return taken


@dataclass
class PlainTables:
    """What was committed, and when: enough to say what the memory was at any past moment."""

    appended: list[tuple[int, PlainMoment]] = field(default_factory=list)
    evicted: list[tuple[int, int]] = field(default_factory=list)
    settled: list[tuple[int, int, float, int]] = field(default_factory=list)
    noted: list[tuple[int, int, list[int], list[int]]] = field(default_factory=list)

    def as_of(self, time: int, empty: PlainBank) -> PlainBank:
        """The memory at a past moment: entries by when they were written and evicted, all else by when it became known."""
        plain = empty
        gone = {entry_id for when, entry_id in self.evicted if when <= time}
        outcomes: dict[int, Fraction] = {}
        for when, moment in self.appended:
            if when <= time:
                plain.next_id = moment.entry_id + 1
                plain.last_times[moment.symbol] = moment.bar_time
                if moment.entry_id not in gone:
                    plain.moments[moment.entry_id] = replace(moment, settled={})
        for entry_id, horizon, outcome, known in self.settled:
            if known <= time and horizon == plain.primary:
                outcomes[entry_id] = Fraction(outcome)
            if known <= time and entry_id in plain.moments:
                plain.moments[entry_id].settled[horizon] = (outcome, known)
        for asker_id, asked, ids, weights in self.noted:
            if asked <= time:
                plain.count_hits(ids, asked)
                if asker_id in outcomes:
                    advice = PlainRecollection(ids, weights, [outcomes[entry_id] for entry_id in ids])
                    plain.give_credit(advice, outcomes[asker_id])
        for entry_id, moment in list(plain.moments.items()):
            if plain.sealed and entry_id < plain.next_id - plain.capacity:
                moment.seal()
                if plain.primary not in moment.settled:
                    del plain.moments[entry_id]
        return plain
