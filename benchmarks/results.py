"""``docs/results.md`` and the figures of real candles, from what ``recall evaluate --json`` said and from nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.harness import LATEST, BenchmarkError, commit, machine, merge
from benchmarks.tasks import PAGE, with_tasks
from benchmarks.walk import walk_of, with_walk

MODEL: Final = "model"
COMMAND: Final = "make evaluate"
_UNITS: Final = {
    "vol_r2_minus_har": "R²",
    "vol_r2_minus_ridge": "R²",
    "coverage_80_min": "share",
    "coverage_80_max": "share",
}
_WANTED: Final = {
    "vol_r2_minus_har": ("at least +0.03", 0.03, 1.0),
    "vol_r2_minus_ridge": ("at least 0", 0.0, 1.0),
    "coverage_80_min": ("at least 0.78", 0.78, 1.0),
    "coverage_80_max": ("at most 0.82", 0.0, 0.82),
}
_OPENING: Final = """# Results on real candles

`make evaluate` wrote this page: `recall evaluate` on stored hours, walking forward, everything trained again at every
boundary on what was known then. The protocol, the formulas and how to read the tables: [evaluation](evaluation.md).
Nothing here was chosen because it looks good.
"""


def publish(source: Path, *, figures: Path = LATEST, page: Path = PAGE) -> None:
    """Merge the goals' figures and write the page.

    Raises:
        BenchmarkError: the file is not the document that ``recall evaluate --json`` prints, or has no model in it.
    """
    try:
        document = json.loads(source.read_text(encoding="utf-8"))
        goals = document["goals"][MODEL]
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise BenchmarkError(
            f"{source} is not what recall evaluate --json prints with a model in it ({problem!r}); run make evaluate"
        ) from None
    code, note = commit(), _note(document)
    merge(
        figures,
        {
            name: {
                "value": value,
                "unit": _UNITS[name],
                "note": f"{note}; {machine()}",
                "commit": code,
                "command": COMMAND,
                "seed": 0,
            }
            for name, value in goals.items()
            if value is not None
        },
    )
    walk = walk_of(page.read_text(encoding="utf-8")) if page.exists() else ""
    text = with_tasks(render(document, code), json.loads(figures.read_text(encoding="utf-8")))
    page.write_text(with_walk(text, walk), encoding="utf-8")


def render(document: Mapping[str, Any], code: str) -> str:
    """The page as text."""
    parts = [
        _OPENING,
        f"{_note(document)}. Commit `{code}`, {machine()}.",
        "## Volatility",
        f"R² of the logarithm of realised volatility over {document['horizon']} bars, against the mean of the past.",
        _volatility(document),
        "## Coverage and direction",
        "All symbols together. The band is the calibrated 80 % interval of the return; IC is the information coefficient with "
        "an error that allows for overlap.",
        _direction(document),
        "## Accounts",
        "Return of an account that follows the forecast with positions held to a volatility, before and after fees; no "
        "funding, stops or risk layer.",
        _accounts(document),
        "## What the memory is worth",
        _controls(document),
        _comparisons(document),
        "## Goals",
        _goals(document),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _note(document: Mapping[str, Any]) -> str:
    spans = ", ".join(fold["name"] for fold in document["folds"])
    return f"{', '.join(document['symbols'])}, interval {document['interval']}, forecasts of {spans}"


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(heading) + " |", "| --- " + "| ---: " * (len(heading) - 1) + "|"]
    return "\n".join([*lines, *["| " + " | ".join(row) + " |" for row in rows]])


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _forecasters(document: Mapping[str, Any]) -> list[str]:
    names = dict.fromkeys(result["forecaster"] for result in document["results"])
    return [name for name in names if ":" not in name]


def _cells(document: Mapping[str, Any]) -> dict[tuple[str, str, str], Mapping[str, Any]]:
    return {(each["forecaster"], each["symbol"], each["fold"]): each for each in document["results"]}


def _whole(document: Mapping[str, Any]) -> str:
    symbols: list[str] = document["symbols"]
    return "all" if len(symbols) > 1 else symbols[0]


def _volatility(document: Mapping[str, Any]) -> str:
    cells = _cells(document)
    places = [(symbol, fold["name"]) for fold in document["folds"] for symbol in document["symbols"]]
    rows = []
    for name in _forecasters(document):
        values = [cells[name, *place]["scores"]["figures"]["volatility_r2"]["value"] for place in places]
        known = [value for value in values if value is not None]
        if known:
            mean = sum(known) / len(known) if len(known) == len(values) else None
            rows.append([name, *[_number(value, "+.3f") for value in values], _number(mean, "+.3f")])
    heading = [f"{symbol.removesuffix('USDT')} {fold[:4]}" for symbol, fold in places]
    return _table(["", *heading, "mean"], rows)


def _direction(document: Mapping[str, Any]) -> str:
    cells, whole = _cells(document), _whole(document)
    folds = [fold["name"] for fold in document["folds"]]
    rows = []
    for name in _forecasters(document):
        found = [cells[name, whole, fold]["scores"] for fold in folds]
        overall = cells[name, whole, "all"]["scores"]
        covered = [_number(each["figures"]["coverage_80"]["value"], ".3f") for each in found]
        skill, figures = overall["skill"], overall["figures"]
        error = "-"
        if skill["estimate"] is not None and skill["estimate"] == skill["estimate"]:
            error = f"{skill['estimate']:+.3f} ± {skill['standard_error']:.3f}"
        crps = figures["crps"]["value"]
        rows.append(
            [
                name,
                *covered,
                error,
                _number(None if crps is None else 100.0 * crps, ".3f"),
                _number(figures["brier"]["value"], ".4f"),
                _number(figures["qlike"]["value"], ".3f"),
            ]
        )
    return _table(["", *[f"band {fold[:4]}" for fold in folds], "IC, all", "CRPS, %", "Brier", "QLIKE"], rows)


def _accounts(document: Mapping[str, Any]) -> str:
    cells = _cells(document)
    places = [(symbol, fold["name"]) for fold in document["folds"] for symbol in document["symbols"]]
    rows = []
    for name in _forecasters(document):
        accounts = [cells[name, *place]["trading"] for place in places]
        if all(account is not None and account["turnover"] for account in accounts):
            rows.append([name, *[f"{a['gross_return']:+.0%} / {a['net_return']:+.0%}" for a in accounts]])
    heading = [f"{symbol.removesuffix('USDT')} {fold[:4]}" for symbol, fold in places]
    return _table(["gross / net", *heading], rows)


def _controls(document: Mapping[str, Any]) -> str:
    cells, whole = _cells(document), _whole(document)
    names = dict.fromkeys(result["forecaster"] for result in document["results"])
    memories = {name.partition(": ")[0] for name in names if ":" in name}
    rows = []
    for name in names:
        if name.partition(": ")[0] not in memories:
            continue
        scores = cells[name, whole, "all"]["scores"]
        figures, skill = scores["figures"], scores["skill"]
        crps = figures["crps"]["value"]
        rows.append(
            [
                name,
                _number(skill["estimate"], "+.3f"),
                _number(figures["volatility_r2"]["value"], "+.3f"),
                _number(None if crps is None else 100.0 * crps, ".4f"),
            ]
        )
    leaks = [
        f"With maturity switched off {name} would show an information coefficient {leak['information_coefficient']:+.3f} "
        f"higher: **LEAK**, which nobody could have known."
        for name, leak in document["leaks"].items()
    ]
    return "\n\n".join([_table(["", "IC", "vol R²", "CRPS, %"], rows), *leaks])


def _comparisons(document: Mapping[str, Any]) -> str:
    rows = [
        [
            each["forecaster"],
            each["rival"],
            each["what"],
            each["test"].replace("_", " "),
            _number(each["outcome"]["statistic"], "+.2f"),
            _number(each["outcome"]["p_value"], ".3f"),
        ]
        for each in document["comparisons"]
        if each["fold"] == "all"
    ]
    heading = ["", "against", "of", "test", "z", "p"]
    return "Tests over all folds; z above 0 is for the first.\n\n" + _table(heading, rows)


def _goals(document: Mapping[str, Any]) -> str:
    found = document["goals"][MODEL]
    rows = []
    for name, (goal, least, most) in _WANTED.items():
        value = found[name]
        verdict = "-" if value is None else "reached" if least <= value <= most else "missed"
        rows.append([f"`{name}`", _number(value, "+.3f"), goal, verdict])
    return _table(["figure", "value", "goal", ""], rows)
