"""The one verdict on a run: the one that it got when it ended, else the same tests on what the journal has of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec
import numpy as np

from backtest.report.recollection import Recollection
from backtest.significance.assessment import Account, Evidence, assess
from backtest.significance.certificate import LeakCertificate, MaturityAudit, PrefixInvariance
from backtest.significance.ledger import Ledger, Trial, settings_digest, trials_with
from backtest.significance.maturity import audit_youngest
from backtest.significance.positions import positions_of
from backtest.significance.recording import youngest_neighbours
from backtest.significance.sharpe import daily_sharpe
from bot.assembly import home_named
from bot.config import Config
from bot.journal import Journal, StoredRun
from bot.journal.probes import ProbeRecord
from bot.journal.records import TRADING
from bot.orders import Execution
from strategies.bars import BarSeries, FloatArray, IntArray, interval_ms
from strategies.memory_transformer.catalogue import list_models

STRESSES_SKIPPED: Final = "other costs and a bar's delay, which recall backtest looks at"
MEMORY_SKIPPED: Final = "what the memory is worth, which recall backtest --verdict full looks at"


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whether a result can be told from luck, and whether it knew the future."""

    significance: Mapping[str, Any]
    """``SignificanceReport.to_json``."""
    certificate: LeakCertificate

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {"significance": dict(self.significance), "certificate": self.certificate.to_json()}


def stored_judgement(document: Mapping[str, Any]) -> Judgement | None:
    """The judgement in a summary that a run or a walk wrote when it ended, if there is one."""
    significance, certificate = document.get("significance"), document.get("certificate")
    if significance is None or certificate is None:
        return None
    return Judgement(significance, msgspec.convert(certificate, LeakCertificate))


def with_probe(judgement: Judgement, probe: ProbeRecord | None) -> Judgement:
    """The same with what ``recall probe`` found of these settings, where the run itself was not probed."""
    if judgement.certificate.prefix is not None or probe is None:
        return judgement
    prefix = PrefixInvariance(probe.cuts, probe.leaks, probe.first_change, probe.sha256)
    return replace(judgement, certificate=replace(judgement.certificate, prefix=prefix))


def judge_journalled(
    journal: Journal,
    run: StoredRun,
    settings: Config,
    config: Config,
    account: Account,
    hold: FloatArray | None,
    executions: list[Execution],
    candles: dict[str, BarSeries],
    recollection: Recollection | None,
) -> Judgement:
    """Judge a run that was not judged when it ended: a paper run, or a replay with ``--verdict none``.

    Args:
        journal: where it is.
        run: the run.
        settings: of the run.
        config: says where candles, models and the ledger are now.
        account: its equity, as much of it as the journal keeps.
        hold: equity of holding the same symbols at the same closes, where their candles are there.
        executions: all fills.
        candles: of the run's span, by symbol.
        recollection: what its memory said, where it has one.
    """
    record, skipped = run.record, [STRESSES_SKIPPED]
    if recollection is not None:
        skipped.append(MEMORY_SKIPPED)
    exposure, returns = None, None
    if _is_whole(account.close_times, candles) and len(candles) == len(record.symbols):
        exposure, returns = positions_of(
            account.close_times, account.equity, executions, candles, tuple(record.symbols)
        )
    else:
        skipped.append("when it trades, as the journal has only the extremes of every day")
    daily, start = account.daily, int(account.close_times[0]) - interval_ms(record.interval)
    trial = Trial(
        run.started_at,
        str(record.kind),
        record.strategy,
        record.symbols,
        record.interval,
        start,
        int(account.close_times[-1]),
        settings_digest(settings, record.model_id),
        daily_sharpe(daily),
        len(daily),
        record.run_id,
    )
    ledger = Ledger(config.storage.data_dir)
    trials = trials_with(ledger.related(trial), trial)
    baselines = {} if hold is None else {"hold": hold}
    remembers = recollection is not None
    report = assess(
        Evidence(account, baselines, exposure, returns, trials=trials, skipped=tuple(skipped), has_memory=remembers)
    )
    learned = {
        each.model_id: each.training_span for each in list_models(home_named(config, record.candles).models)
    }.get(record.model_id)
    return Judgement(
        report.to_json(),
        LeakCertificate(
            prefix=None,
            maturity=None if recollection is None else _maturity(journal, run, settings, config, candles, recollection),
            memory_p_value=None,
            deflated_sharpe=report.deflated_sharpe,
            trials=report.trials,
            ledger_sha256=ledger.head(),
            train_span=learned,
            test_span=(start, int(account.close_times[-1])),
            has_memory=remembers,
        ),
    )


def _is_whole(times: IntArray, candles: Mapping[str, BarSeries]) -> bool:
    """Whether there is an equity for every close: the journal keeps only some of a long replay."""
    closes = np.unique(np.concatenate([np.empty(0, np.int64), *(each.close_time for each in candles.values())]))
    return bool(len(times) and np.array_equal(times, closes[(closes >= times[0]) & (closes <= times[-1])]))


def _maturity(
    journal: Journal,
    run: StoredRun,
    settings: Config,
    config: Config,
    candles: Mapping[str, BarSeries],
    recollection: Recollection,
) -> MaturityAudit | None:
    """From the decisions in the journal; ``None`` where not all are, or not all the bars that the run was warmed from."""
    record = run.record
    if record.kind not in TRADING or record.source or len(candles) < len(record.symbols):
        return None
    store = home_named(config, record.candles).candles
    history = {
        symbol: store.load(symbol, record.interval, start=span.first_open_time, end=span.end_time)
        for symbol, span in record.warm.items()
        if span.bars
    }
    if any(len(history[symbol]) != record.warm[symbol].bars for symbol in history):
        return None
    decisions = [decision for _, decision in journal.read_decisions(record.run_id)]
    asked = [(decision.close_time, youngest_neighbours(decision.signal)) for decision in decisions]
    return audit_youngest(
        [each for each in asked if each[1]],
        recollection.outlooks.horizon_bars,
        settings.memory.embargo * interval_ms(record.interval),
        history,
        candles,
    )
