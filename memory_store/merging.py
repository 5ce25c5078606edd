"""Several banks as one: their moments in the order of time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import sqlalchemy as sa

from memory_store.reading import load_bank
from memory_store.recollection_rows import read_recollections
from memory_store.records import BankChanges, BankConfig, Entry, MemoryBankError, Recollection, Settlement
from memory_store.registry import StoredBank, create_bank, read_bank
from memory_store.schema import begin_writing
from memory_store.storage import write_changes

Moment = tuple[int, str]
"""Bar time and symbol: what an entry is of, in every bank."""


@dataclass(slots=True)
class _Merged:
    """The moments of the banks seen so far."""

    entries: dict[Moment, Entry] = field(default_factory=dict)
    homes: dict[Moment, str] = field(default_factory=dict)
    """Name of the bank that a moment was first found in."""
    recollections: dict[Moment, tuple[Recollection, list[Moment]]] = field(default_factory=dict)
    """By asker, with its neighbours."""


def merge_banks(
    connection: sa.Connection, bank_ids: Sequence[int], name: str, *, at_time: int, capacity: int | None = None
) -> int:
    """Make a new bank of the entries that banks hold, in the caller's transaction; returns its id.

    Entries come in the order of their bar times, those of one time by symbol, and get new ids. A moment that several banks
    hold is kept once, with the outcomes that any of them knows and the least novelty, for the banks together knew
    more. What decisions remembered is kept where its asker and all of its neighbours are; of one asker the first
    bank's.

    Args:
        connection: open, its transaction committed by the caller, and rolled back where this raises.
        bank_ids: of two or more banks of the same encoder and rules, but for their capacity.
        name: of the new bank.
        at_time: milliseconds, recorded as the time of writing.
        capacity: of the new bank; where none is given, that of all banks together.

    Raises:
        MemoryBankError: a bank is not there or of another kind, two disagree about a moment, the entries do not fit the
            capacity, or a bank of the new name exists.
    """
    if len(set(bank_ids)) < 2:
        raise MemoryBankError("merging takes two or more different memory banks")
    begin_writing(connection)
    banks = [read_bank(connection, bank_id) for bank_id in bank_ids]
    for other in banks[1:]:
        _check_alike(banks[0], other)
    config = replace(banks[0].config, capacity=capacity or sum(bank.config.capacity for bank in banks))
    merged = _Merged()
    for bank in banks:
        _add(connection, merged, bank)
    if len(merged.entries) > config.holds:
        raise MemoryBankError(
            f"the banks hold {len(merged.entries)} different entries, more than a capacity of {config.holds}; give at "
            f"least {len(merged.entries)}"
        )
    new_id = create_bank(connection, name, config, banks[0].encoder_version)
    write_changes(connection, new_id, _changes(merged), at_time)
    return new_id


def _check_alike(first: StoredBank, other: StoredBank) -> None:
    """Refuse banks whose entries do not go together."""
    pairs: list[tuple[str, Any, Any]] = [("encoder_version", first.encoder_version, other.encoder_version)]
    pairs += [
        (each.name, getattr(first.config, each.name), getattr(other.config, each.name))
        for each in fields(BankConfig)
        if each.name != "capacity"
    ]
    for what, one, two in pairs:
        if one != two:
            raise MemoryBankError(
                f"memory banks {first.name!r} and {other.name!r} cannot be merged: {what} is {one!r} and {two!r}"
            )


def _add(connection: sa.Connection, merged: _Merged, stored: StoredBank) -> None:
    """Add what a bank holds."""
    bank = load_bank(connection, stored.bank_id, record_changes=False)
    moments: dict[int, Moment] = {}
    for entry in bank.entries():
        moment = (entry.bar_time, entry.symbol)
        moments[entry.entry_id] = moment
        known = merged.entries.get(moment)
        merged.entries[moment] = entry if known is None else _united(known, entry, merged.homes[moment], stored.name)
        merged.homes.setdefault(moment, stored.name)
    for recollection in read_recollections(connection, stored.bank_id):
        named = [moments.get(entry_id) for entry_id in (recollection.asker_id, *recollection.ids.tolist())]
        here = [moment for moment in named if moment is not None]
        if len(here) == len(named):
            merged.recollections.setdefault(here[0], (recollection, here[1:]))


def _united(one: Entry, two: Entry, first: str, second: str) -> Entry:
    """One moment of what two banks know of it."""

    def disagree(what: str, left: object, right: object) -> MemoryBankError:
        return MemoryBankError(
            f"memory banks {first!r} and {second!r} disagree about {one.symbol} at {one.bar_time}: {what} is {left} and "
            f"{right}; rebuild one of them"
        )

    if one.key.tobytes() != two.key.tobytes():
        place = int(np.argmax(one.key != two.key))
        raise disagree(f"key[{place}]", one.key[place], two.key[place])
    if one.regime != two.regime:
        raise disagree("regime", one.regime, two.regime)
    outcomes, times = list(one.outcomes), list(one.settled_times)
    for horizon, (outcome, time) in enumerate(zip(two.outcomes, two.settled_times, strict=True)):
        if outcomes[horizon] is None:
            outcomes[horizon], times[horizon] = outcome, time
        elif outcome is not None and (outcome, time) != (outcomes[horizon], times[horizon]):
            raise disagree(f"outcome[{horizon}]", (outcomes[horizon], times[horizon]), (outcome, time))
    novelty = min((each.novelty for each in (one, two) if each.novelty), default=0.0)
    return replace(one, outcomes=tuple(outcomes), settled_times=tuple(times), novelty=novelty)


def _changes(merged: _Merged) -> BankChanges:
    """What a bank would have recorded that was given these moments."""
    new_ids = {moment: new_id for new_id, moment in enumerate(sorted(merged.entries))}
    appended = tuple(replace(merged.entries[moment], entry_id=new_id) for moment, new_id in new_ids.items())
    recollections = (
        Recollection(new_ids[asker], each.as_of, np.array([new_ids[moment] for moment in named]), each.weights)
        for asker, (each, named) in merged.recollections.items()
    )
    return BankChanges(
        appended=appended,
        settlements=tuple(_settlements(appended)),
        recollections=tuple(sorted(recollections, key=lambda each: each.asker_id)),
    )


def _settlements(entries: Sequence[Entry]) -> Iterator[Settlement]:
    for entry in entries:
        for horizon, (outcome, time) in enumerate(zip(entry.outcomes, entry.settled_times, strict=True)):
            if outcome is not None and time is not None:
                yield Settlement(entry.entry_id, horizon, outcome, time)
