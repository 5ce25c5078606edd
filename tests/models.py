"""Tiny models through the real command line, and runs that trade with them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from bot.config import Config, load_config
from bot.journal import Journal
from bot.lifecycle.keeper import Arrival
from bot.lifecycle.preparation import Successor, prepare_memory
from bot.market.batches import batches
from bot.run import Run
from bot.session import Session, reopen_session, warm_again
from tests.runs import INTERVAL, journal_connection, recall, span, time_of

MARKET = ("--symbols", "BTCUSDT", "--interval", INTERVAL)
SANDBOX = ("--venue", "sandbox", "--set", "sandbox.source=store")
TINY = (
    "--set", "model.d_model=16", "--set", "model.n_heads=2", "--set", "model.d_ff=32", "--set", "model.attention_window=24",
    "--set", "memory.horizons=1,4,8", "--set", "memory.primary=8", "--set", "memory.embargo=12",
    "--set", "memory.n_neighbors=8", "--set", "memory.minimum_neighbors=4", "--memory-size", "400",
)  # fmt: skip
TRADES = ("--strategy", "memory_transformer", "--set", "signal.entry_threshold=0.2")


def train_tiny(data_dir: Path, end: int, *options: str) -> str:
    """Train a model on the bars before ``end`` for a moment; returns its id."""
    found = recall(data_dir, "train", *MARKET, *TINY, *span(0, end), "--epochs", "1", *options)
    return str(found["model_id"])


def paper_arguments(model_id: str, first: int, last: int) -> tuple[str, ...]:
    """A paper run that begins with a model."""
    return ("paper", *MARKET, *TINY, *TRADES, *SANDBOX, "--model", model_id, *span(first, last))


def rows(data_dir: Path, query: str) -> list[Any]:
    """What the journal's database answers."""
    engine = journal_connection(data_dir)
    try:
        with engine.connect() as connection:
            return [tuple(row) for row in connection.execute(sa.text(query))]
    finally:
        engine.dispose()


def config_of(data_dir: Path, *overrides: str) -> Config:
    """The configuration of tiny models."""
    shape = [text for text in TINY if "=" in text]
    given = [f"storage.data_dir={data_dir}", *shape, "memory.memory_size=400", *overrides]
    return load_config(None, overrides=given, environment={})


@contextmanager
def taken_up(data_dir: Path) -> Iterator[tuple[Run, Session, Journal]]:
    """The last paper run, gone on with as ``recall paper`` does, without a venue."""
    config = config_of(data_dir)
    with closing(Journal(config.journal_url, durable=True)) as journal:
        stored = journal.find_run("latest")
        session = reopen_session(config, stored, model_id=journal.model_of(stored))
        warm_again(session, journal, stored)
        trades: list[Any] = []
        run = Run(
            session.engine(stored.record.run_id, trades),
            journal,
            stored.record.run_id,
            bank_id=stored.bank_id,
            closed_trades=trades,
        )
        run.resume()
        yield run, session, journal


def decide(run: Run, session: Session, first: int, last: int) -> None:
    """Let a run decide on the stored bars from ``first`` to before ``last``."""
    series = {
        symbol: session.home.candles.load(symbol, INTERVAL, start=time_of(first), end=time_of(last))
        for symbol in session.symbols
    }
    for batch in batches(series):
        run.decide(batch)


def prepared(session: Session, journal: Journal, run: Run, model_id: str) -> Successor:
    """A model with its memory, ready to take over a run."""
    stored = journal.find_run(run.run_id)
    return Successor(session, journal, stored, prepare_memory(session, journal, stored, model_id))


def swap(session: Session, journal: Journal, run: Run, model_id: str) -> None:
    """Let a model take over a run now."""
    run.receive(Arrival(successor=prepared(session, journal, run, model_id)))
