"""Logs: structured, to standard error, with secrets taken out by a processor in the chain."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, MutableMapping
from typing import Any, Final

import structlog
from rich.console import Console

from bot.config import Config

_SECRET_NAMES: Final = re.compile(r"key|secret|sign|token|password|authorization", re.IGNORECASE)
_HARMLESS: Final = frozenset({"key_version", "run_token"})
_MASK: Final = "***"


class Redaction:
    """A structlog processor that masks values under secret-looking names, and known secrets wherever they appear."""

    def __init__(self, secrets: tuple[str, ...] = ()) -> None:
        self._secrets = tuple(secret for secret in secrets if len(secret) >= 4)

    def __call__(self, _logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Mask one event."""
        return {name: self._masked(name, value) for name, value in event.items()}

    def _masked(self, name: str, value: Any) -> Any:
        if name not in _HARMLESS and name != "event" and _SECRET_NAMES.search(name):
            return _MASK
        if isinstance(value, Mapping):
            return {key: self._masked(str(key), below) for key, below in value.items()}
        if isinstance(value, list | tuple):
            return [self._masked("", below) for below in value]
        if isinstance(value, str):
            for secret in self._secrets:
                value = value.replace(secret, _MASK)
        return value


def configure_logs(config: Config, *, to: Console | None = None) -> None:
    """Set up structlog for the process.

    Args:
        config: level, format, and the secrets that must never appear.
        to: a console whose progress bars and status line the log lines must not tear.
    """
    level = getattr(logging, config.log.level.upper())
    renderer: Any = structlog.processors.JSONRenderer() if config.log.json_lines else _Plain()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            Redaction(config.secrets()),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=_ConsoleLoggerFactory(to or Console(stderr=True)),
        cache_logger_on_first_use=False,
    )


class _Plain:
    """``2026-01-31T12:00:00Z warning: text  name=value``."""

    def __call__(self, _logger: Any, _method: str, event: MutableMapping[str, Any]) -> str:
        when, level, text = event.pop("timestamp"), event.pop("level"), event.pop("event")
        rest = " ".join(f"{name}={value}" for name, value in event.items())
        return f"{when[:19]}Z {level}: {text}  {rest}".rstrip()


class _ConsoleLogger:
    def __init__(self, console: Console) -> None:
        self._console = console

    def msg(self, message: str) -> None:
        self._console.print(message, markup=False, emoji=False, highlight=False, soft_wrap=True)

    log = debug = info = warn = warning = error = critical = fatal = failure = exception = msg


class _ConsoleLoggerFactory:
    def __init__(self, console: Console) -> None:
        self._console = console

    def __call__(self, *_args: Any) -> _ConsoleLogger:
        return _ConsoleLogger(self._console)
