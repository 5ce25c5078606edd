"""A walk as one account: windows chained, judged together, and shown one by one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from backtest.metrics import PerformanceMetrics, performance
from backtest.significance.assessment import Account, Evidence, assess
from backtest.significance.certificate import LeakCertificate, MaturityAudit, PrefixInvariance
from backtest.significance.sharpe import Trials, daily_sharpe
from backtest.significance.verdict import SignificanceReport
from backtest.walk_forward.window import Arm, WindowResult
from strategies.bars import Calendar, FloatArray


@dataclass(frozen=True, slots=True)
class WindowRow:
    """One window of one arm."""

    number: int
    start: int
    """First close, milliseconds."""
    end: int
    """Last close."""
    model_id: str
    total_return: float
    sharpe_ratio: float | None
    max_drawdown: float
    trades: int
    hold_return: float
    """Of holding all symbols in equal parts, without costs."""
    decisions_sha256: str
    trades_sha256: str


@dataclass(frozen=True, slots=True)
class ArmSummary:
    """An arm over all windows, as one account that reinvests: costs of a window count by what it had when the window began.
    Round trips count as if every window had begun with the same cash."""

    arm: Arm
    metrics: PerformanceMetrics
    windows: tuple[WindowRow, ...]


@dataclass(frozen=True, slots=True)
class WalkForwardReport:
    """What a walk says."""

    arms: tuple[ArmSummary, ...]
    significance: SignificanceReport
    """Of the plain arm."""
    certificate: LeakCertificate

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "significance": self.significance.to_json(),
            "certificate": self.certificate.to_json(),
            "arms": {
                str(each.arm): {"metrics": each.metrics.to_json(), "windows": [asdict(row) for row in each.windows]}
                for each in self.arms
            },
        }


def summarise(
    results: Sequence[WindowResult],
    *,
    calendar: Calendar,
    initial_cash: float,
    trials: Trials,
    ledger_sha256: str = "",
    skipped: tuple[str, ...] = (),
) -> WalkForwardReport:
    """Put the windows of a walk together.

    Args:
        results: of all windows and arms, the plain arm among them.
        calendar: of all symbols together.
        initial_cash: of every window.
        trials: how many settings were tried, this walk included.
        ledger_sha256: see ``LeakCertificate``.
        skipped: what was not looked at.
    """
    by_arm = {arm: [each for each in results if each.arm is arm] for arm in Arm}
    by_arm = {arm: sorted(found, key=lambda each: each.number) for arm, found in by_arm.items() if found}
    plain = by_arm[Arm.PLAIN]
    account = chain(plain, calendar, initial_cash)
    baselines = {"hold": chained([each.hold for each in plain], initial_cash)}
    if Arm.WITHOUT in by_arm:
        baselines[str(Arm.WITHOUT)] = chain(by_arm[Arm.WITHOUT], calendar, initial_cash).equity
    twins = [chain(by_arm[Arm.SHUFFLED], calendar, initial_cash).equity] if Arm.SHUFFLED in by_arm else []
    significance = assess(
        Evidence(
            account,
            baselines,
            np.concatenate([np.array(each.exposure) for each in plain]),
            np.concatenate([np.array(each.returns) for each in plain]),
            {name: chained([each.stresses[name] for each in plain], initial_cash) for name in plain[0].stresses},
            twins,
            trials,
            skipped,
            any(each.audit is not None for each in plain),
        )
    )
    return WalkForwardReport(
        tuple(_arm(arm, found, calendar, initial_cash) for arm, found in by_arm.items()),
        significance,
        _certificate(plain, significance, ledger_sha256),
    )


def chain(windows: Sequence[WindowResult], calendar: Calendar, initial_cash: float) -> Account:
    """The account that moves from window to window and reinvests."""
    times = np.concatenate([np.array(each.close_times, dtype=np.int64) for each in windows])
    return Account(times, chained([each.equity for each in windows], initial_cash), initial_cash, calendar)


def walk_sharpe(results: Sequence[WindowResult], calendar: Calendar, initial_cash: float) -> tuple[float | None, int]:
    """Sharpe ratio per day of the plain arm, and its days: what the ledger keeps of a walk."""
    plain = sorted((each for each in results if each.arm is Arm.PLAIN), key=lambda each: each.number)
    daily = chain(plain, calendar, initial_cash).daily
    return daily_sharpe(daily), len(daily)


def chained(curves: Sequence[Sequence[float]], initial_cash: float) -> FloatArray:
    """Equity curves that all begin with the same cash, one after the other, each with what the one before left."""
    parts, growth = [], 1.0
    for curve in curves:
        part = growth * np.asarray(curve, dtype=np.float64)
        growth = float(part[-1]) / initial_cash
        parts.append(part)
    return np.concatenate(parts)


def _arm(arm: Arm, windows: Sequence[WindowResult], calendar: Calendar, initial_cash: float) -> ArmSummary:
    account = chain(windows, calendar, initial_cash)
    gross = np.concatenate([np.abs(np.array(each.exposure)).sum(axis=1) for each in windows])
    ends = np.cumprod([each.equity[-1] / initial_cash for each in windows])
    begins = np.concatenate(([1.0], ends[:-1])).tolist()

    def reinvested(amounts: Iterable[float]) -> float:
        return float(sum(begin * amount for begin, amount in zip(begins, amounts, strict=True)))

    metrics = performance(
        account.close_times,
        account.equity,
        [trade for each in windows for trade in each.trades],
        initial_cash=initial_cash,
        calendar=calendar,
        fees_paid=reinvested(each.fees_paid for each in windows),
        funding_paid=reinvested(each.funding_paid for each in windows),
        turnover=reinvested(each.turnover for each in windows),
        slippage_paid=reinvested(each.slippage_paid for each in windows),
        exposure=gross,
        benchmark=chained([each.hold for each in windows], initial_cash),
    )
    return ArmSummary(arm, metrics, tuple(_row(each, calendar, initial_cash) for each in windows))


def _row(window: WindowResult, calendar: Calendar, initial_cash: float) -> WindowRow:
    account = chain([window], calendar, initial_cash)
    figures = performance(
        account.close_times, account.equity, window.trades, initial_cash=initial_cash, calendar=calendar
    )
    return WindowRow(
        window.number,
        window.close_times[0],
        window.close_times[-1],
        window.model_id,
        figures.total_return,
        figures.sharpe_ratio,
        figures.max_drawdown,
        figures.trades,
        window.hold[-1] / initial_cash - 1.0,
        window.decisions_sha256,
        window.trades_sha256,
    )


def _certificate(
    windows: Sequence[WindowResult], significance: SignificanceReport, ledger_sha256: str
) -> LeakCertificate:
    spans = [
        (*each.train_span, each.close_times[0], each.close_times[-1]) for each in windows if each.train_span is not None
    ]
    prefixes = [each.prefix for each in windows if each.prefix is not None]
    return LeakCertificate(
        prefix=PrefixInvariance.of_all(prefixes) if len(prefixes) == len(windows) else None,
        maturity=_all_audits([each.audit for each in windows]),
        memory_p_value=None if significance.memory is None else significance.memory.p_value,
        deflated_sharpe=significance.deflated_sharpe,
        trials=significance.trials,
        ledger_sha256=ledger_sha256,
        train_span=None,
        test_span=(windows[0].close_times[0], windows[-1].close_times[-1]),
        walk=tuple(spans),
        has_memory=any(each.audit is not None for each in windows),
    )


def _all_audits(audits: Sequence[MaturityAudit | None]) -> MaturityAudit | None:
    known = [audit for audit in audits if audit is not None]
    if not known:
        return None
    answered = [audit for audit in known if audit.smallest_margin_ms is not None]
    closest = min(answered, key=lambda audit: audit.smallest_margin_ms or 0, default=known[0])
    return MaturityAudit(
        sum(audit.decisions for audit in known),
        sum(audit.violations for audit in known),
        closest.latest_settlement,
        closest.decided_at,
        closest.smallest_margin_ms,
        closest.embargo_ms,
    )


def arms_of(strategy: str, *, only_plain: bool = False) -> tuple[Arm, ...]:
    """What a strategy can be tried with: a memory can be shuffled, and a model can do without."""
    found: Mapping[str, tuple[Arm, ...]] = {
        "memory_transformer": (Arm.PLAIN, Arm.SHUFFLED, Arm.WITHOUT),
        "similarity": (Arm.PLAIN, Arm.SHUFFLED),
    }
    return (Arm.PLAIN,) if only_plain else found.get(strategy, (Arm.PLAIN,))
