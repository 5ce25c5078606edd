"""A bank's content in one file, mapped into memory: derived from the database, and never believed against it.

Layout, little-endian: magic, format, length and checksum of the header; the header, JSON; then the arrays of a
``BankState`` one after the other, each beginning at a multiple of 64 bytes and with a checksum of its own.
"""

from __future__ import annotations

import glob
import json
import os
import struct
import zlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from memory_store.columns import ENTRY_COLUMNS
from memory_store.records import MemoryBankError, Recollection
from memory_store.registry import StoredBank, config_columns
from memory_store.restoration import BankState

SNAPSHOT_FORMAT: Final = 1
_MAGIC: Final = b"MEMSNAP\0"
_PREFIX: Final = struct.Struct("<8sIII")
_ALIGNMENT: Final = 64
_NAME_LENGTH: Final = 80
_UNFINISHED: Final = ".tmp"
_RECOLLECTIONS: Final = "recollections"
"""Fields of a state that become arrays under this name, all those of one kind one after the other."""

AnyArray = npt.NDArray[Any]


class UnusableSnapshot(MemoryBankError):
    """A snapshot that says nothing about a bank; the message is a clause that says why."""


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """What a snapshot file says."""

    state: BankState
    """Arrays lie in the file, read-only."""
    recollections: int
    """Rows of recollections that the database had of askers below ``state.next_id``."""


def snapshot_path(folder: Path, name: str) -> Path:
    """Where the snapshot of a bank lies: names may hold what no file name can."""
    return folder / f"{quote(name, safe='')[:_NAME_LENGTH]}-{sha256(name.encode()).hexdigest()[:8]}.snapshot"


def write_snapshot(path: Path, stored: StoredBank, snapshot: Snapshot) -> None:
    """Write a snapshot whole or not at all; one that is there is replaced.

    Raises:
        MemoryBankError: the file cannot be written, for example because the disk is full.
    """
    arrays = _arrays_of(snapshot.state)
    described, offset = [], 0
    for name, array in arrays.items():
        offset = _aligned(offset)
        described.append([name, array.dtype.str, list(array.shape), offset, zlib.crc32(_bytes_of(array))])
        offset += array.nbytes
    header = json.dumps(
        {
            **_identity(stored),
            "next_id": snapshot.state.next_id,
            "last_times": dict(snapshot.state.last_times),
            "names": snapshot.state.names,
            "recollections": snapshot.recollections,
            "arrays": described,
            "bytes": offset,
        }
    ).encode()
    prefix = _PREFIX.pack(_MAGIC, SNAPSHOT_FORMAT, len(header), zlib.crc32(header))
    try:
        _write_atomically(path, _parts(prefix + header, arrays.values()))
    except OSError as problem:
        raise MemoryBankError(
            f"the snapshot {path} could not be written: {problem.strerror or problem}; check the folder and the disk, "
            "nothing is lost"
        ) from None


def read_snapshot(path: Path, stored: StoredBank) -> Snapshot:
    """The snapshot in a file.

    Raises:
        UnusableSnapshot: there is none, it is damaged, of another format, or of another bank than this one.
    """
    try:
        content: npt.NDArray[np.uint8] = np.memmap(path, dtype=np.uint8, mode="r")
    except FileNotFoundError:
        raise UnusableSnapshot("there was none") from None
    except (OSError, ValueError) as problem:
        raise UnusableSnapshot(f"it could not be read: {problem}") from None
    header, start = _read_header(content)
    if header["bank"] != stored.name:
        raise UnusableSnapshot(f"it is of memory bank {header['bank']!r}")
    if {name: header[name] for name in _identity(stored)} != _identity(stored):
        raise UnusableSnapshot("it is of a bank with another encoder or other rules")
    if len(content) != start + header["bytes"]:
        raise UnusableSnapshot(f"it has {len(content)} bytes instead of {start + header['bytes']}")
    arrays = {}
    for name, dtype, shape, offset, checksum in header["arrays"]:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        part = content[start + offset : start + offset + size]
        if zlib.crc32(part.data) != checksum:
            raise UnusableSnapshot(f"its {name} are damaged")
        arrays[name] = part.view(dtype).reshape(shape)
    return Snapshot(_state_of(header, arrays), header["recollections"])


def _identity(stored: StoredBank) -> dict[str, Any]:
    """What a snapshot and a bank must have in common."""
    return {"bank": stored.name, "encoder_version": stored.encoder_version, "config": config_columns(stored.config)}


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


def _read_header(content: npt.NDArray[np.uint8]) -> tuple[dict[str, Any], int]:
    """The header, and where the arrays begin."""
    if len(content) < _PREFIX.size:
        raise UnusableSnapshot(f"it has only {len(content)} bytes")
    magic, version, length, checksum = _PREFIX.unpack(content[: _PREFIX.size].tobytes())
    if magic != _MAGIC:
        raise UnusableSnapshot("it is no snapshot")
    if version != SNAPSHOT_FORMAT:
        raise UnusableSnapshot(f"it has format {version}, this version reads {SNAPSHOT_FORMAT}")
    text = content[_PREFIX.size : _PREFIX.size + length].tobytes()
    if len(text) != length or zlib.crc32(text) != checksum:
        raise UnusableSnapshot("its header is damaged")
    header: dict[str, Any] = json.loads(text)
    return header, _aligned(_PREFIX.size + length)


def _bytes_of(array: AnyArray) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def _aligned(offset: int) -> int:
    return -(-offset // _ALIGNMENT) * _ALIGNMENT


def _parts(head: bytes, arrays: Iterable[AnyArray]) -> Iterable[memoryview | bytes]:
    """What is in the file, one after the other, each but the head beginning at a multiple of the alignment."""
    yield head
    end = len(head)
    for array in arrays:
        yield bytes(_aligned(end) - end)
        yield _bytes_of(array)
        end = _aligned(end) + array.nbytes


def _write_atomically(path: Path, parts: Iterable[memoryview | bytes]) -> None:
    """Write a file that is there as a whole, on the disk, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_strays(path)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}{_UNFINISHED}")
    try:
        with unfinished.open("wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError:
        with suppress(OSError):
            unfinished.unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _remove_strays(path: Path) -> None:
    """Remove what processes left behind that were killed while they wrote this file."""
    for stray in path.parent.glob(f"{glob.escape(path.name)}.*{_UNFINISHED}"):
        writer = stray.name.removeprefix(f"{path.name}.").removesuffix(_UNFINISHED)
        if writer.isdigit() and not _runs(int(writer)):
            stray.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    """Whether there is a process of this number."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it belongs to somebody else
        return True
    return True
