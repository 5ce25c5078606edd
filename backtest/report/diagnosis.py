"""What may be wrong with a result, found by looking for it: every finding says what was seen, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np

from backtest.report.costs import costs_of
from backtest.report.formats import number, percent
from backtest.report.material import STREAMS, Material
from backtest.report.returns import monthly_returns
from backtest.significance.verdict import LATE, TWICE
from strategies.bars import format_time

FEWEST_TRADES: Final = 30
"""Round trips below which a mean says little (the usual rule of thumb for the normal approximation)."""
ONE_TRADE_SHARE: Final = 0.5
ONE_MONTH_SHARE: Final = 0.75
COST_SHARE: Final = 0.5
HARDLY_INVESTED: Final = 0.05
MODEL_STRATEGY: Final = "memory_transformer"


class Severity(StrEnum):
    """How much a finding should worry."""

    WARNING = "warning"
    NOTE = "note"
    PASSED = "passed"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked for."""

    severity: Severity
    title: str
    text: str
    """What was seen, and what to do."""


def diagnose(material: Material) -> list[Finding]:
    """Everything that was looked for, warnings first, in a fixed order."""
    looked_for: tuple[Callable[[Material], Finding | None], ...] = (
        _few_trades,
        _one_trade,
        _one_month,
        _windows,
        _costs,
        _fragile,
        _beaten_by_holding,
        _out_of_sample,
        _lookahead,
        _hardly_invested,
        _memory_page,
        _candles,
    )
    found = [finding for look in looked_for if (finding := look(material)) is not None]
    return sorted(found, key=lambda finding: list(Severity).index(finding.severity))


def _few_trades(material: Material) -> Finding:
    count = len(material.trades)
    if count < FEWEST_TRADES:
        return Finding(
            Severity.WARNING,
            "Too few trades",
            f"There are {count} closed round trips; below {FEWEST_TRADES} win rate, profit factor and mean result are mostly "
            "chance. Run it over a longer span or more symbols.",
        )
    return Finding(Severity.PASSED, "Enough trades to count", f"There are {count:,} closed round trips.")


def _one_trade(material: Material) -> Finding | None:
    profits = [float(trade.profit) for trade in material.trades]
    if len(profits) < 2:
        return None
    total, best = sum(profits), max(profits)
    if total > 0.0 and best > ONE_TRADE_SHARE * total:
        rest = "a loss" if total - best < 0.0 else f"{number(total - best, 0)}"
        return Finding(
            Severity.WARNING,
            "One trade makes the result",
            f"The best round trip brought {number(best, 0)} of {number(total, 0)}; without it {rest} is left. Judge the "
            "strategy without it.",
        )
    return Finding(
        Severity.PASSED,
        "No single trade makes the result",
        f"The best round trip brought {number(best, 0)}, all together {number(total, 0)}.",
    )


def _one_month(material: Material) -> Finding | None:
    months = monthly_returns(material.daily)
    gains = np.log1p(np.array(list(months.values())))
    total = float(gains.sum())
    if len(months) < 6 or total <= 0.0 or float(gains.max()) <= ONE_MONTH_SHARE * total:
        return None
    (year, month) = list(months)[int(gains.argmax())]
    return Finding(
        Severity.WARNING,
        "One month makes the result",
        f"{year}-{month:02d} alone returned {percent(months[year, month], 1, signed=True)} of a total of "
        f"{percent(float(np.expm1(total)), 1, signed=True)}. Look at what happened then, and whether it can happen again.",
    )


def _windows(material: Material) -> Finding | None:
    if material.walk is None or len(material.walk.windows) < 2:
        return None
    windows = material.walk.windows
    earned = sum(each.total_return > 0.0 for each in windows)
    text = f"{earned} of {len(windows)} windows earned something."
    if 2 * earned > len(windows):
        return Finding(Severity.PASSED, "Most windows earned", text)
    return Finding(Severity.WARNING, "Most windows lost", f"{text} An edge that lasts would show in most of them.")


def _costs(material: Material) -> Finding | None:
    costs = costs_of(material)
    paid = costs.fees + costs.funding
    if not material.trades or paid <= 0.0:
        return None
    if costs.gross > 0.0 and costs.net <= 0.0:
        return Finding(
            Severity.WARNING,
            "Costs eat the whole edge",
            f"Before costs the closed round trips earned {number(costs.gross, 0)}, fees and funding were "
            f"{number(paid, 0)}. Trade less often, or not at all.",
        )
    if costs.gross > 0.0 and paid > COST_SHARE * costs.gross:
        return Finding(
            Severity.WARNING,
            "Costs eat most of the edge",
            f"Fees and funding took {percent(paid / costs.gross, 0)} of the {number(costs.gross, 0)} earned before costs; "
            f"with costs {costs.gross / paid:.1f} times as high nothing would be left.",
        )
    if costs.gross <= 0.0:
        return Finding(
            Severity.WARNING,
            "A loss before costs",
            f"Even without costs the closed round trips would have lost {number(-costs.gross, 0)}; costs added "
            f"{number(paid, 0)}.",
        )
    return Finding(
        Severity.PASSED,
        "Costs leave an edge",
        f"Fees and funding took {percent(paid / costs.gross, 0)} of what was earned before costs.",
    )


