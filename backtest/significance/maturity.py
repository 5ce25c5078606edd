"""When the outcomes that spoke for decisions became known: counted anew from the bars, without asking the memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from backtest.significance.certificate import MaturityAudit
from backtest.significance.recording import RecordingStrategy
from strategies.bars import BarSeries, IntArray


def audit_maturity(
    recording: RecordingStrategy, history: Mapping[str, BarSeries], upcoming: Mapping[str, BarSeries]
) -> MaturityAudit | None:
    """Compare every decision with the settlement of its youngest neighbour; ``None`` for a strategy without a memory.

    An outcome of horizon h is known at the close of the h-th bar of the same symbol after the remembered one, and may be used
    once the embargo is over (``docs/architecture.md``, the law of causality).

    Args:
        recording: after the run.
        history: the bars that it was warmed from, by symbol.
        upcoming: the bars that it decided on.
    """
    if recording.bank is None:
        return None
    config = recording.bank.config
    return audit_youngest(
        recording.tape.youngest, config.horizons[config.primary], config.embargo_ms, history, upcoming
    )


def audit_youngest(
    youngest: Sequence[tuple[int, Mapping[str, int]]],
    horizon: int,
    embargo_ms: int,
    history: Mapping[str, BarSeries],
    upcoming: Mapping[str, BarSeries],
) -> MaturityAudit:
    """The same of decisions whose youngest neighbours are known.

    Args:
        youngest: see ``SignalTape.youngest``.
        horizon: bars after which an outcome is known.
        embargo_ms: that must pass after that.
        history: as above.
        upcoming: as above.
    """
    decided = np.array([time for time, _ in youngest], dtype=np.int64)
    settled = np.full(len(decided), np.iinfo(np.int64).min)
    for symbol in upcoming:
        opens, closes = _bars(history.get(symbol), upcoming[symbol])
        rows = np.array(
            [(row, latest[symbol]) for row, (_, latest) in enumerate(youngest) if symbol in latest],
            dtype=np.int64,
        ).reshape(-1, 2)
        place = np.searchsorted(opens, rows[:, 1]) + horizon
        known = np.append(closes, np.iinfo(np.int64).max)[np.minimum(place, len(closes))]
        np.maximum.at(settled, rows[:, 0], known)
    if not len(decided):
        return MaturityAudit(0, 0, None, None, None, embargo_ms)
    violations = int(np.count_nonzero(settled > decided - embargo_ms))
    worst = int(np.argmin(decided - settled))
    return MaturityAudit(
        len(decided),
        violations,
        int(settled[worst]),
        int(decided[worst]),
        int(decided[worst] - settled[worst]),
        embargo_ms,
    )


def _bars(past: BarSeries | None, upcoming: BarSeries) -> tuple[IntArray, IntArray]:
    """Open and close times of all bars of a symbol, in order."""
    parts = [upcoming] if past is None else [past, upcoming]
    return (
        np.concatenate([part.open_time for part in parts]),
        np.concatenate([part.close_time for part in parts]),
    )
