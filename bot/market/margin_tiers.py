"""Margin tiers that were fetched, so that replays liquidate as the venue does, without a connection.

One JSON file per market holds the tiers of every symbol as the venue told them last. Tiers of earlier years are not told, so
those of today count for all of the past.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from bot.errors import StorageError
from bot.execution.instruments import MarginTier
from bot.market.parts import write_atomically
from bot.market.validation import DataError

Tiers = tuple[MarginTier, ...]


class MarginTierStore:
    """The file of one market. Instances hold no state."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> dict[str, Tiers]:
        """Tiers by symbol, by increasing value; nothing where nothing was fetched.

        Raises:
            DataError: the file is damaged.
        """
        try:
            return msgspec.json.decode(self.path.read_bytes(), type=dict[str, Tiers])
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.MsgspecError) as problem:
            raise DataError(
                f"margin tiers {self.path} are damaged ({problem}); delete the file and fetch them again"
            ) from None

    def keep(self, tiers: Mapping[str, Tiers]) -> None:
        """Let the tiers of some symbols be these from now on.

        Raises:
            DataError: what is there is damaged.
            StorageError: the disk refused; what was stored before is intact.
        """
        encoded = msgspec.json.format(msgspec.json.encode({**self.load(), **tiers}), indent=2) + b"\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path, lambda temporary: temporary.write_bytes(encoded))
        except OSError as problem:
            raise StorageError(
                f"margin tiers could not be written to {self.path}: {problem.strerror}; check the disk and its rights"
            ) from None
