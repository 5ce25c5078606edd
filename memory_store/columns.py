"""Columns of bank states: some of the rows, two states one after the other.

``BankState`` is the one list of what an entry consists of; whatever moves entries in bulk goes by ``ENTRY_COLUMNS``.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, Final

import numpy as np

from memory_store.records import BoolArray
from memory_store.restoration import BankState

ENTRY_COLUMNS: Final = tuple(
    each.name
    for each in fields(BankState)
    if each.name not in ("next_id", "last_times", "names", "recollections", "recalled")
)
"""Fields of a state that are arrays with one row per entry."""


def only(state: BankState, kept: BoolArray) -> BankState:
    """Some of the entries of a state, ``[n]``; all else stays as it is."""
    if kept.all():
        return state
    return replace(state, **{name: getattr(state, name)[kept] for name in ENTRY_COLUMNS})


def joined(state: BankState, later: BankState) -> BankState:
    """The entries of a state and after them those of a later one, with greater ids; recollections stay those of the first."""
    names = tuple(dict.fromkeys((*state.names, *later.names)))
    places = np.array([names.index(name) for name in later.names], dtype=np.int32)
    later = replace(later, symbols=places[later.symbols])
    columns: dict[str, Any] = {
        name: np.concatenate((getattr(state, name), getattr(later, name))) for name in ENTRY_COLUMNS
    }
    # A symbol's time goes on, so the later word is the latest.
    last_times = {**state.last_times, **later.last_times}
    return replace(state, next_id=later.next_id, last_times=last_times, names=names, **columns)
