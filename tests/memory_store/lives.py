"""Banks that lived: moments of several symbols, decided with the help of neighbours, settled, forgotten, pruned."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import sqlalchemy as sa

from memory_store import BankConfig, MemoryBank, Metric
from memory_store.records import Eviction
from memory_store.storage import create_bank, load_bank, write_changes

BAR_MS: Final = 1000
SYMBOLS: Final = ("BTCUSDT", "ETHUSDT", "SOLUSDT")


def config_of(eviction: Eviction = Eviction.FIFO, *, capacity: int = 40, dimension: int = 5) -> BankConfig:
    return BankConfig(
        capacity=capacity,
        dimension=dimension,
        horizons=(1, 3),
        primary=1,
        embargo_ms=BAR_MS,
        metric=Metric.COSINE,
        eviction=eviction,
        half_life_ms=0 if eviction is Eviction.FIFO else 20 * BAR_MS,
        outcome_scale=0.5,
    )


@dataclass
class Life:
    """A bank and the market that it lives through; every bar is a step."""

    bank: MemoryBank
    seed: int = 0
    now: int = 0
    """Close of the last bar, milliseconds."""
    forgetful: bool = True
    """Evict some entries now and then."""
    ids: dict[str, list[int]] = field(default_factory=dict)

    def live(self, bars: int) -> None:
        for _ in range(bars):
            self.now += BAR_MS
            random = np.random.default_rng((self.seed, self.now))
            trading = [symbol for symbol in SYMBOLS if random.random() < 0.8]
            for symbol in trading:
                self._settle(symbol, random)
            for symbol in trading:
                self._decide(symbol, random)
            if self.forgetful and random.random() < 0.1:
                self.bank.evict([entry.entry_id for entry in self.bank.entries() if random.random() < 0.05])

    def _settle(self, symbol: str, random: np.random.Generator) -> None:
        past = self.ids.setdefault(symbol, [])
        for horizon, ago in enumerate(self.bank.config.horizons):
            if len(past) >= ago:
                self.bank.settle(past[-ago], horizon, float(random.standard_normal()), self.now)

    def _decide(self, symbol: str, random: np.random.Generator) -> None:
        key = random.standard_normal(self.bank.config.dimension)
        found = self.bank.search(key, as_of=self.now, k=4)
        entry_id = self.bank.append(
            key,
            symbol=symbol,
            bar_time=self.now - BAR_MS,
            regime=int(random.integers(3)),
            novelty=float(random.random()),
        )
        self.ids[symbol].append(entry_id)
        if found.count:
            weights = random.random(found.count)
            self.bank.note(entry_id, as_of=self.now, ids=found.ids[found.mask], weights=weights)


def new_life(engine: sa.Engine, config: BankConfig, name: str = "paper", *, seed: int = 0) -> tuple[int, Life]:
    """A bank in a database, and its life."""
    with engine.begin() as connection:
        bank_id = create_bank(connection, name, config, "v1")
    return bank_id, Life(MemoryBank(config, encoder_version="v1"), seed)


def save(engine: sa.Engine, bank_id: int, life: Life) -> None:
    """Make what happened durable, at the time of the last bar."""
    with engine.begin() as connection:
        write_changes(connection, bank_id, life.bank.take_changes(), life.now)


def load(engine: sa.Engine, bank_id: int, *, as_of: int | None = None) -> MemoryBank:
    with engine.connect() as connection:
        return load_bank(connection, bank_id, as_of=as_of)
