"""Arrays in one file, mapped into memory: derived from a database, and never believed against it.

Layout, little-endian: magic, format, length and checksum of the header; the header, JSON; then the arrays one after the
other, each beginning at a multiple of 64 bytes and with a checksum of its own.
"""

from __future__ import annotations

import glob
import json
import os
import struct
import zlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from memory_store.records import MemoryBankError

_PREFIX: Final = struct.Struct("<8sIII")
_ALIGNMENT: Final = 64
_UNFINISHED: Final = ".tmp"

AnyArray = npt.NDArray[Any]


class UnusableFile(MemoryBankError):
    """A file that says nothing about a bank; the message is a clause that says why."""


def write_arrays(
    path: Path, kind: bytes, version: int, header: Mapping[str, Any], arrays: Mapping[str, AnyArray]
) -> None:
    """Write a file whole or not at all; one that is there is replaced.

    Args:
        path: of the file.
        kind: eight bytes that it begins with.
        version: of its format.
        header: JSON.
        arrays: in the byte order of the file.

    Raises:
        OSError: it cannot be written, for example because the disk is full.
    """
    described, offset = [], 0
    for name, array in arrays.items():
        offset = _aligned(offset)
        described.append([name, array.dtype.str, list(array.shape), offset, zlib.crc32(_bytes_of(array))])
        offset += array.nbytes
    text = json.dumps({**header, "arrays": described, "bytes": offset}).encode()
    prefix = _PREFIX.pack(kind, version, len(text), zlib.crc32(text))
    _write_atomically(path, _parts(prefix + text, arrays.values()))


def read_arrays(
    path: Path, kind: bytes, version: int, what: str, check: Callable[[Mapping[str, Any]], None]
) -> tuple[dict[str, Any], dict[str, AnyArray]]:
    """The header and the arrays of a file, which lie in it and are read-only.

    Args:
        path: of the file.
        kind: eight bytes that it must begin with.
        version: the format that can be read.
        what: it is, for messages.
        check: looks at the header before anything else is read.

    Raises:
        UnusableFile: there is none, it is damaged, or of another kind or format.
    """
    try:
        content: npt.NDArray[np.uint8] = np.memmap(path, dtype=np.uint8, mode="r")
    except FileNotFoundError:
        raise UnusableFile("there was none") from None
    except (OSError, ValueError) as problem:
        raise UnusableFile(f"it could not be read: {problem}") from None
    header, start = _read_header(content, kind, version, what)
    check(header)
    if len(content) != start + header["bytes"]:
        raise UnusableFile(f"it has {len(content)} bytes instead of {start + header['bytes']}")
    arrays = {}
    for name, dtype, shape, offset, checksum in header["arrays"]:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        part = content[start + offset : start + offset + size]
        if zlib.crc32(part.data) != checksum:
            raise UnusableFile(f"its {name} are damaged")
        arrays[name] = part.view(dtype).reshape(shape)
    return header, arrays


def _read_header(content: npt.NDArray[np.uint8], kind: bytes, known: int, what: str) -> tuple[dict[str, Any], int]:
    """The header, and where the arrays begin."""
    if len(content) < _PREFIX.size:
        raise UnusableFile(f"it has only {len(content)} bytes")
    magic, version, length, checksum = _PREFIX.unpack(content[: _PREFIX.size].tobytes())
    if magic != kind:
        raise UnusableFile(f"it is no {what}")
    if version != known:
        raise UnusableFile(f"it has format {version}, this version reads {known}")
    text = content[_PREFIX.size : _PREFIX.size + length].tobytes()
    if len(text) != length or zlib.crc32(text) != checksum:
        raise UnusableFile("its header is damaged")
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
