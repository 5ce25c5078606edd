"""Which walks lie in a data folder, told without loading what computed them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

WALKS: Final = "walk-forward"
"""Folder of all walks below data_dir."""
SUMMARY_FILE: Final = "summary.json"
"""What a walk said, in its folder."""


@dataclass(frozen=True, slots=True)
class WalkListing:
    """A walk that was judged."""

    walk_id: str
    written_at: int
    """When it was judged last, milliseconds, by the file system's clock."""
    strategy: str
    symbols: tuple[str, ...]
    interval: str
    total_return: float


def list_walks(data_dir: Path) -> list[WalkListing]:
    """The walks in a folder, the newest first; what is no whole summary is passed over."""
    found = []
    for file in (data_dir / WALKS).glob(f"*/{SUMMARY_FILE}"):
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            found.append(
                WalkListing(
                    file.parent.name,
                    file.stat().st_mtime_ns // 1_000_000,
                    content["strategy"],
                    tuple(content["symbols"]),
                    content["interval"],
                    content["arms"]["plain"]["metrics"]["total_return"],
                )
            )
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return sorted(found, key=lambda each: (-each.written_at, each.walk_id))
