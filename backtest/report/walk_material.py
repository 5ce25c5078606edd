"""Everything that a report of a walk is made of: what its windows left in their folder, and the candle store."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from backtest.report.exposure import Exposure
from backtest.report.judgement import stored_judgement
from backtest.report.material import Kind, Material, Subject, Walk, WindowFigures, common_calendar, gather
from backtest.report.recollection import Recollection, recollect
from backtest.report.returns import returns_by_day
from backtest.report.terminal import span_title
from backtest.walk_forward.listing import SUMMARY_FILE, WALKS
from backtest.walk_forward.summary import chain, chained
from backtest.walk_forward.window import Arm, WindowResult, read_result
from bot.assembly import home_named
from bot.config import Config, stored_config
from bot.errors import UsageError
from bot.journal import Journal
from bot.journal.outlooks import Outlooks
from strategies.bars import BarSeries, Calendar, interval_ms

_AGAIN: Final = "give the command that made it once more, which reads the windows that are there"


def find_material(journal: Journal, name: str, config: Config) -> Material:
    """The material of a walk, by its id, or of a run of the journal.

    Args:
        journal: where runs are.
        name: of a walk or a run; ``latest`` is a run.
        config: says where walks and candles are.

    Raises:
        UsageError: there is none of that name, or nothing to report of it.
    """
    folder = config.storage.data_dir / WALKS / Path(name).name
    if (folder / SUMMARY_FILE).is_file():
        return gather_walk(folder, config)
    return gather(journal, journal.find_run(name), config)


def gather_walk(folder: Path, config: Config) -> Material:
    """Read what there is of a walk.

    Args:
        folder: of the walk.
        config: says where candles are now.

    Raises:
        UsageError: a window is missing, or it was written by an earlier version.
    """
    summary = json.loads((folder / SUMMARY_FILE).read_text(encoding="utf-8"))
    found = {arm: _windows(folder, arm) for arm in Arm}
    plain = found[Arm.PLAIN]
    judgement = stored_judgement(summary)
    whole = all(len(found[Arm(arm)]) == len(summary["windows"]) for arm in summary["arms"])
    if judgement is None or "config" not in summary or not whole:
        raise UsageError(f"walk {folder.name} is not whole, or of an earlier version; {_AGAIN}")
    settings = stored_config(summary["config"], folder.name)
    symbols, interval = tuple(summary["symbols"]), summary["interval"]
    calendar = common_calendar({name: Calendar(kind) for name, kind in summary["calendars"].items()})
    cash = float(settings.account.initial_cash)
    account = chain(plain, calendar, cash)
    times, start = account.close_times, int(account.close_times[0]) - interval_ms(interval)
    store = home_named(config, "").candles
    candles = {name: store.load(name, interval, start=start, end=int(times[-1])) for name in symbols}
    candles = {name: series for name, series in candles.items() if len(series)}
    exposure = np.concatenate([np.array(each.exposure) for each in plain])
    arms = summary["arms"]
    # A walk that was done with --only-plain may have twins of another time beside it.
    rivals = {arm: found[arm] for arm in Arm if arm is not Arm.PLAIN and str(arm) in arms}
    return Material(
        about=Subject(
            folder.name,
            Kind.WALK,
            "finished",
            summary["strategy"],
            "",
            symbols,
            interval,
            summary["versions"],
        ),
        title=span_title(summary["strategy"], symbols, interval, times),
        settings=settings,
        figures=arms[str(Arm.PLAIN)]["metrics"],
        calendar=calendar,
        initial_cash=cash,
        times=times,
        equity=account.equity,
        daily=returns_by_day(times, account.equity, cash, calendar, started_at=start),
        hold=(times, chained([each.hold for each in plain], cash)),
        exposure=Exposure(times, exposure.sum(axis=1), np.abs(exposure).sum(axis=1)),
        trades=[trade for each in plain for trade in each.trades],
        executions=[],
        candles=candles,
        recollection=_recollection(plain, candles),
        probe=None,
        judgement=judgement,
        walk=Walk(
            _figures(arms, [str(arm) for arm in rivals]),
            {str(arm): chain(windows, calendar, cash).equity for arm, windows in rivals.items()},
            {str(arm): arms[str(arm)]["metrics"] for arm in (Arm.PLAIN, *rivals)},
        ),
    )


def _windows(folder: Path, arm: Arm) -> list[WindowResult]:
    results = [read_result(file) for file in sorted(folder.glob("*.msgpack"))]
    return [each for each in results if each is not None and each.arm is arm]


def _figures(arms: dict[str, Any], rivals: Sequence[str]) -> tuple[WindowFigures, ...]:
    names = [name for name in WindowFigures.__dataclass_fields__ if name != "rivals"]
    return tuple(
        WindowFigures(
            **{name: row[name] for name in names},
            rivals=tuple(arms[rival]["windows"][place]["total_return"] for rival in rivals),
        )
        for place, row in enumerate(arms[str(Arm.PLAIN)]["windows"])
    )


def _recollection(plain: Sequence[WindowResult], candles: dict[str, BarSeries]) -> Recollection | None:
    parts = [Outlooks.from_bytes(each.outlooks) for each in plain if each.outlooks]
    parts = [each for each in parts if len(each)]
    return recollect(Outlooks.joined(parts), candles) if parts else None
