"""``recall fetch`` and ``recall data``: get candles and look at them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from bot.assembly import home_of
from bot.cli.common import (
    REAL_MARKET,
    Context,
    chosen_market,
    chosen_span,
    existing_homes,
    market_options,
    market_words,
    span_options,
    standard_options,
    stored_calendars,
)
from bot.cli.funding import BYBIT_BEGAN, fetch_rates, market_rest
from bot.cli.help import ExampleCommand, ExampleGroup
from bot.cli.margin import fetch_tiers
from bot.cli.terminal import console, listing, output, progress_bar
from bot.config import Config
from bot.errors import CheckFailed, UsageError
from bot.market.bybit_rest import BybitRest
from bot.market.candles import CandleStore
from bot.market.history import BybitHistory, HistorySource, fetch_history
from bot.market.importing import detect_calendar, read_candle_frame
from bot.market.stocks import YFinanceSource
from bot.market.validation import DataReport, Policy, repair, validate
from strategies.bars import Calendar, format_time, parse_time

_YEARS_OF_STOCKS = "1990-01-01"


@click.command(
    cls=ExampleCommand,
    examples=(
        "recall fetch --symbols BTCUSDT,ETHUSDT --interval 60 --start 2021-01-01",
        "recall fetch --symbols BTCUSDT,AAPL --interval D",
        "recall fetch --source file candles.parquet --symbol BTCUSDT --interval 60",
        "recall fetch --funding --symbols BTCUSDT,ETHUSDT --start 2021-01-01",
        "recall fetch --funding --source file funding.parquet --symbol BTCUSDT",
        "recall fetch --margin-tiers --symbols BTCUSDT,ETHUSDT",
    ),
)
@click.option(
    "--source", type=click.Choice(["auto", "bybit", "yfinance", "file"]), default="auto", show_default=True,
    help="auto: bybit for names that end in USDT, USDC or USD, yfinance for the rest.",
)  # fmt: skip
@click.argument("path", required=False, type=click.Path(path_type=Path))
@market_options
@span_options
@click.option(
    "--calendar", type=click.Choice(["auto", "continuous", "sessions"]), default="auto", show_default=True,
    help="For files: does the market never close, or has it sessions?",
)  # fmt: skip
@click.option("--funding", is_flag=True, help="Get funding rates, not candles: from Bybit, or from a file.")
@click.option(
    "--margin-tiers", is_flag=True, help="Get margin tiers from Bybit, not candles: for liquidation in replays."
)
@click.option(
    "--prepend",
    is_flag=True,
    help="Also take what lies before the first stored bar: of a download from --start on, of a file all of it.",
)
@click.option("--repair", "repairs", is_flag=True, help="Widen bars whose open or close is outside high and low.")
@standard_options
def fetch(
    context: Context,
    source: str,
    path: Path | None,
    symbols: str | None,
    interval: str | None,
    start: str | None,
    end: str | None,
    calendar: str,
    funding: bool,
    margin_tiers: bool,
    prepend: bool,
    repairs: bool,
) -> None:
    """Download candles, funding rates or margin tiers, or import candles or rates from a file at PATH.

    PATH is a Parquet or CSV file with columns open, high, low, close, volume and one of times. Only what is missing is
    fetched; an interrupted download goes on where it stopped. Files of funding rates have a column of times and one of
    rates.
    """
    config = context.config
    names, code = chosen_market(config, symbols, interval)
    first, last = chosen_span(start, end)
    if margin_tiers:
        if funding or path is not None or source not in ("auto", "bybit"):
            raise UsageError("--margin-tiers come from bybit alone; leave out --funding, --source and PATH")
        fetch_tiers(context, names)
        return
    if funding:
        fetch_rates(context, source, path, names, first, last)
        return
    store = home_of(config).candles
    if source == "file":
        if path is None or len(names) != 1:
            raise UsageError("--source file takes one PATH and exactly one --symbol")
        results = [_import_file(context, store, path, names[0], code, calendar, repairs, prepend)]
    elif path is not None:
        raise UsageError(f"PATH {path} goes with --source file; leave it out or add --source file")
    else:
        results = [_download(config, store, source, name, code, first, last, prepend) for name in names]
    if context.as_json:
        context.answer(results)
        return
    for result in results:
        output.print(
            f"[bold]{result['symbol']}[/] interval {result['interval']}: {result['added']:,} bars added, "
            f"{result['bars']:,} stored, {_span_text(result['first_open'], result['last_open'])}"
        )


@click.group(cls=ExampleGroup, examples=("recall data list", "recall data check --symbols BTCUSDT"))
def data() -> None:
    """List and check stored candles."""


@data.command("list", cls=ExampleCommand, examples=("recall data list", "recall data list --json"))
@standard_options
def list_data(context: Context) -> None:
    """List stored candles of the real market, and those that sandboxes and the testnet left."""
    rows: list[dict[str, Any]] = [
        {
            "market": home.name or REAL_MARKET,
            "symbol": each.symbol,
            "interval": each.interval,
            "bars": each.bars,
            "first_open": each.first_open,
            "last_open": each.last_open,
            "calendar": str(each.calendar),
            "source": each.source,
            "bytes": each.bytes,
        }
        for home in existing_homes(context.config)
        for each in home.candles.list()
    ]
    if context.as_json:
        context.answer(rows)
        return
    if not rows:
        output.print("The candle store is empty: get some with recall fetch.")
        return
    table = listing("candles", "bars", "from", "to", "calendar", "market", right=("bars",))
    for row in rows:
        first, last = (format_time(row[name])[:10] for name in ("first_open", "last_open"))
        name = market_words([row["symbol"]], row["interval"])
        table.add_row(name, f"{row['bars']:,}", first, last, row["calendar"], row["market"])
    output.print(table)


@data.command(cls=ExampleCommand, examples=("recall data check", "recall data check --symbols BTCUSDT --interval 60"))
@market_options
@standard_options
def check(context: Context, symbols: str | None, interval: str | None) -> None:
    """Validate stored candles: gaps, order, prices, volumes. Exit code 1 if something is wrong."""
    config = context.config
    store = home_of(config).candles
    if symbols is None and interval is None:
        wanted = [(each.symbol, each.interval) for each in store.list()]
    else:
        names, code = chosen_market(config, symbols, interval)
        wanted = [(name, code) for name in names]
    if not wanted:
        raise UsageError("the candle store is empty: get some with recall fetch")
    reports = []
    for name, code in wanted:
        calendar = stored_calendars(store, (name,), code)[name]
        reports.append((name, code, validate(store.load(name, code), calendar)))
    if context.as_json:
        context.answer([_report_json(*each) for each in reports])
    else:
        for each in reports:
            _show_report(*each)
    wrong = [f"{name} {code}" for name, code, report in reports if not report.is_sound]
    if wrong:
        raise CheckFailed(f"candles of {', '.join(wrong)} are not sound; see above, and fetch them again")


def _download(
    config: Config,
    store: CandleStore,
    source: str,
    symbol: str,
    code: str,
    first: int | None,
    last: int | None,
    prepend: bool,
) -> dict[str, Any]:
    if source == "auto":
        source = "bybit" if symbol.endswith(("USDT", "USDC", "USD", "PERP")) else "yfinance"
    history: HistorySource
    rest: BybitRest | None = None
    if source == "bybit":
        rest = market_rest(config)
        history = BybitHistory(rest.klines_page)
        begin = first if first is not None else parse_time(BYBIT_BEGAN)
    else:
        history = YFinanceSource()
        begin = first if first is not None else parse_time(_YEARS_OF_STOCKS)
    end = last if last is not None else time.time_ns() // 1_000_000
    try:
        with progress_bar(f"{symbol} {code}", None) as update:
            result = fetch_history(store, history, symbol, code, begin, end, prepend=prepend, progress=update)
    finally:
        if rest is not None:
            rest.close()
    if result.starts_late:
        console.print(f"{symbol}: what lies before the first stored bar was not fetched; add --prepend to get it too")
    return _result_json(store, symbol, code, result.added)


def _import_file(
    context: Context,
    store: CandleStore,
    path: Path,
    symbol: str,
    code: str,
    calendar: str,
    repairs: bool,
    prepend: bool,
) -> dict[str, Any]:
    frame = read_candle_frame(path, symbol, code)
    chosen = detect_calendar(frame) if calendar == "auto" else Calendar(calendar)
    series, report = repair(frame, chosen, Policy.REPAIR if repairs else Policy.REFUSE)
    if not context.as_json and report.findings:
        _show_report(symbol, code, report)
    added = store.append(series, source=f"file {path.name}", prepend=prepend)
    return _result_json(store, symbol, code, added.added)


def _result_json(store: CandleStore, symbol: str, code: str, added: int) -> dict[str, Any]:
    stored = store.describe(symbol, code)
    return {
        "symbol": symbol,
        "interval": code,
        "added": added,
        "bars": 0 if stored is None else stored.bars,
        "first_open": None if stored is None else stored.first_open,
        "last_open": None if stored is None else stored.last_open,
        "calendar": None if stored is None else str(stored.calendar),
    }


def _report_json(symbol: str, code: str, report: DataReport) -> dict[str, Any]:
    return {"symbol": symbol, "interval": code, "sound": report.is_sound, "findings": [str(f) for f in report.findings]}


def _show_report(symbol: str, code: str, report: DataReport) -> None:
    verdict = "[green]sound[/]" if report.is_sound else "[red]not sound[/]"
    console.print(f"[bold]{symbol}[/] interval {code}: {verdict}")
    for finding in report.findings:
        console.print(f"  {finding.severity}: {finding.count:,} x {finding.problem}: {'; '.join(finding.examples[:3])}")


def _span_text(first: int | None, last: int | None) -> str:
    if first is None or last is None:
        return "nothing"
    return f"{format_time(first)} to {format_time(last)}"
