"""Memories as files: what has to be known of a bank besides its entries, so that it can be asked elsewhere."""

from __future__ import annotations

from pathlib import Path

import msgspec

from bot.assembly import build_strategy, home_of
from bot.banks.moments import bank_of
from bot.config import Config
from bot.errors import UsageError
from bot.journal import RunKind, RunRecord
from bot.session import Session
from memory_store.transfer import Export, read_export
from strategies.bars import Calendar


def imported_record(config: Config, path: Path, name: str) -> RunRecord:
    """The record of a bank that is made from an export: its own, or for an export without one the configured strategy.

    The memory of a run becomes a copy: its entries came from decisions, which cannot be repeated without the run.

    Raises:
        UsageError: the export does not say how it was made, and the configured strategy makes other keys.
        MemoryBankError: the file is no export.
    """
    export = read_export(path)
    if not export.note:
        return _configured_record(config, export, path, name)
    try:
        record = msgspec.json.decode(export.note, type=RunRecord)
    except msgspec.MsgspecError as problem:
        raise UsageError(
            f"what {path} says of how its memory was made is not understood: {problem}; export it again with this version"
        ) from None
    if record.kind is RunKind.MEMORY:
        return msgspec.structs.replace(record, run_id=name)
    return msgspec.structs.replace(record, run_id=name, kind=RunKind.MEMORY, source=record.run_id, copied=True)


def _configured_record(config: Config, export: Export, path: Path, name: str) -> RunRecord:
    home, market = home_of(config), config.market
    strategy, model_id = build_strategy(config, market.symbols, market.interval, home.models)
    made = bank_of(strategy).encoder_version
    if made != export.encoder_version:
        raise UsageError(
            f"{path} holds keys of encoder {export.encoder_version}, and {strategy.name} makes {made}; name what made them "
            "with --strategy and --model"
        )
    calendars = dict.fromkeys(market.symbols, Calendar.CONTINUOUS)
    session = Session(config, home, market.symbols, market.interval, calendars, {}, strategy, model_id, {})
    return msgspec.structs.replace(session.record(name, RunKind.MEMORY), copied=True)
