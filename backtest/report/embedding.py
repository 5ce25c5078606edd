"""Charts as JSON that a page can draw, the same for the same chart: Bokeh numbers its models through the life of a process,
and names them anew at random, so that both are replaced."""

from __future__ import annotations

import re
from importlib import resources
from typing import Any, Final

from bokeh.embed import json_item
from bokeh.models import LayoutDOM
from bokeh.resources import Resources

from backtest.report.style import FONT

_MODEL: Final = re.compile(r"p\d+")


def chart_item(name: str, chart: LayoutDOM) -> dict[str, Any]:
    """What ``Bokeh.embed.embed_item`` draws into the element ``chart-NAME``."""
    item: dict[str, Any] = json_item(chart, f"chart-{name}")
    numbers: dict[str, str] = {}
    renamed: dict[str, Any] = _renamed(item, name, numbers)
    renamed["root_id"] = numbers[item["root_id"]]
    return renamed


def library() -> str:
    """Bokeh's own script, to be part of the page; licence BSD-3-Clause, named in the script itself."""
    script: str
    (script,) = Resources(mode="inline", components=["bokeh"], log_level="warn").js_raw[:1]
    return script


def page_part(name: str) -> str:
    """A file of the page's own, by its name."""
    return (
        resources.files("backtest.report")
        .joinpath("templates", name)
        .read_text(encoding="utf-8")
        .replace("FONT_OF_CHARTS", FONT)
    )


def _renamed(value: Any, name: str, numbers: dict[str, str]) -> Any:
    """The same with ids of models numbered from 1 in the order in which they come."""
    if isinstance(value, dict):
        return {
            key: numbers.setdefault(below, f"{name}-{len(numbers) + 1}")
            if key == "id" and isinstance(below, str) and _MODEL.fullmatch(below)
            else _renamed(below, name, numbers)
            for key, below in value.items()
        }
    if isinstance(value, list | tuple):
        return [_renamed(below, name, numbers) for below in value]
    return value
