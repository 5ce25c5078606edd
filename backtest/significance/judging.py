"""The verdict on a replay: everything that it is held against, gathered and judged."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np

from backtest.probe import probe_strategy
from backtest.replay import ReplayResult, replay
from backtest.significance.assessment import Account, Evidence, assess
from backtest.significance.certificate import LeakCertificate, PrefixInvariance
from backtest.significance.ledger import Ledger, Trial, settings_digest, trials_with
from backtest.significance.maturity import audit_maturity
from backtest.significance.positions import hold_curve
from backtest.significance.recording import RecordingStrategy
from backtest.significance.sharpe import Trials, daily_sharpe
from backtest.significance.shuffling import shuffle_memory
from backtest.significance.stress import stress_runs
from backtest.significance.verdict import SignificanceReport
from bot.assembly import account_of
from bot.execution.fills.model import FinerBars
from bot.portfolio import ClosedTrade
from bot.session import Session, open_session
from strategies.bars import BarSeries, FloatArray

MOST_RECORDED: Final = 1_000_000
"""Bars above which a quick verdict does without the stress cases, whose signals would take gigabytes."""
PROBE_CUTS: Final = 3
PROBE_BARS: Final = 500


class Depth(StrEnum):
    """How far a verdict looks."""

    NONE = "none"
    QUICK = "quick"
    """What follows from the run itself and from its signals."""
    FULL = "full"
    """Also twins with a shuffled memory, and a probe for lookahead: each takes about as long as the run."""


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """A replay that is over, and what it was made of."""

    session: Session
    start: int
    """Open of the first bar, milliseconds."""
    recording: RecordingStrategy | None
    """The strategy, where its signals were kept."""
    finer_bars: FinerBars | None
    """See ``Session.engine``."""
    series: Mapping[str, BarSeries]
    result: ReplayResult
    curve: Account
    exposure: FloatArray
    """``[n, symbols]``, as the next; see ``positions_of``."""
    returns: FloatArray


def enter_backtest(run: Run, run_id: str, ledger: Ledger) -> tuple[Trials, str]:
    """Enter a replay into the ledger; how often luck was asked with it, and the ledger's head.

    Raises:
        StorageError: the ledger was changed by other hands.
    """
    session, daily = run.session, run.curve.daily
    trial = Trial(
        time.time_ns() // 1_000_000,
        "backtest",
        session.config.strategy.name,
        session.symbols,
        session.interval,
        run.start,
        int(run.result.close_times[-1]),
        settings_digest(session.config, session.model_id),
        daily_sharpe(daily),
        len(daily),
        run_id,
    )
    head = ledger.enter(trial)
    return trials_with(ledger.related(trial), trial), head


def judge_run(
    run: Run, trials: Trials, head: str, depth: Depth, *, shuffles: int = 1, note: Callable[[str], None] | None = None
) -> tuple[SignificanceReport, LeakCertificate]:
    """Every test that ``depth`` asks for.

    Args:
        run: the replay.
        trials: from the ledger.
        head: of the ledger.
        depth: how far to look.
        shuffles: twins with a shuffled memory, for ``FULL``.
        note: told what is being done.
    """
    tell = note or (lambda _what: None)
    skipped: list[str] = []
    stresses: dict[str, FloatArray] = {}
    if run.recording is not None:
        tell("replaying its signals with other costs, and a bar late")
        session = run.session
        stresses = stress_runs(
            run.recording.tape,
            account_of(session.config),
            lambda strategy, account: session.engine(
                "stress", [], finer_bars=run.finer_bars, strategy=strategy, account=account
            ),
            run.series,
        )
    else:
        skipped.append(f"costs and delay, as there are more than {MOST_RECORDED:,} bars (--verdict full does)")
    twins: list[FloatArray] = []
    prefix = None
    if depth is Depth.FULL:
        if run.session.strategy.bank is not None:
            for seed in range(1, shuffles + 1):
                tell(f"trading with shuffled outcomes, {seed} of {shuffles}")
                twins.append(_twin(run, seed))
        tell("changing the future to see that the past stays")
        prefix = _probe(run)
    else:
        if run.session.strategy.bank is not None:
            skipped.append("what the memory is worth, which takes as long as the run (--verdict full does)")
    tell("testing the result against luck")
    cash = run.curve.initial_cash
    report = assess(
        Evidence(
            run.curve,
            {"hold": hold_curve(run.result, run.series, cash)},
            run.exposure,
            run.returns,
            stresses,
            twins,
            trials,
            tuple(skipped),
            run.session.strategy.bank is not None,
        )
    )
    return report, _certificate(run, report, prefix, head)


def _certificate(run: Run, report: SignificanceReport, prefix: PrefixInvariance | None, head: str) -> LeakCertificate:
    maturity = None
    if run.recording is not None:
        maturity = audit_maturity(run.recording, run.session.history, run.series)
    learned = run.session.strategy.learned_until
    return LeakCertificate(
        prefix=prefix,
        maturity=maturity,
        memory_p_value=None if report.memory is None else report.memory.p_value,
        deflated_sharpe=report.deflated_sharpe,
        trials=report.trials,
        ledger_sha256=head,
        train_span=None if learned is None else (_learned_from(run), learned),
        test_span=(run.start, int(run.result.close_times[-1])),
        has_memory=run.session.strategy.bank is not None,
    )


def _learned_from(run: Run) -> int:
    """Open of the first bar that the model was given, milliseconds."""
    from strategies.memory_transformer.strategy import MemoryTransformerStrategy

    strategy = run.session.strategy
    inner = strategy.inner if isinstance(strategy, RecordingStrategy) else strategy
    return inner.bundle.training_span[0] if isinstance(inner, MemoryTransformerStrategy) else 0


def _twin(run: Run, seed: int) -> FloatArray:
    """Equity of the same run with a memory that tells outcomes of other moments."""
    session = _again(run)
    shuffle_memory(session.strategy, seed)
    session.warm()
    trades: list[ClosedTrade] = []
    return replay(session.engine("shuffled", trades, finer_bars=run.finer_bars), run.series, trades=trades).equity


def _again(run: Run) -> Session:
    session = run.session
    config = session.config
    if session.model_id:
        config = config.changed({"model": {"id": session.model_id}}, "the run")
    return open_session(
        config, session.home, session.symbols, session.interval, session.calendars, run.start, hindsight=True
    )


def _probe(run: Run) -> PrefixInvariance | None:
    if sum(len(series) for series in run.series.values()) < 4 or len(np.unique(run.result.close_times)) < 4:
        return None
    session = run.session
    found = probe_strategy(
        _again(run).config,
        session.home,
        session.symbols,
        session.interval,
        session.calendars,
        run.start,
        int(run.result.close_times[-1]),
        cuts=PROBE_CUTS,
        seed=0,
        at_most=PROBE_BARS,
    )
    return PrefixInvariance.of(found)
