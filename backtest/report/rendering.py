"""A template, its charts and Bokeh's script as one file that needs nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from bokeh.models import LayoutDOM
from jinja2 import Environment, PackageLoader, StrictUndefined

from backtest.report.embedding import chart_item, library, page_part

_NEGATIVE: Final = re.compile(r"(?<![\w-])-(?=\d)")


def page_of(
    template: str, charts: Mapping[str, LayoutDOM], *, trades: Mapping[str, Any] | None = None, **values: Any
) -> str:
    """Fill a template.

    Args:
        template: its name.
        charts: what is drawn into the elements ``chart-NAME``.
        trades: columns and rows of the table of trades, where there is one.
        values: what else the template names.
    """
    environment = Environment(
        loader=PackageLoader("backtest.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["typeset"] = typeset
    return environment.get_template(template).render(
        style=page_part("page.css"),
        script=page_part("page.js"),
        library=library(),
        charts=charts,
        charts_json=embedded([chart_item(name, chart) for name, chart in charts.items()]),
        trades_json=None if trades is None else embedded(trades),
        **values,
    )


def typeset(text: str) -> str:
    """Minus signs where a sentence has hyphens before numbers; dates keep theirs."""
    return _NEGATIVE.sub("\N{MINUS SIGN}", text)


def embedded(value: Any) -> str:
    """JSON that may stand inside a script element: it must not close it."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False, ensure_ascii=False).replace("<", "\\u003c")
