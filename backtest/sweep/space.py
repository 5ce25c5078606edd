"""What is swept: configuration keys, and the values that they may take."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

from bot.config import Config
from bot.errors import UsageError

if TYPE_CHECKING:
    from optuna.trial import Trial


@dataclass(frozen=True, slots=True)
class Choices:
    """One of some values."""

    key: str
    values: tuple[Any, ...]

    def suggest(self, trial: Trial) -> Any:
        """A value."""
        return trial.suggest_categorical(self.key, self.values)


@dataclass(frozen=True, slots=True)
class Range:
    """A number between two bounds, both included."""

    key: str
    low: float
    high: float
    whole: bool
    logarithmic: bool

    def suggest(self, trial: Trial) -> Any:
        """A value."""
        if self.whole:
            return trial.suggest_int(self.key, int(self.low), int(self.high), log=self.logarithmic)
        return trial.suggest_float(self.key, self.low, self.high, log=self.logarithmic)


Parameter = Choices | Range


def parse_parameter(text: str) -> Parameter:
    """``section.key=1,2,3`` for choices, ``section.key=0.1:0.5`` or ``section.key=1e-4:1e-2:log`` for a range; of whole numbers
    if both bounds are.

    Raises:
        UsageError: it is none of these.
    """
    key, separator, values = text.partition("=")
    key = key.strip()
    if not separator or key.count(".") < 1 or not values.strip():
        raise UsageError(
            f"--param {text!r} is not understood; write section.key=1,2,3 or section.key=0.1:0.5 or ...:log"
        )
    if ":" not in values:
        return Choices(key, tuple(_plain(part.strip()) for part in values.split(",")))
    low, high, *rest = values.split(":")
    bounds = (_plain(low), _plain(high))
    numbers = all(isinstance(bound, int | float) and not isinstance(bound, bool) for bound in bounds)
    if not numbers or not bounds[0] < bounds[1] or rest not in ([], ["log"]) or (rest and bounds[0] <= 0):
        raise UsageError(f"--param {text!r} is no range; write section.key=LOW:HIGH, or LOW:HIGH:log with LOW above 0")
    return Range(key, bounds[0], bounds[1], all(isinstance(bound, int) for bound in bounds), bool(rest))


def grid_of(parameters: Sequence[Parameter]) -> list[dict[str, Any]]:
    """All combinations of choices.

    Raises:
        UsageError: one of the parameters is a range.
    """
    choices = [each for each in parameters if isinstance(each, Choices)]
    if len(choices) != len(parameters):
        named = next(each.key for each in parameters if not isinstance(each, Choices))
        raise UsageError(
            f"a grid needs choices, and {named} is a range; list its values, or use --sampler tpe or random"
        )
    keys = [each.key for each in choices]
    return [dict(zip(keys, values, strict=True)) for values in product(*(each.values for each in choices))]


def with_values(config: Config, values: dict[str, Any]) -> Config:
    """The configuration with these values by key.

    Raises:
        UsageError: a key is unknown, or a value is out of range.
    """
    layer: dict[str, Any] = {}
    for key, value in values.items():
        *path, last = key.split(".")
        below = layer
        for name in path:
            below = below.setdefault(name, {})
        below[last] = value
    return config.changed(layer, "the sweep")


def _plain(text: str) -> Any:
    """A value as TOML reads it, else the text itself."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
