"""Which models lie in a folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

DESCRIPTION_FILE: Final = "bundle.json"
"""All of a bundle but its weights; named here, so that a listing does not load torch."""


@dataclass(frozen=True, slots=True)
class ModelListing:
    """A bundle as its description tells, without loading it."""

    model_id: str
    path: Path
    interval: str
    symbols: tuple[str, ...]
    training_span: tuple[int, int]
    """First open time and last close time that training saw, milliseconds."""
    written_ns: int
    """When the bundle was written, by the file system's clock."""
    description: dict[str, Any]


def list_models(folder: Path) -> list[ModelListing]:
    """The models in a folder, oldest first; what is no bundle is passed over."""
    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        file = path / DESCRIPTION_FILE
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            first, last = content["training_span"]
            found.append(
                ModelListing(
                    path.name,
                    path,
                    content["interval"],
                    tuple(content["symbols"]),
                    (int(first), int(last)),
                    file.stat().st_mtime_ns,
                    content,
                )
            )
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return sorted(found, key=lambda each: (each.written_ns, each.model_id))
