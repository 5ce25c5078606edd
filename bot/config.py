"""The configuration: settings put together from defaults, ``config.toml``, the environment and ``--set``.

Later layers win: defaults, then the file, then ``RECALL_<SECTION>__<KEY>``, then ``--set section.key=value``. Unknown keys,
wrong types and values out of range are refused in one sentence that names the key, the value, where it came from and what
is allowed.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from bot.errors import UsageError
from bot.refusals import Origin, mask_passwords, refusal, url_passwords
from bot.settings import PLAIN_FILLS, Settings
from strategies.stretches import FEWEST_STRETCHES

ENVIRONMENT_PREFIX: Final = "RECALL_"
DEFAULT_FILE: Final = Path("config.toml")
_NEARLY_A_KEY: Final = re.compile(
    f"{ENVIRONMENT_PREFIX}(?P<section>{'|'.join(Settings.model_fields)})_(?P<key>[A-Z0-9]\\w*)", re.IGNORECASE
)
"""A variable that was meant to be ``RECALL_SECTION__KEY``."""


class Config(Settings):
    """A configuration whose values have been checked, alone and against each other."""

    def changed(self, layer: Mapping[str, Mapping[str, Any]], where: str) -> Config:
        """This configuration with some values replaced.

        Args:
            layer: new values by section and key.
            where: how an error names their origin.

        Raises:
            UsageError: a new value is not allowed.
        """
        values: dict[str, Any] = self.model_dump()
        origin: dict[tuple[str, ...], str] = {}
        _merge(values, origin, layer, where)
        return _validated(values, origin)

    def masked(self) -> dict[str, Any]:
        """As plain values that can be shown or journalled: secrets are stars."""
        values = self.model_dump(mode="json")
        storage = values["storage"]
        storage["database_url"] = mask_passwords(storage["database_url"])
        return values

    def secrets(self) -> tuple[str, ...]:
        """Every text that must not appear anywhere."""
        keys = (self.live.api_key.get_secret_value(), self.live.api_secret.get_secret_value())
        return tuple(secret for secret in (*keys, *url_passwords(self.storage.database_url)) if secret)


@dataclass(frozen=True, slots=True)
class Layers:
    """The merged layers, not checked yet."""

    values: Mapping[str, Any]
    origin: Origin

    def config(self) -> Config:
        """The checked configuration.

        Raises:
            UsageError: something is unknown, of a wrong type or out of range.
        """
        return _validated(self.values, self.origin)

    def source_of(self, key: str) -> str:
        """Where the value of ``section.key`` comes from."""
        path = tuple(key.split("."))
        return next((where for at, where in self.origin.items() if at[: len(path)] == path), "default")


def load_config(
    file: Path | None = None, *, overrides: Iterable[str] = (), environment: Mapping[str, str] | None = None
) -> Config:
    """Read the configuration; see ``read_layers``.

    Raises:
        UsageError: something in it is unknown, of a wrong type or out of range.
    """
    return read_layers(file, overrides=overrides, environment=environment).config()


def read_layers(
    file: Path | None = None, *, overrides: Iterable[str] = (), environment: Mapping[str, str] | None = None
) -> Layers:
    """Merge the layers, later ones over earlier ones.

    Args:
        file: the TOML file; ``None`` takes ``config.toml`` of the working directory where it exists.
        overrides: ``section.key=value`` texts, strongest of all.
        environment: the process environment by default.

    Raises:
        UsageError: a layer cannot be read.
    """
    values: dict[str, Any] = {}
    origin: dict[tuple[str, ...], str] = {}
    path = DEFAULT_FILE if file is None else file
    if path.is_file():
        _merge(values, origin, _read_toml(path), str(path))
    elif path.exists() or file is not None:
        wrong = "is not a file" if path.exists() else "does not exist"
        raise UsageError(f"config file {path} {wrong}; give --config an existing TOML file")
    for name, layer in _from_environment(os.environ if environment is None else environment):
        _merge(values, origin, layer, f"environment variable {name}")
    for text in overrides:
        _merge(values, origin, _from_override(text), "--set")
    return Layers(values, origin)


def stored_config(values: Mapping[str, Any], run_id: str) -> Config:
    """The configuration that a run was recorded with.

    Raises:
        UsageError: this version no longer understands it.
    """
    values = {**values, "fills": {**PLAIN_FILLS.model_dump(), **values.get("fills", {})}}
    return _validated(values, {(section,): f"the record of run {run_id}" for section in values})


def _validated(values: Mapping[str, Any], origin: Origin) -> Config:
    try:
        config = Config.model_validate(values)
    except ValidationError as problem:
        raise UsageError(refusal(problem, origin)) from None
    memory, model, retraining = config.memory, config.model, config.retraining
    if memory.primary not in memory.horizons:
        raise UsageError(
            f"memory.primary was {memory.primary}, which is none of memory.horizons {list(memory.horizons)}; name one of them"
        )
    if memory.minimum_neighbors > memory.n_neighbors:
        raise UsageError(
            f"memory.minimum_neighbors was {memory.minimum_neighbors}, which is more than memory.n_neighbors "
            f"{memory.n_neighbors}; it must be at most as many"
        )
    if model.d_model % model.n_heads:
        raise UsageError(
            f"model.d_model was {model.d_model}, which model.n_heads {model.n_heads} does not divide; choose a multiple"
        )
    needed = FEWEST_STRETCHES * (memory.primary + memory.embargo) + memory.primary
    if (retraining.every_bars or retraining.on_drift) and retraining.judge_bars < needed:
        raise UsageError(
            f"retraining.judge_bars was {retraining.judge_bars}, too few to compare two models on with memory.primary "
            f"{memory.primary} and memory.embargo {memory.embargo}; it must be at least {needed}"
        )
    return config


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as problem:
        raise UsageError(f"{path} is not valid TOML: {problem}; mend that line") from None
    except UnicodeDecodeError as problem:
        raise UsageError(
            f"{path} is not UTF-8 at byte {problem.start:,}, as TOML has to be; save it as UTF-8"
        ) from None
    except OSError as problem:
        raise UsageError(f"{path} cannot be read: {problem.strerror}; check the file and its rights") from None


def _from_environment(environment: Mapping[str, str]) -> Iterable[tuple[str, dict[str, Any]]]:
    """One layer for every variable that means a key.

    Raises:
        UsageError: a variable has one underscore where two part section and key, so that it would count for nothing.
    """
    for name in sorted(environment):
        if near := _NEARLY_A_KEY.fullmatch(name):
            meant = f"{ENVIRONMENT_PREFIX}{near['section']}__{near['key']}"
            raise UsageError(f"environment variable {name} means no key; two underscores part section and key: {meant}")
        if name.startswith(ENVIRONMENT_PREFIX) and "__" in name:
            section, *keys = name.removeprefix(ENVIRONMENT_PREFIX).split("__")
            # Symbols are upper case, sections and keys lower case.
            symbol = [key.upper() for key in keys[:1]] if section.lower() == "instruments" else []
            path = [section.lower(), *symbol, *(key.lower() for key in keys[len(symbol) :])]
            yield name, _placed(path, environment[name])


def _from_override(text: str) -> dict[str, Any]:
    key, separator, value = text.partition("=")
    keys = key.strip().split(".")
    if not separator or len(keys) < 2:
        raise UsageError(f"--set {key.strip()!r} is not understood; write --set section.key=value")
    if keys[0] == "instruments" and len(keys) > 3:
        keys = [keys[0], ".".join(keys[1:-1]), keys[-1]]  # symbols such as BRK.B have a dot of their own
    return _placed(keys, value)


def _placed(path: list[str], text: str) -> dict[str, Any]:
    """A layer with one value in it."""
    layer: Any = _plain(text) if path[:2] == ["strategy", "parameters"] else text
    for key in reversed(path):
        layer = {key: layer}
    assert isinstance(layer, dict)
    return layer


def _plain(text: str) -> Any:
    """A free-form parameter from text: TOML where it parses, else the text itself."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _merge(
    into: dict[str, Any],
    origin: dict[tuple[str, ...], str],
    layer: Mapping[str, Any],
    where: str,
    path: tuple[str, ...] = (),
) -> None:
    for key, value in layer.items():
        below = into.setdefault(key, {}) if isinstance(value, Mapping) else None
        if isinstance(below, dict) and isinstance(value, Mapping):
            if not value:
                origin[(*path, key)] = where
            _merge(below, origin, value, where, (*path, key))
        else:
            into[key] = value
            origin[(*path, key)] = where
