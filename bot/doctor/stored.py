"""What lies on this machine: disk, candles, the model, and the memory of the last run."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from bot.assembly import LATEST, Home, build_strategy, needs_model, needs_skill
from bot.config import Config
from bot.doctor.check import Check, check
from bot.errors import RecallError
from bot.journal import Journal, RunStatus, StoredRun
from bot.journal.records import TRADING
from bot.market.validation import validate
from strategies.bars import DAY_MS, BarSeries, format_time
from strategies.base import Strategy
from strategies.errors import StrategyError

LEAST_FREE_BYTES: Final = 1_000_000_000
STALE_DAYS: Final = 7
"""A model is trained on candles that old or newer; a start fetches what is missing."""
_RUNS: Final = 20


def stored_checks(config: Config, home: Home, now: int | None) -> list[Check]:
    """Everything that lies on this machine.

    Args:
        config: the settings.
        home: the market's folders.
        now: the present, milliseconds; ``None`` where the market's time is not this machine's.
    """
    config.storage.data_dir.mkdir(parents=True, exist_ok=True)
    strategy, checks = _strategy(config, home)
    return [
        disk_check(config.storage.data_dir),
        *checks,
        memory_check(config, home, strategy),
        *(candle_check(config, home, symbol, strategy, now) for symbol in config.market.symbols),
    ]


def disk_check(folder: Path) -> Check:
    """Whether there is room for what a run writes."""
    free = shutil.disk_usage(folder).free
    fix = "free some space, or move storage.data_dir"
    return check("disk", free >= LEAST_FREE_BYTES, f"{free / 1e9:.1f} GB free", fix)


def candle_check(config: Config, home: Home, symbol: str, strategy: Strategy | None, now: int | None) -> Check:
    """Whether there are enough candles, none is missing among them, and the newest is not old."""
    interval, name = config.market.interval, f"candles of {symbol}"
    needed = 1 if strategy is None else max(1, strategy.required_bars)
    fetch = f"recall fetch --symbols {symbol} --interval {interval}"
    if not _is_real(home):
        fetch = "start recall paper at this venue: it fetches them"
    try:
        series = home.candles.load(symbol, interval)
    except RecallError as problem:
        return Check(name, False, str(problem), f"delete {home.root / 'candles' / symbol / interval}, then {fetch}")
    if len(series) < needed:
        return Check(name, False, f"{len(series):,} stored, {needed:,} needed", fetch)
    found = f"{len(series):,} stored, {needed:,} needed, up to {format_time(int(series.close_time[-1]))}"
    missing = validate(series, series.calendar).missing_bars
    if missing:
        again = f"delete {home.root / 'candles' / symbol / interval}, then {fetch}"
        return Check(name, False, f"{found}; {missing:,} are missing between the first and the last", again)
    days = 0 if now is None else _age_days(series, now)
    return check(name, days <= STALE_DAYS, found if days <= STALE_DAYS else f"{found}, {days} days ago", fetch)


def _is_real(home: Home) -> bool:
    """Whether a market is one that ``recall fetch`` and ``recall train`` work on; others are filled by the runs at them."""
    return home.name in ("", "spot")


def memory_check(config: Config, home: Home, strategy: Strategy | None) -> Check:
    """Whether what the last run remembers fits what would ask it.

    A run goes on with the model that made its memory's keys; that model has to be there.
    """
    name = "memory"
    if strategy is not None and strategy.bank is None:
        return Check(name, True, "the strategy has none")
    try:
        run, encoder, moments = _last_memory(config, home)
    except RecallError as problem:
        return Check(name, False, str(problem), "mend what it names, or use another storage.data_dir")
    if run is None:
        return Check(name, True, "no run to go on with; a new one fills it from candles")
    found = f"{moments:,} moments of run {run.record.run_id}, by encoder {encoder}"
    if strategy is not None and strategy.bank is not None and strategy.bank.encoder_version == encoder:
        return Check(name, True, found)
    goes_on = needs_model(config) and config.model.id in (LATEST, encoder) and (home.models / encoder).is_dir()
    fix = "begin a new run with --new, which fills its memory anew"
    if needs_model(config):
        fix = f"put model {encoder} back into {home.models} and name it in model.id, or {fix}"
    return check(
        name, goes_on, f"{found}, which is not the newest model" if goes_on else f"{found}, which is not here", fix
    )


def _strategy(config: Config, home: Home) -> tuple[Strategy | None, list[Check]]:
    """The strategy, where it can be had, and what is to be said of it and its model."""
    name = "model" if needs_model(config) else "strategy"
    try:
        strategy, model_id = build_strategy(config, config.market.symbols, config.market.interval, home.models)
    except (RecallError, StrategyError) as problem:
        fix = "mend strategy.name and strategy.parameters"
        if needs_model(config):
            fix = f"recall train --symbols {','.join(config.market.symbols)} --interval {config.market.interval}"
            if not _is_real(home):
                fix = "start recall paper at this venue: it trains a first one"
            return None, [Check(name, False, str(problem).partition("; ")[0], fix)]
        return None, [Check(name, False, str(problem), fix)]
    if not model_id or strategy.learned_until is None:
        return strategy, [Check(name, True, config.strategy.name)]
    model = Check(name, True, f"{model_id}, learned up to {format_time(strategy.learned_until)}")
    return strategy, [model, direction_check(config, strategy)]


def direction_check(config: Config, strategy: Strategy) -> Check:
    """Whether what the positions of a model follow has shown skill; without, real money stays flat."""
    # Imported here because only a strategy with a model has loaded torch.
    from strategies.memory_transformer.strategy import MemoryTransformerStrategy

    assert isinstance(strategy, MemoryTransformerStrategy)
    if strategy.bundle.knows_direction:
        return Check("direction", True, "has shown skill on validation")
    found = "has shown no skill on validation"
    if config.signal.unproven != "auto":
        return Check("direction", True, f"{found}; signal.unproven = {config.signal.unproven}")
    fix = "train another model, or trade this one by name with --set signal.unproven=trade"
    return check("direction", not needs_skill(config), f"{found}: with real money it stays flat", fix)


def _last_memory(config: Config, home: Home) -> tuple[StoredRun | None, str, int]:
    """The newest run that would be gone on with and has a memory, its encoder and its size.

    Raises:
        StorageError: the journal is damaged, or of a newer version.
    """
    url = sa.engine.make_url(config.journal_url)
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():
        return None, "", 0
    with closing(Journal(config.journal_url, durable=True)) as journal:
        for run in journal.list_runs(kinds=TRADING, limit=_RUNS):
            is_here = run.record.candles == home.name and run.record.strategy == config.strategy.name
            if is_here and run.status is not RunStatus.FINISHED and run.bank_id is not None:
                memory = journal.read_memory(run.bank_id)
                return run, memory.bank.encoder_version, memory.statistics.held
    return None, "", 0


def _age_days(series: BarSeries, now: int) -> int:
    return int(max(0, now - int(series.close_time[-1])) // DAY_MS)
