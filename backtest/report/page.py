"""One run as one HTML file: self-contained, the same bytes for the same run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from math import expm1, isfinite
from typing import Any, Final

from bokeh import __version__ as bokeh_version
from bokeh.models import LayoutDOM

from backtest.report.candles import CANDLES_HELD, candle_chart
from backtest.report.charts import account_chart, distribution_chart, rolling_chart
from backtest.report.comparison import FIGURES, shown_figure
from backtest.report.costs import costs_of
from backtest.report.diagnosis import Severity, diagnose
from backtest.report.evidence import evidence_rows, rival_rows, stress_rows
from backtest.report.formats import money, number, percent
from backtest.report.material import Kind, Material, Walk
from backtest.report.memory_charts import advice_chart, attention_chart
from backtest.report.recollection import Recollection, telling_moments
from backtest.report.rendering import page_of
from backtest.report.returns import ROLLING_DAYS, deepest_drawdowns, monthly_returns, yearly_returns
from backtest.report.verdict import verdict_of
from backtest.significance.verdict import FEWEST_DAYS
from bot.portfolio import ClosedTrade
from strategies.bars import format_time

MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
MOST_SYMBOLS: Final = 8
"""Symbols whose candles are shown: those with most trades."""
DEEPEST_MONTH: Final = 0.10
"""Monthly return that is coloured as strongly as can be."""
_OPEN: Final = "open"
"""Of what was not checked, or cannot fail."""
MARKS: Final = {Severity.WARNING: "!", Severity.NOTE: "i", Severity.PASSED: "✓", _OPEN: "–"}
_CHECKED: Final = {True: Severity.PASSED, False: Severity.WARNING, None: _OPEN}
_ANNUAL: Final = (
    "annual_return", "volatility", "sharpe_ratio", "sortino_ratio", "calmar_ratio", "annual_turnover", "alpha", "beta",
)  # fmt: skip
"""Figures that are shown from ``FEWEST_DAYS`` days on."""
TRADE_COLUMNS: Final = (
    ("opened", "time"),
    ("closed", "time"),
    ("symbol", "text"),
    ("side", "text"),
    ("quantity", "price"),
    ("entry", "price"),
    ("exit", "price"),
    ("fees", "money"),
    ("profit", "profit"),
    ("return", "percent"),
)


@dataclass(frozen=True, slots=True)
class MonthCell:
    """One month of the heat map."""

    text: str
    colour: str


def render_run(material: Material) -> str:
    """The whole page."""
    charts = _charts(material)
    figures, about, judged = material.figures, material.about, material.judgement.significance
    return page_of(
        "run.html",
        charts,
        trades=_trades_table(material.trades),
        title=material.title,
        trade_columns=[{"name": name, "kind": kind} for name, kind in TRADE_COLUMNS],
        kind=str(about.kind),
        strategy=about.strategy,
        market=material.title.split(" · ", 1)[1].rsplit(" · ", 1)[0],
        span=material.title.rsplit(" · ", 1)[1],
        run_id=about.run_id,
        model_id=about.model_id,
        verdict=verdict_of(material.judgement, len(material.trades), material.recollection),
        certificate=[
            (_CHECKED[each.passed], each.name, each.sentence) for each in material.judgement.certificate.parts()
        ],
        evidence=evidence_rows(judged),
        baselines=rival_rows(judged),
        stresses=stress_rows(judged),
        walk=None if material.walk is None else _walk(material.walk),
        tiles=_tiles(figures, material.initial_cash),
        findings=diagnose(material),
        marks=MARKS,
        months=_heat_map(material),
        month_names=MONTHS,
        drawdowns=_drawdowns(material),
        rolling_days=ROLLING_DAYS,
        still_days=int((material.daily.returns == 0.0).sum()),
        all_days=len(material.daily),
        candle_symbols=[name.removeprefix("candles-") for name in charts if name.startswith("candles-")],
        sides=_sides(figures, material.initial_cash),
        costs=costs_of(material),
        turnover=figures["turnover"],
        annual_turnover=figures["annual_turnover"],
        slippage=figures["slippage_paid"],
        initial_cash=material.initial_cash,
        annual_days=FEWEST_DAYS if figures["days"] < FEWEST_DAYS else None,
        memory=None if material.recollection is None else _memory(material.recollection),
        facts=_facts(material),
        days_per_year=material.calendar.days_per_year,
        version=_version(),
        bokeh_version=bokeh_version,
        money=money,
        number=number,
        percent=percent,
    )


def _walk(walk: Walk) -> dict[str, Any]:
    """What the template shows of the windows."""
    names = {"plain": "this walk"}
    return {
        "rivals": list(walk.rivals),
        "windows": [
            {
                "span": f"{_day(each.start)} to {_day(each.end)}",
                "model": each.model_id,
                "own": _toned(each.total_return),
                "sharpe": number(each.sharpe_ratio, 2),
                "drawdown": percent(each.max_drawdown, 1),
                "trades": f"{each.trades:,}",
                "others": [_toned(value) for value in (each.hold_return, *each.rivals)],
            }
            for each in walk.windows
        ],
        "arms": [names.get(name, name) for name in walk.figures],
        "figures": [
            (words, [shown_figure(name, figures.get(name)) for figures in walk.figures.values()])
            for name, words in FIGURES
        ],
    }


def _toned(change: float) -> tuple[str, str]:
    return percent(change, 1, signed=True), "gain" if change > 0.0 else "loss" if change < 0.0 else ""


def _charts(material: Material) -> dict[str, LayoutDOM]:
    """Those that there is something to draw for, by name."""
    recollection = material.recollection
    drawn: dict[str, LayoutDOM | None] = {
        "account": account_chart(material),
        "rolling": rolling_chart(material.daily, material.calendar.days_per_year),
        "distribution": distribution_chart(material.daily),
    }
    traded = {symbol: [trade for trade in material.trades if trade.symbol == symbol] for symbol in material.candles}
    busiest = sorted(traded, key=lambda symbol: -len(traded[symbol]))[:MOST_SYMBOLS]
    for symbol in [symbol for symbol in traded if symbol in busiest]:
        held = CANDLES_HELD // len(busiest)
        drawn[f"candles-{symbol}"] = candle_chart(material.candles[symbol], traded[symbol], held)
    if recollection is not None:
        drawn["advice"] = advice_chart(recollection)
        drawn["attention"] = attention_chart(recollection)
    return {name: chart for name, chart in drawn.items() if chart is not None}


def _tiles(figures: Mapping[str, Any], initial_cash: float) -> list[tuple[str, str, str]]:
    """Name, value and tone of the figures that one looks for first."""

    def toned(value: float | None) -> str:
        return "" if value is None else "gain" if value > 0.0 else "loss" if value < 0.0 else ""

    total = figures["total_return"]
    # What a few days would make of a year is not worth a line.
    known = figures if figures["days"] >= FEWEST_DAYS else dict.fromkeys(_ANNUAL)
    annual, alpha = known["annual_return"], known["alpha"]
    return [
        ("Total return", percent(total, 1, signed=True), toned(total)),
        ("A year", percent(annual, 1, signed=True), toned(annual)),
        ("Volatility, a year", percent(known["volatility"], 1), ""),
        ("Sharpe ratio", number(known["sharpe_ratio"], 2), ""),
        ("Sortino ratio", number(known["sortino_ratio"], 2), ""),
        ("Calmar ratio", number(known["calmar_ratio"], 2), ""),
        ("Deepest drawdown", percent(figures["max_drawdown"], 1), toned(figures["max_drawdown"])),
        ("Longest drawdown", f"{number(figures['max_drawdown_days'], 0)} d", ""),
        ("Round trips", f"{figures['trades']:,}", ""),
        ("Worst day", percent(figures["worst_day"], 1), toned(figures["worst_day"])),
        ("Won after costs", percent(figures["win_rate"], 1), ""),
        ("Profit factor", number(figures["profit_factor"], 2), ""),
        ("Mean of a round trip", percent(figures["expectancy"], 2, signed=True), toned(figures["expectancy"])),
        ("Bars with a gain", percent(figures["bar_win_rate"], 1), ""),
        ("Fees, of first equity", percent(figures["fees_paid"] / initial_cash, 1), ""),
        ("Time in the market", percent(figures["exposure_time"], 1), ""),
        ("Mean exposure", percent(figures["mean_exposure"], 1), ""),
        ("Turnover, a year", number(known["annual_turnover"], 0), ""),
        ("Alpha, a year", percent(alpha, 1, signed=True), toned(alpha)),
        ("Beta", number(known["beta"], 2), ""),
    ]


def _sides(figures: Mapping[str, Any], initial_cash: float) -> list[dict[str, Any]]:
    """Rows of the table of sides: both, and all together."""
    sides = [{"name": name, **figures[name]} for name in ("long", "short")]
    whole = {name: figures[name] for name in ("trades", "win_rate", "profit_factor")}
    rows = [
        *sides,
        {"name": "all", **whole, "net_return": sum(side["net_return"] for side in sides), "mean_hours": None},
    ]
    return [{**row, "net": row["net_return"] * initial_cash} for row in rows]


def _heat_map(material: Material) -> list[tuple[int, list[MonthCell | None], float]]:
    monthly = monthly_returns(material.daily)
    return [
        (year, [_cell(monthly.get((year, month))) for month in range(1, 13)], total)
        for year, total in yearly_returns(monthly).items()
    ]


def _drawdowns(material: Material) -> list[dict[str, str]]:
    return [
        {
            "peak": _day(each.peak),
            "trough": _day(each.trough),
            "end": "" if each.end is None else _day(each.end),
            "days": number(each.days, 0),
            "depth": percent(each.depth, 1),
        }
        for each in deepest_drawdowns(material.times, material.equity, material.initial_cash)
        if each.days >= 1.0
    ]


def _cell(change: float | None) -> MonthCell | None:
    if change is None:
        return None
    strength = round(0.62 * min(1.0, abs(change) / DEEPEST_MONTH), 3)
    tone = "42, 157, 107" if change > 0.0 else "207, 79, 67"
    return MonthCell(f"{100.0 * change:+.1f}".replace("-", "\N{MINUS SIGN}"), f"rgba({tone}, {strength})")


def _trades_table(trades: list[ClosedTrade]) -> dict[str, Any]:
    rows = [
        [
            trade.opened_at,
            trade.closed_at,
            trade.symbol,
            trade.side,
            float(trade.quantity),
            float(trade.entry_price),
            float(trade.exit_price),
            round(float(trade.fees), 2),
            round(float(trade.profit), 2),
            round(float(trade.profit / (trade.quantity * trade.entry_price)), 6),
        ]
        for trade in trades
    ]
    return {"columns": [{"name": name, "kind": kind} for name, kind in TRADE_COLUMNS], "rows": rows}


def _memory(recollection: Recollection) -> dict[str, Any]:
    share = "H" if recollection.mean_gate is None else "The memory's share, and h"
    return {
        "horizon": recollection.outlooks.horizon_bars,
        "agreements": [("agreed", recollection.agreed), ("disagreed", recollection.disagreed)],
        "has_model": bool(recollection.agreed.count or recollection.disagreed.count),
        "attention_title": f"{share}ow new the market looked to it,",
        "moments": _moments(recollection),
    }


def _moments(recollection: Recollection) -> list[list[dict[str, Any]]]:
    """Of every decision that is shown, the rows of the moments that spoke for it; the first one tells the decision too."""
    outlooks = recollection.outlooks
    return [
        [
            _moment(recollection, at, rank)
            for rank, neighbour in enumerate(outlooks.neighbour_symbol[at].tolist())
            if neighbour >= 0
        ]
        for at in telling_moments(recollection).tolist()
    ]


def _moment(recollection: Recollection, at: int, rank: int) -> dict[str, Any]:
    outlooks = recollection.outlooks
    target, said = float(outlooks.exposure[at]), float(outlooks.memory_mean[at])
    decision = {
        "decision": _date(int(outlooks.open_time[at])),
        "symbol": outlooks.symbols[outlooks.symbol[at]],
        "target": percent(target, 0, signed=True) if isfinite(target) else "unknown",
        "said": expm1(said) if isfinite(said) else None,
        "followed": expm1(float(recollection.followed[at])),
    }
    told_above = {"decision": "", "symbol": "", "target": "", "said": None, "followed": None}
    symbol = outlooks.symbols[outlooks.neighbour_symbol[at, rank]]
    return {
        **(told_above if rank else decision),
        "remembered": f"{_date(int(outlooks.neighbour_time[at, rank]))} {symbol}",
        "similarity": f"{outlooks.similarity[at, rank]:.3f}",
        "vote": percent(float(outlooks.weight[at, rank]), 1),
        "outcome": expm1(float(outlooks.outcome[at, rank])),
    }


def _date(time: int) -> str:
    return format_time(time).replace("T", " ").removesuffix("Z")


def _facts(material: Material) -> list[tuple[str, str]]:
    about, figures, settings = material.about, material.figures, material.settings
    facts = [
        ("walk" if about.kind is Kind.WALK else "run", about.run_id),
        ("kind", f"{about.kind}, {about.status}"),
        ("symbols", ", ".join(about.symbols)),
        ("interval", about.interval),
        ("first and last close", f"{format_time(int(material.times[0]))} to {format_time(int(material.times[-1]))}"),
        ("strategy", f"{about.strategy} {settings.strategy.parameters or ''}".strip()),
        ("model", about.model_id or ("one in every window" if material.walk and _models(material.walk) else "none")),
        ("first equity", money(material.initial_cash)),
        ("last equity", money(float(material.equity[-1]))),
        (
            "costs",
            f"taker {float(settings.costs.taker_fee):.4%}, maker {float(settings.costs.maker_fee):.4%}, slippage "
            f"{float(settings.costs.slippage):.4%}",
        ),
        ("fills", _assumptions(settings.fills.model_dump(mode="json"))),
        ("limits", _assumptions(settings.risk.model_dump(mode="json"))),
        ("decisions_sha256", str(figures.get("decisions_sha256", ""))),
        ("trades_sha256", str(figures.get("trades_sha256", ""))),
        ("versions", ", ".join(f"{name} {number}" for name, number in sorted(about.versions.items()))),
    ]
    return [(name, value) for name, value in facts if value]


def _assumptions(section: Mapping[str, Any]) -> str:
    """A section of the settings in one line."""
    words = {True: "yes", False: "no"}
    return ", ".join(
        f"{name.replace('_', ' ')} {words[value] if isinstance(value, bool) else value}"
        for name, value in section.items()
    )


def _models(walk: Walk) -> bool:
    return any(each.model_id for each in walk.windows)


def _day(time: int) -> str:
    return format_time(time)[:10]


def _version() -> str:
    try:
        return version("recall-bot")
    except PackageNotFoundError:
        return "of a source tree"
