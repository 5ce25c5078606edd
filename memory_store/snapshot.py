"""The snapshot of a bank: what its ring holds, in one file.

Its arrays are those of a ``BankState``; see ``memory_store.array_file``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from memory_store.array_file import AnyArray, UnusableFile, read_arrays, write_arrays
from memory_store.columns import ENTRY_COLUMNS
from memory_store.records import MemoryBankError, Recollection
from memory_store.registry import StoredBank, config_columns
from memory_store.restoration import BankState

SNAPSHOT_FORMAT: Final = 2
_MAGIC: Final = b"MEMSNAP\0"
_NAME_LENGTH: Final = 80
_RECOLLECTIONS: Final = "recollections"
"""Fields of a state that become arrays under this name, all those of one kind one after the other."""


class Past(NamedTuple):
    """What the database had of the entries that a snapshot knows, in numbers that tell one past from another.

    Who goes on from an older copy of a database makes other entries, decisions and outcomes than the one before him, at other
    times. Sums of times are of what is left of each after whole turns, see ``memory_store.opening``.
    """

    written: int
    """Sum of the times at which entries were written."""
    recollections: int
    """Askers that noted their neighbours."""
    asked: int
    """Sum of the times at which they asked."""
    until: int
    """Latest time at which an asker's primary outcome became known, milliseconds; 0 without any."""
    credited: int
    """Askers with such an outcome by then."""
    credited_ids: int
    """Sum of their ids."""
    credited_times: int
    """Sum of the times at which their outcomes became known."""


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """What a snapshot file says."""

    state: BankState
    """Arrays lie in the file, read-only."""
    past: Past
    """Of entries below ``state.next_id``, when it was written."""


def snapshot_path(folder: Path, name: str) -> Path:
    """Where the snapshot of a bank lies: names may hold what no file name can."""
    return folder / f"{quote(name, safe='')[:_NAME_LENGTH]}-{sha256(name.encode()).hexdigest()[:8]}.snapshot"


def write_snapshot(path: Path, stored: StoredBank, snapshot: Snapshot) -> None:
    """Write a snapshot whole or not at all; one that is there is replaced.

    Raises:
        MemoryBankError: the file cannot be written, for example because the disk is full.
    """
    header = {
        **identity(stored),
        "next_id": snapshot.state.next_id,
        "last_times": dict(snapshot.state.last_times),
        "names": snapshot.state.names,
        "past": snapshot.past,
    }
    try:
        write_arrays(path, _MAGIC, SNAPSHOT_FORMAT, header, _arrays_of(snapshot.state))
    except OSError as problem:
        raise MemoryBankError(
            f"the snapshot {path} could not be written: {problem.strerror or problem}; check the folder and the disk, "
            "nothing is lost"
        ) from None


def read_snapshot(path: Path, stored: StoredBank) -> Snapshot:
    """The snapshot in a file.

    Raises:
        UnusableFile: there is none, it is damaged, of another format, or of another bank than this one.
    """
    header, arrays = read_arrays(path, _MAGIC, SNAPSHOT_FORMAT, "snapshot", partial(check_identity, stored))
    return Snapshot(_state_of(header, arrays), Past(*header["past"]))


def identity(stored: StoredBank) -> dict[str, Any]:
    """What a file and a bank must have in common."""
    return {"bank": stored.name, "encoder_version": stored.encoder_version, "config": config_columns(stored.config)}


def check_identity(stored: StoredBank, header: Mapping[str, Any]) -> None:
    """Refuse a file of another bank.

    Raises:
        UnusableFile: it is.
    """
    if header["bank"] != stored.name:
        raise UnusableFile(f"it is of memory bank {header['bank']!r}")
    if {name: header[name] for name in identity(stored)} != identity(stored):
        raise UnusableFile("it is of a bank with another encoder or other rules")


def _arrays_of(state: BankState) -> dict[str, AnyArray]:
    """Everything in a state that has a place in arrays, by name, in the byte order of the file."""
    arrays = {name: getattr(state, name) for name in ENTRY_COLUMNS}
    arrays |= {f"{_RECOLLECTIONS}.{name}": value for name, value in _recollection_arrays(state).items()}
    return {name: np.ascontiguousarray(value, dtype=value.dtype.newbyteorder("<")) for name, value in arrays.items()}


def _recollection_arrays(state: BankState) -> dict[str, AnyArray]:
    def joined(parts: Iterable[AnyArray], dtype: npt.DTypeLike) -> AnyArray:
        return np.concatenate([np.empty(0, dtype=dtype), *parts])

    waiting = state.recollections
    return {
        "askers": np.array([each.asker_id for each in waiting], dtype=np.int64),
        "times": np.array([each.as_of for each in waiting], dtype=np.int64),
        "lengths": np.array([len(each.ids) for each in waiting], dtype=np.int64),
        "ids": joined((each.ids for each in waiting), np.int64),
        "weights": joined((each.weights for each in waiting), np.float64),
        "outcomes": joined(state.recalled, np.float64),
    }


def _state_of(header: Mapping[str, Any], arrays: Mapping[str, AnyArray]) -> BankState:
    own = {name: array for name, array in arrays.items() if "." not in name}
    # Copies: the bank keeps these, and the file need not stay mapped for them.
    waiting = {name.partition(".")[2]: array.copy() for name, array in arrays.items() if "." in name}
    last = np.cumsum(waiting["lengths"])
    spans = [slice(end - length, end) for end, length in zip(last.tolist(), waiting["lengths"].tolist(), strict=True)]
    return BankState(
        next_id=header["next_id"],
        last_times=header["last_times"],
        names=tuple(header["names"]),
        **own,
        recollections=tuple(
            Recollection(asker, time, waiting["ids"][span], waiting["weights"][span])
            for asker, time, span in zip(waiting["askers"].tolist(), waiting["times"].tolist(), spans, strict=True)
        ),
        recalled=tuple(waiting["outcomes"][span] for span in spans),
    )
