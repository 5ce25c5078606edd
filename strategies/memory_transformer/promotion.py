"""Which model ``latest`` means: the newest, unless somebody has said otherwise.

The word is kept in a file beside the models, by interval, and written as a whole or not at all.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from strategies.errors import StrategyError
from strategies.memory_transformer.catalogue import ModelListing, list_models

PROMOTION_FILE: Final = "promoted.json"


@dataclass(frozen=True, slots=True)
class Promotion:
    """One word about one interval."""

    model_id: str
    """What ``latest`` means."""
    before: str | None
    """What it meant before; ``None`` where it meant this one already."""


def latest_model(folder: Path, interval: str) -> ModelListing | None:
    """The model of an interval that was promoted, else the newest one; ``None`` where there is none.

    Raises:
        StrategyError: the promoted model is not there any more, or the file that names it is damaged.
    """
    fitting = [each for each in list_models(folder) if each.interval == interval]
    word = read_promotion(folder, interval)
    if word is None:
        return fitting[-1] if fitting else None
    for each in fitting:
        if each.model_id == word.model_id:
            return each
    raise StrategyError(
        f"model {word.model_id}, promoted for interval {interval}, is not in {folder}; promote another one with "
        "recall models promote"
    )


def read_promotion(folder: Path, interval: str) -> Promotion | None:
    """What was said about an interval, if anything.

    Raises:
        StrategyError: the file is damaged.
    """
    word = _read(folder).get(interval)
    return None if word is None else Promotion(**word)


def promote(folder: Path, model: ModelListing) -> Promotion:
    """Let ``latest`` mean this model; saying it again changes nothing.

    Raises:
        StrategyError: the file that says so is damaged, or cannot be written.
    """
    words = _read(folder)
    now = words.get(model.interval)
    if now is not None and now["model_id"] == model.model_id:
        return Promotion(**now)
    fitting = [each.model_id for each in list_models(folder) if each.interval == model.interval]
    before = fitting[-1] if now is None else now["model_id"]
    word = Promotion(model.model_id, None if before == model.model_id else before)
    _write(folder, words | {model.interval: {"model_id": word.model_id, "before": word.before}})
    return word


def _read(folder: Path) -> dict[str, dict[str, Any]]:
    path = folder / PROMOTION_FILE
    try:
        words = json.loads(path.read_text(encoding="utf-8"))
        if all(set(word) == {"model_id", "before"} for word in words.values()):
            return dict(words)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, TypeError):
        pass
    raise StrategyError(f"{path} is damaged; delete it, and latest means the newest model, or promote one again")


def _write(folder: Path, words: Mapping[str, Mapping[str, str | None]]) -> None:
    path = folder / PROMOTION_FILE
    try:
        with tempfile.NamedTemporaryFile("w", dir=folder, prefix=f".{PROMOTION_FILE}-", delete=False) as file:
            json.dump(words, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        Path(file.name).replace(path)
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as problem:
        raise StrategyError(
            f"{path} cannot be written: {problem.strerror}; check the folder's space and rights"
        ) from None
