"""What a user reads when a setting is refused: one sentence that names the key, the value, where it came from and the fix."""

from __future__ import annotations

import difflib
import enum
import re
import types
import typing
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import annotated_types
from pydantic import BaseModel, SecretStr, ValidationError
from pydantic.fields import FieldInfo

from bot.settings import Settings

Origin = Mapping[tuple[str, ...], str]
"""Where each value came from, by its path."""

SYMBOL: Final = "SYMBOL"
"""Stands for any symbol in the names of keys."""

_NOUNS: Final[dict[Any, str]] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    Decimal: "a number",
    str: "a text",
    Path: "a path",
    SecretStr: "a text",
    tuple[str, ...]: "a list of texts",
    tuple[int, ...]: "a list of whole numbers",
    dict[str, Any]: "a table",
}


_URL_PASSWORD: Final = re.compile(r"(://[^:/@]*):([^@]*)@")


def mask_passwords(text: str) -> str:
    """The text with stars for the password of every URL in it."""
    return _URL_PASSWORD.sub(r"\1:***@", text)


def url_passwords(text: str) -> list[str]:
    """The password of every URL in a text."""
    return [password for _, password in _URL_PASSWORD.findall(text)]


def known_fields() -> Iterator[tuple[str, FieldInfo]]:
    """Every key, as ``section.key`` or ``instruments.SYMBOL.key``, with its field."""
    for section, field in Settings.model_fields.items():
        kind: Any = field.annotation
        prefix = section
        if isinstance(kind, types.GenericAlias):
            kind, prefix = typing.get_args(kind)[1], f"{section}.{SYMBOL}"
        assert isinstance(kind, type) and issubclass(kind, BaseModel)
        for key, below in kind.model_fields.items():
            yield f"{prefix}.{key}", below


def known_keys() -> dict[str, str]:
    """Every key with its meaning."""
    return {key: field.description or "" for key, field in known_fields()}


def allowed(field: FieldInfo) -> str:
    """What a key takes, in words: ``a number, above 0, at most 100``."""
    kind: Any = field.annotation
    if typing.get_origin(kind) is typing.Literal:
        return f"one of {', '.join(map(str, typing.get_args(kind)))}"
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return f"one of {', '.join(str(member.value) for member in kind)}"
    bounds = []
    for constraint in field.metadata:
        match constraint:
            case annotated_types.Gt(gt=bound):
                bounds.append(f"above {bound}")
            case annotated_types.Ge(ge=bound):
                bounds.append(f"{bound} or more")
            case annotated_types.Lt(lt=bound):
                bounds.append(f"below {bound}")
            case annotated_types.Le(le=bound):
                bounds.append(f"at most {bound}")
            case annotated_types.MinLen(min_length=length):
                bounds.append(f"{length} or more of them")
            case annotated_types.MaxLen(max_length=length):
                bounds.append(f"at most {length}")
    return ", ".join([_NOUNS[kind], *bounds])


def refusal(problem: ValidationError, origin: Origin) -> str:
    """The sentence about the first thing that is wrong."""
    error = problem.errors(include_url=False)[0]
    location = tuple(str(part) for part in error["loc"])
    # The path goes deeper than the key where one element of a list is wrong.
    path = next((location[:length] for length in range(1, len(location)) if _field(location[:length])), location)
    where = _origin_of(path, origin)
    key = ".".join(path)
    if error["type"] == "extra_forbidden":
        return f"{key} in {where} is unknown; {_suggestion(path)}"
    reason = error["msg"].removeprefix("Value error, ") if error["type"] == "value_error" else ""
    field = _field(path)
    value = "***" if field is not None and field.annotation is SecretStr else mask_passwords(repr(error.get("input")))
    if field is None:
        return f"{key} was {value} in {where}; it must be a section with keys, written as section.key"
    if reason:
        return f"{key} was {value} in {where}, which is not allowed: {reason}"
    return f"{key} was {value} in {where}; it must be {allowed(field)}"


def _origin_of(path: tuple[str, ...], origin: Origin) -> str:
    """Where a value came from, or the section that it is in, or something in it."""
    above = (origin[path[:length]] for length in range(len(path), 0, -1) if path[:length] in origin)
    below = (where for at, where in origin.items() if at[: len(path)] == path)
    return next(above, None) or next(below, "the defaults")


def _field(path: tuple[str, ...]) -> FieldInfo | None:
    if path[0] == "instruments" and len(path) > 1:
        path = (path[0], SYMBOL, *path[2:])
    return dict(known_fields()).get(".".join(path))


def _suggestion(path: tuple[str, ...]) -> str:
    known = known_keys()
    sections = sorted({key.split(".")[0] for key in known})
    if path[0] not in sections:
        near = difflib.get_close_matches(path[0], sections, 1)
        return f"did you mean section {near[0]}?" if near else f"sections are {', '.join(sections)}"
    keys = {key.rsplit(".", 1)[1]: key for key in known if key.startswith(f"{path[0]}.")}
    near = difflib.get_close_matches(path[-1], keys, 1, 0.5)
    prefix = ".".join(path[:-1])
    return f"did you mean {prefix}.{near[0]}?" if near else f"keys of {prefix} are {', '.join(keys)}"
