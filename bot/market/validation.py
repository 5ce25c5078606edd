"""What may be wrong with candles, how it is reported, and the one stated policy by which it is mended or refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from bot.errors import UsageError
from bot.market.grid import grid_position, least_spacing, on_grid
from strategies.bars import (
    COLUMNS,
    DAY_MS,
    MINUTE_MS,
    BarSeries,
    Calendar,
    FloatArray,
    IntArray,
    format_time,
    interval_ms,
)

BoolArray = npt.NDArray[np.bool_]

EXAMPLES: Final = 3
"""How many places of each kind a report names."""

SESSION_GAP_MS: Final = 5 * DAY_MS
"""Markets with sessions close for nights, weekends and holidays; only a longer silence is worth a warning."""


class DataError(UsageError):
    """Candles that cannot be used as they are."""


class Severity(StrEnum):
    """How much a finding matters."""

    ERROR = "error"
    """The bars are refused unless the policy mends them."""
    WARNING = "warning"
    """The bars are used; a person should know."""
    INFORMATION = "information"
    """Harmless."""


class Problem(StrEnum):
    """Kinds of findings."""

    UNORDERED = "unordered rows"
    DUPLICATE = "duplicate rows"
    CONFLICT = "conflicting duplicates"
    PRICE = "prices that are not positive numbers"
    VOLUME = "volumes that are negative or not numbers"
    OHLC = "opens or closes outside [low, high]"
    OFF_GRID = "open times off the grid"
    OVERLAP = "bars that open inside the bar before"
    CLOSING_PRINT = "empty bars inside the bar before"
    GAP = "gaps"
    ZERO_VOLUME = "bars without volume"


_SEVERITY: Final = {
    Problem.UNORDERED: Severity.WARNING,
    Problem.DUPLICATE: Severity.WARNING,
    Problem.CLOSING_PRINT: Severity.WARNING,
    Problem.GAP: Severity.WARNING,
    Problem.ZERO_VOLUME: Severity.INFORMATION,
}

_FIX: Final = {
    Problem.CONFLICT: "remove the wrong row of each pair",
    Problem.PRICE: "mend or remove these rows",
    Problem.VOLUME: "mend or remove these rows",
    Problem.OHLC: "import them with recall fetch --repair, which widens high and low to contain them",
    Problem.OFF_GRID: "give the interval and the calendar that these bars have",
    Problem.OVERLAP: "give the interval that these bars have, or remove one bar of each pair",
}


class Policy(StrEnum):
    """What ``repair`` does with a bar whose open or close lies outside its [low, high]."""

    REFUSE = "refuse"
    """Raise ``DataError``."""
    REPAIR = "repair"
    """Raise high and lower low until they contain open and close."""


@dataclass(frozen=True, slots=True)
class CandleFrame:
    """Rows as they came, in any order and of any quality: the columns of a ``BarSeries`` without its guarantees."""

    symbol: str
    interval: str
    open_time: IntArray
    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray
    volume: FloatArray

    def __len__(self) -> int:
        return len(self.open_time)

    @classmethod
    def of(cls, series: BarSeries) -> CandleFrame:
        """The rows of a series."""
        columns = (getattr(series, name) for name in COLUMNS)
        return cls(series.symbol, series.interval, series.open_time, *columns)

    def take(self, rows: IntArray | BoolArray) -> CandleFrame:
        """These rows, by number or by mask."""
        columns = (getattr(self, name)[rows] for name in COLUMNS)
        return CandleFrame(self.symbol, self.interval, self.open_time[rows], *columns)


@dataclass(frozen=True, slots=True)
class Finding:
    """One kind of problem: how often, and where first."""

    problem: Problem
    severity: Severity
    count: int
    examples: tuple[str, ...]
    """The first places, each with its time and values."""


@dataclass(frozen=True, slots=True)
class DataReport:
    """What was found in the rows of one symbol and interval."""

    symbol: str
    interval: str
    calendar: Calendar
    rows: int
    first_open: int | None
    last_open: int | None
    missing_bars: int
    """Bars absent inside the gaps; 0 for a market with sessions, whose missing bars cannot be counted."""
    findings: tuple[Finding, ...]
    repaired: tuple[str, ...] = ()
    """What ``repair`` changed, one phrase each."""

    def count(self, problem: Problem) -> int:
        """How often a problem was found."""
        return sum(finding.count for finding in self.findings if finding.problem is problem)

    def of_severity(self, severity: Severity) -> tuple[Finding, ...]:
        """The findings of one severity."""
        return tuple(finding for finding in self.findings if finding.severity is severity)

    @property
    def is_sound(self) -> bool:
        """No finding is an error."""
        return not self.of_severity(Severity.ERROR)

    def refusal(self) -> str:
        """One sentence on the first error: what, where and the fix."""
        finding = self.of_severity(Severity.ERROR)[0]
        where = f"{self.symbol} {self.interval}"
        return f"{where}: {finding.problem}: {finding.count}, first {finding.examples[0]}; {_FIX[finding.problem]}"


def validate(candles: BarSeries | CandleFrame, calendar: Calendar) -> DataReport:
    """Everything that is wrong or remarkable in these rows; nothing is changed and nothing is refused.

    Gaps are counted between neighbouring bars in order of time, after duplicates: on a calendar without sessions every
    missing bar counts, with sessions only silences longer than five days.
    """
    frame = CandleFrame.of(candles) if isinstance(candles, BarSeries) else candles
    ordered = frame.take(np.argsort(frame.open_time, kind="stable"))
    distinct = ordered.take(_first_of_each_time(ordered))
    findings = [*_order_findings(frame, ordered), *_row_findings(distinct, calendar)]
    kept = distinct.take(~_closing_prints(distinct, calendar))
    findings += _spacing_findings(kept, distinct, calendar)
    times = distinct.open_time
    return DataReport(
        symbol=frame.symbol,
        interval=frame.interval,
        calendar=calendar,
        rows=len(frame),
        first_open=int(times[0]) if len(times) else None,
        last_open=int(times[-1]) if len(times) else None,
        missing_bars=int(_missing_after(kept.open_time, frame.interval, calendar).sum()),
        findings=tuple(findings),
    )


def require_sound(series: BarSeries) -> None:
    """Refuse a series that breaks what ``BarSeries`` promises or holds a bar that cannot be.

    Raises:
        DataError: rows out of order, repeated or inside each other, or any finding that is an error.
    """
    report = validate(series, series.calendar)
    if not report.is_sound:
        raise DataError(report.refusal())
    if any(report.count(problem) for problem in (Problem.UNORDERED, Problem.DUPLICATE, Problem.CLOSING_PRINT)):
        raise DataError(
            f"{series.symbol} {series.interval}: bars are unordered, repeated or inside each other; repair them first"
        )


def repair(frame: CandleFrame, calendar: Calendar, policy: Policy = Policy.REFUSE) -> tuple[BarSeries, DataReport]:
    """A series out of rows of any quality, by this policy:

    - rows are sorted by open time, and of rows that are equal in every column one is kept;
    - empty bars inside the bar before (the closing print that stock feeds add on short days) are dropped;
    - opens or closes outside [low, high] are refused, or with ``Policy.REPAIR`` high and low are widened;
    - refused always: different rows of one open time, prices that are not positive numbers, volumes that are negative or
      not numbers, open times off the grid of a market that never closes, and bars that overlap;
    - gaps are reported and never filled.

    Returns:
        The series, and the report on the rows as they came with what was changed.

    Raises:
        DataError: something is refused.
    """
    report = validate(frame, calendar)
    mendable = {Problem.OHLC} if policy is Policy.REPAIR else set()
    refused = tuple(f for f in report.of_severity(Severity.ERROR) if f.problem not in mendable)
    if refused:
        raise DataError(_with(report, findings=refused).refusal())
    ordered = frame.take(np.argsort(frame.open_time, kind="stable"))
    clean = ordered.take(_first_of_each_time(ordered))
    clean = clean.take(~_closing_prints(clean, calendar))
    high = np.maximum.reduce([clean.open, clean.high, clean.low, clean.close])
    low = np.minimum.reduce([clean.open, clean.high, clean.low, clean.close])
    series = BarSeries(
        clean.symbol, clean.interval, calendar, clean.open_time, clean.open, high, low, clean.close, clean.volume
    )
    return series, _with(report, repaired=tuple(_changes(report)))


def _with(
    report: DataReport, *, findings: tuple[Finding, ...] | None = None, repaired: tuple[str, ...] = ()
) -> DataReport:
    return DataReport(
        report.symbol,
        report.interval,
        report.calendar,
        report.rows,
        report.first_open,
        report.last_open,
        report.missing_bars,
        report.findings if findings is None else findings,
        repaired,
    )


def _changes(report: DataReport) -> Iterator[str]:
    if report.count(Problem.UNORDERED):
        yield "rows sorted"
    if count := report.count(Problem.DUPLICATE):
        yield f"duplicate rows dropped: {count}"
    if count := report.count(Problem.CLOSING_PRINT):
        yield f"empty bars inside the bar before dropped: {count}"
    if count := report.count(Problem.OHLC):
        yield f"bars whose high or low was widened: {count}"


def _first_of_each_time(ordered: CandleFrame) -> BoolArray:
    first = np.ones(len(ordered), dtype=np.bool_)
    first[1:] = np.diff(ordered.open_time) != 0
    return first


def _too_close(frame: CandleFrame, calendar: Calendar) -> BoolArray:
    """Bars that open before the bar before them can have closed; on a grid without sessions there are none."""
    close = np.zeros(len(frame), dtype=np.bool_)
    if calendar is Calendar.SESSIONS:
        close[1:] = np.diff(frame.open_time) < least_spacing(frame.interval, calendar)
    return close


def _closing_prints(frame: CandleFrame, calendar: Calendar) -> BoolArray:
    return np.asarray(_too_close(frame, calendar) & (frame.volume == 0))


def _missing_after(times: IntArray, interval: str, calendar: Calendar) -> IntArray:
    """Bars missing between each bar and the next, ``[n - 1]``."""
    if calendar is Calendar.SESSIONS or len(times) < 2:
        return np.zeros(max(0, len(times) - 1), dtype=np.int64)
    missing: IntArray = np.maximum(np.diff(grid_position(times, interval)) - 1, 0)
    return missing


def _finding(problem: Problem, rows: BoolArray, frame: CandleFrame, columns: tuple[str, ...]) -> Iterator[Finding]:
    """A finding on the marked rows, with the named columns in its examples; nothing where no row is marked."""
    where = np.flatnonzero(rows)
    if len(where):
        examples = (_describe(frame, int(row), columns) for row in where[:EXAMPLES])
        yield Finding(problem, _SEVERITY.get(problem, Severity.ERROR), len(where), tuple(examples))


def _describe(frame: CandleFrame, row: int, columns: tuple[str, ...]) -> str:
    values = ", ".join(f"{name} {getattr(frame, name)[row]:.10g}" for name in columns)
    return f"at {format_time(int(frame.open_time[row]))}" + (f" ({values})" if values else "")


def _order_findings(frame: CandleFrame, ordered: CandleFrame) -> Iterator[Finding]:
    backwards = np.zeros(len(frame), dtype=np.bool_)
    backwards[1:] = np.diff(frame.open_time) < 0
    yield from _finding(Problem.UNORDERED, backwards, frame, ())
    repeated = ~_first_of_each_time(ordered)
    if not repeated.any():
        return
    differs = np.zeros(len(ordered), dtype=np.bool_)
    for name in COLUMNS:
        column = getattr(ordered, name)
        same = (column[1:] == column[:-1]) | (np.isnan(column[1:]) & np.isnan(column[:-1]))
        differs[1:] |= ~same
    yield from _finding(Problem.DUPLICATE, repeated & ~differs, ordered, ())
    conflicts = np.flatnonzero(repeated & differs)
    if len(conflicts):
        examples = (
            f"{_describe(ordered, int(row), ())} (closes {ordered.close[row - 1]:.10g} and {ordered.close[row]:.10g})"
            for row in conflicts[:EXAMPLES]
        )
        yield Finding(Problem.CONFLICT, Severity.ERROR, len(conflicts), tuple(examples))


def _row_findings(frame: CandleFrame, calendar: Calendar) -> Iterator[Finding]:
    prices = np.stack([frame.open, frame.high, frame.low, frame.close])
    good_price = np.all(np.isfinite(prices) & (prices > 0), axis=0)
    yield from _finding(Problem.PRICE, ~good_price, frame, COLUMNS[:4])
    good_volume = np.isfinite(frame.volume) & (frame.volume >= 0)
    yield from _finding(Problem.VOLUME, ~good_volume, frame, ("volume",))
    outside = (prices > frame.high).any(axis=0) | (prices < frame.low).any(axis=0)
    yield from _finding(Problem.OHLC, outside & good_price, frame, COLUMNS[:4])
    is_session = calendar is Calendar.SESSIONS
    astray = frame.open_time % MINUTE_MS != 0 if is_session else ~on_grid(frame.open_time, frame.interval)
    yield from _finding(Problem.OFF_GRID, astray, frame, ())
    yield from _finding(Problem.ZERO_VOLUME, frame.volume == 0, frame, ())


def _spacing_findings(kept: CandleFrame, distinct: CandleFrame, calendar: Calendar) -> Iterator[Finding]:
    yield from _finding(Problem.CLOSING_PRINT, _closing_prints(distinct, calendar), distinct, ())
    yield from _finding(Problem.OVERLAP, _too_close(kept, calendar), kept, ())
    times = kept.open_time
    if calendar is Calendar.CONTINUOUS:
        missing = _missing_after(times, kept.interval, calendar)
        gaps = np.flatnonzero(missing)
        words = [f"{missing[row]} missing" for row in gaps[:EXAMPLES]]
    else:
        spacing = np.diff(times)
        gaps = np.flatnonzero(spacing > max(SESSION_GAP_MS, 2 * interval_ms(kept.interval)))
        words = [f"{spacing[row] / DAY_MS:.1f} days without a bar" for row in gaps[:EXAMPLES]]
    if len(gaps):
        examples = (
            f"after {format_time(int(times[row]))} ({text})" for row, text in zip(gaps[:EXAMPLES], words, strict=True)
        )
        yield Finding(Problem.GAP, Severity.WARNING, len(gaps), tuple(examples))