def _fragile(material: Material) -> Finding | None:
    """Whether a gain is left under assumptions that are a little worse."""
    cases = {each["name"]: each["total_return"] for each in material.judgement.significance["stresses"]}
    own = material.equity[-1] / material.initial_cash - 1.0
    worse = {name: cases[name] for name in (TWICE, LATE) if name in cases}
    if own <= 0.0 or not worse:
        return None
    told = ", ".join(f"{percent(value, 1, signed=True)} with {name}" for name, value in worse.items())
    text = f"The same decisions returned {told}, as they were {percent(own, 1, signed=True)}"
    if min(worse.values()) > 0.0:
        return Finding(Severity.PASSED, "A gain is left under worse assumptions", f"{text}.")
    return Finding(
        Severity.WARNING,
        "Worse assumptions take the gain",
        f"{text}. What such a change takes away is no edge to trade on.",
    )


def _beaten_by_holding(material: Material) -> Finding | None:
    _, equity = material.hold
    if not len(equity):
        return None
    held, own = equity[-1] / material.initial_cash - 1.0, material.equity[-1] / material.initial_cash - 1.0
    compared = (
        f"Holding the same symbols returned {percent(held, 1, signed=True)}, this run {percent(own, 1, signed=True)}"
    )
    if own < held:
        text = f"{compared}. Compare the drawdowns before preferring either."
        return Finding(Severity.NOTE, "Holding would have earned more", text)
    return Finding(Severity.PASSED, "Better than holding", f"{compared}.")


def _out_of_sample(material: Material) -> Finding:
    about, certificate = material.about, material.judgement.certificate
    if material.settings.model.in_sample and about.strategy == MODEL_STRATEGY:
        return Finding(
            Severity.WARNING,
            "In sample",
            "model.in_sample was on: the model may have learned from these very bars, so the result proves nothing. Start "
            "after the end of its training.",
        )
    if certificate.walk:
        return Finding(
            Severity.PASSED,
            "Out of sample in every window",
            f"Each of the {len(certificate.walk)} windows was traded with a model that had learned from earlier bars only.",
        )
    if about.strategy == MODEL_STRATEGY:
        learned = (
            "" if certificate.train_span is None else f" learned from nothing after {_day(certificate.train_span[1])}"
        )
        return Finding(
            Severity.PASSED,
            "Out of sample for the model",
            f"{about.model_id}{learned}: a run on bars that its model has learned from is refused."
            if learned
            else f"A run on bars that {about.model_id} has learned from is refused.",
        )
    if about.kind in STREAMS:
        return Finding(Severity.PASSED, "Out of sample", "Every decision was made before its outcome was there.")
    return Finding(
        Severity.WARNING,
        "Out-of-sample result missing",
        "Nothing says that the parameters were chosen on other bars than these. If they were tried on this span, choose them "
        "on earlier bars and run again on later ones.",
    )


def _lookahead(material: Material) -> Finding:
    about, prefix = material.about, material.judgement.certificate.prefix
    if about.kind in STREAMS:
        return Finding(
            Severity.PASSED,
            "No lookahead by construction",
            "A run on a stream decides on bars as they close; recall audit recomputes every decision from them.",
        )
    probe = material.probe
    command = (
        f"recall probe --strategy {about.strategy} --symbols {','.join(about.symbols)} --interval {about.interval}"
    )
    if probe is not None and probe.past_matters:
        return Finding(
            Severity.WARNING,
            "The lookahead probe failed",
            f"The strategy depends on how long its past was; {command} shows where.",
        )
    if prefix is None:
        return Finding(
            Severity.WARNING,
            "Lookahead probe not run",
            f"A replay could look ahead by mistake. Run {command} with the settings of this run; it changes the future and "
            "sees whether the past stays.",
        )
    if prefix.changed:
        what = f": {prefix.first_change}" if prefix.first_change else ""
        return Finding(
            Severity.WARNING,
            "The lookahead probe failed",
            f"With another future the past changes, at {prefix.changed} of {prefix.cuts} cuts{what}; {command} shows where.",
        )
    return Finding(
        Severity.PASSED,
        "Lookahead probe passed",
        f"Another future after {prefix.cuts} random moments changed no decision before them.",
    )


def _hardly_invested(material: Material) -> Finding | None:
    share = material.exposure.share_of_time
    if not material.trades or not len(material.exposure.times) or share >= HARDLY_INVESTED:
        return None
    return Finding(
        Severity.NOTE,
        "Hardly ever invested",
        f"A position was open at {percent(share, 1)} of the closes, so annual figures speak about few moments.",
    )


def _memory_page(material: Material) -> Finding | None:
    if material.recollection is not None or material.about.strategy not in (MODEL_STRATEGY, "similarity"):
        return None
    return Finding(
        Severity.NOTE,
        "What the memory said is not in the journal",
        "The run was written by an earlier version. Run it again to see the memory page.",
    )


def _candles(material: Material) -> Finding | None:
    missing = [symbol for symbol in material.about.symbols if symbol not in material.candles]
    if not missing:
        return None
    return Finding(
        Severity.NOTE,
        "Candles are missing",
        f"The candles of {', '.join(missing)} are not in the store any more, so trades on candles, exposure, the comparison "
        "with holding and what followed the memory's advice are incomplete.",
    )


def _day(time: int) -> str:
    return format_time(time)[:10]
