"""Logs: structured lines on standard error, from which every secret is gone."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator

import pytest
import structlog
from rich.console import Console

from bot.config import Config, load_config
from bot.logs import Redaction, configure_logs

KEY, SECRET, PASSWORD = "AKIA-hunter22", "s3cr3t-hunter24", "hunter25"


def secret_config(*overrides: str) -> Config:
    """A configuration with every kind of secret in it."""
    return load_config(
        overrides=[f"storage.database_url=postgresql+psycopg://me:{PASSWORD}@db/recall", *overrides],
        environment={"RECALL_LIVE__API_KEY": KEY, "RECALL_LIVE__API_SECRET": SECRET},
    )


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Leave structlog as it was."""
    yield
    structlog.reset_defaults()


def logged(config: Config, write: str = "info", event: str = "signed in", **values: object) -> str:
    """What really reaches the terminal."""
    stream = io.StringIO()
    configure_logs(config, to=Console(file=stream, width=80))
    getattr(structlog.get_logger(), write)(event, **values)
    return stream.getvalue()


@pytest.mark.parametrize("form", ["log.json_lines=false", "log.json_lines=true"])
def test_no_secret_reaches_the_log(form: str) -> None:
    """Neither under a telling name, nor inside other values, however deep, nor in the text of the event."""
    line = logged(
        secret_config(form),
        event=f"request with {KEY}",
        api_key="other-key",
        url=f"https://api.example/?api_key={KEY}&sign=abc",
        request={"headers": [{"X-BAPI-SIGN": "f00"}, ("note", SECRET)], "database": f"postgresql://me:{PASSWORD}@db"},
    )
    for secret in (KEY, SECRET, PASSWORD, "other-key", "f00"):
        assert secret not in line
    assert "***" in line and "request with" in line


def test_no_secret_reaches_the_log_inside_a_traceback() -> None:
    """Exceptions are rendered before secrets are taken out."""
    stream = io.StringIO()
    configure_logs(secret_config("log.json_lines=true"), to=Console(file=stream))
    try:
        raise RuntimeError(f"refused for {SECRET}")
    except RuntimeError:
        structlog.get_logger().exception("failed")
    assert "refused for ***" in stream.getvalue()
    assert SECRET not in stream.getvalue()


def test_harmless_values_stay_as_they_are() -> None:
    """Numbers, names and empty secrets do not turn the log into stars."""
    event = {"event": "fill", "symbol": "BTCUSDT", "quantity": 3, "prices": [1.5, 2.5], "note": None}
    assert Redaction(("",))(None, "info", dict(event)) == event


def test_json_lines_are_one_object_each() -> None:
    """For machines that collect logs."""
    document = json.loads(logged(secret_config("log.json_lines=true"), symbol="BTCUSDT", bars=3))
    assert (document["event"], document["level"], document["symbol"], document["bars"]) == (
        "signed in",
        "info",
        "BTCUSDT",
        3,
    )


def test_plain_lines_are_never_wrapped() -> None:
    """A line of a log is a line, also on a narrow terminal."""
    line = logged(secret_config(), note="x" * 200)
    assert line.count("\n") == 1 and "info: signed in  note=" in line


def test_the_level_decides_what_is_written() -> None:
    """Below it nothing appears."""
    assert logged(secret_config("log.level=warning"), "info") == ""
    assert "warning: signed in" in logged(secret_config("log.level=warning"), "warning")
