"""A lock that lies beside a database as a file and goes with its process however that ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import sqlalchemy as sa


def database_file(connection: sa.Connection) -> Path | None:
    """The one file of an SQLite database, links followed, whatever the URL calls it; ``None`` where there is none."""
    if connection.dialect.name != "sqlite":
        return None
    files = {row.name: row.file for row in connection.exec_driver_sql("PRAGMA database_list")}
    return Path(files["main"]).resolve() if files["main"] else None


def take_lock(path: Path) -> int:
    """Make and lock a file; returns its descriptor, for ``held_lock``.

    Raises:
        BlockingIOError: another holder has it.
        OSError: the file cannot be made or locked.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(descriptor, path):
                return descriptor
        except OSError:
            os.close(descriptor)
            raise
        # The holder before took its file away while this one was opening it: whoever comes next makes another.
        os.close(descriptor)


@contextmanager
def held_lock(descriptor: int, path: Path) -> Iterator[None]:
    """Keep what ``take_lock`` gave for as long as the context lasts, then take the file away."""
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    mine = os.fstat(descriptor)
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    return (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino)
