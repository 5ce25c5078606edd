"""The tests of a result as rows of tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backtest.report.formats import number, percent
from backtest.significance.verdict import told_p

Row = tuple[str, str, str]
"""What was asked, the figure, and what it might as well have been or what is wanted."""


def evidence_rows(judged: Mapping[str, Any]) -> list[Row]:
    """Figures of ``SignificanceReport.to_json`` with what they have to be held against."""
    wanted = percent(1.0 - judged["level"], 0)
    luckiest = "the luckiest of " + (f"{judged['trials']:,} settings" if judged["trials"] > 1 else "one setting")
    rows = []
    if judged["sharpe_ratio"]["value"] is not None:
        rows += [
            ("Sharpe ratio", *_interval(judged["sharpe_ratio"], lambda value: number(value, 2, signed=True), wanted)),
            (
                "Annual return",
                *_interval(judged["annual_return"], lambda value: percent(value, 1, signed=True), wanted),
            ),
        ]
    if judged["deflated_sharpe"] is not None:
        surely, beyond = (percent(judged[name], 1) for name in ("probabilistic_sharpe", "deflated_sharpe"))
        rows += [
            ("Sure that the Sharpe ratio is above 0", surely, f"{wanted} wanted"),
            (f"Sure that it is above {luckiest} without an edge", beyond, f"{wanted} wanted"),
            ("Track record that would prove it, days", _days(judged), f"there are {judged['days']:,}"),
        ]
    if judged["shifted_signals"] is not None:
        test = judged["shifted_signals"]
        rows.append(
            ("Its timing", told_p(test["p_value"]), f"among {test['permutations']:,} shifts of its positions in time")
        )
    memory = judged["memory"]
    if memory is not None:
        gained, span = _interval(memory["difference"], lambda value: number(value, 2, signed=True), wanted)
        rows.append(("Annual log return that is the memory's", gained, span))
        rows.append(
            ("What its memory is worth", told_p(memory["p_value"]), f"against shuffled outcomes, {memory['method']}")
        )
    return rows


def rival_rows(judged: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Name, total return, Sharpe ratio, and p-value of the lead over it, of every baseline."""
    return [
        (
            each["name"],
            percent(each["total_return"], 1, signed=True),
            number(each["sharpe_ratio"], 2),
            told_p(each["p_value"]),
        )
        for each in judged["baselines"]
    ]


def stress_rows(judged: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Assumption, total return, annual return and Sharpe ratio of every stress case."""
    return [
        (
            each["name"],
            percent(each["total_return"], 1, signed=True),
            percent(each["annual_return"], 1, signed=True),
            number(each["sharpe_ratio"], 2),
        )
        for each in judged["stresses"]
    ]


def _interval(figure: Mapping[str, Any], form: Any, level: str) -> tuple[str, str]:
    if figure["low"] is None or figure["high"] is None:
        return form(figure["value"]), ""
    return form(figure["value"]), f"{level}: {form(figure['low'])} to {form(figure['high'])}"


def _days(judged: Mapping[str, Any]) -> str:
    needed = judged["minimum_track_record_days"]
    return "no number would" if needed is None else number(needed, 0)
