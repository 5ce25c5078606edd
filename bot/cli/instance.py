"""One bot at a time writes into a data_dir: a lock that the system takes away when the process dies."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bot.errors import UsageError

LOCK_FILE: Final = "paper.lock"


@contextlib.contextmanager
def single_instance(data_dir: Path) -> Iterator[None]:
    """Be the only bot in ``data_dir``.

    Raises:
        UsageError: another one runs.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    with (data_dir / LOCK_FILE).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"another bot is running in {data_dir}; stop it, or give this one its own with --set storage.data_dir=..."
            ) from None
        yield


def is_running(data_dir: Path) -> bool:
    """Whether a bot runs in ``data_dir`` now."""
    try:
        with (data_dir / LOCK_FILE).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False
