"""One window: train, encode anew, warm, trade. Alone in a process, and from its arguments alone, so that windows can be
computed in any order, on any machine, and again after a crash, with the same numbers."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import msgspec
import numpy as np

from backtest.replay import ReplayResult, replay
from backtest.report.exposure import exposure_of
from backtest.significance.certificate import MaturityAudit
from backtest.significance.maturity import audit_maturity
from backtest.significance.recording import RecordingStrategy
from backtest.significance.shuffling import shuffle_memory
from backtest.significance.stress import closed, slippage_of, stress_runs
from backtest.walk_forward.windows import Window
from bot.assembly import Home, needs_model
from bot.config import Config
from bot.errors import UsageError
from bot.lifecycle.training import model_config, training_config
from bot.portfolio import ClosedTrade
from bot.session import open_session
from strategies.bars import BarSeries, Calendar, FloatArray

Progress = Callable[[str, float], None]
"""Told what is done, and what share of it, in [0, 1]."""


class Arm(StrEnum):
    """What a strategy is tried with."""

    PLAIN = "plain"
    """As it is: with its memory, where it has one."""
    WITHOUT = "without memory"
    """The same net trained and traded with nothing to remember."""
    SHUFFLED = "shuffled outcomes"
    """The same model, with a memory that tells what followed other moments."""


@dataclass(frozen=True, slots=True)
class WindowJob:
    """Everything that a window depends on."""

    config: Config
    symbols: tuple[str, ...]
    interval: str
    calendars: dict[str, Calendar]
    window: Window
    arm: Arm
    home: Home
    """Where the candles are."""
    folder: Path
    """Where models and results go."""
    threads: int = 1

    @property
    def file(self) -> Path:
        """Where the result goes: it is there whole, or not at all."""
        return self.folder / f"{self.window.number:03}-{self.arm.replace(' ', '-')}.msgpack"


class WindowResult(msgspec.Struct, frozen=True):
    """What came of a window. Every window begins flat and with the same cash; its positions are closed at its end."""

    number: int
    arm: Arm
    model_id: str
    train_span: tuple[int, int] | None
    """Of the bars that the model was given, milliseconds."""
    close_times: list[int]
    """``[n]``."""
    equity: list[float]
    """``[n]`` quote units."""
    exposure: list[list[float]]
    """``[n][symbols]`` signed value of the position as a fraction of equity."""
    returns: list[list[float]]
    """``[n][symbols]`` simple return of the bar that follows; 0 after the last."""
    hold: list[float]
    """``[n]`` equity of holding all symbols in equal parts from the window's first open, without costs."""
    stresses: dict[str, list[float]]
    """``[n]`` equity under other assumptions; see ``stress_runs``."""
    trades: list[ClosedTrade]
    fees_paid: float
    funding_paid: float
    slippage_paid: float
    turnover: float
    maturity: tuple[int, int, int | None, int | None, int | None, int] | None
    """The fields of ``MaturityAudit``."""
    decisions_sha256: str
    trades_sha256: str
    bars: int

    @property
    def audit(self) -> MaturityAudit | None:
        """When the outcomes that were used were known."""
        return None if self.maturity is None else MaturityAudit(*self.maturity)


def run_window(job: WindowJob, *, progress: Progress | None = None) -> WindowResult:
    """The result of a window, computed or, where it is there already, read.

    Raises:
        UsageError: there are too few candles.
    """
    stored = read_result(job.file)
    if stored is not None:
        return stored
    result = _compute(job, progress or (lambda _what, _share: None))
    _write(job.file, msgspec.msgpack.encode(result))
    return result


def read_result(file: Path) -> WindowResult | None:
    """A result that was written before; ``None`` where there is none, or none of this version."""
    try:
        return msgspec.msgpack.decode(file.read_bytes(), type=WindowResult)
    except (OSError, msgspec.MsgspecError):
        return None


def _compute(job: WindowJob, progress: Progress) -> WindowResult:
    config, window = settings_of(job), job.window
    if needs_model(config):
        config = config.changed({"model": {"id": _model(job, config, progress)}}, "the walk")
    models = Home(job.folder, "")
    session = open_session(
        config, job.home, job.symbols, job.interval, job.calendars, window.start, models=models.models
    )
    upcoming = {
        name: job.home.candles.load(name, job.interval, start=window.start, end=window.end) for name in job.symbols
    }
    upcoming = {name: series for name, series in upcoming.items() if len(series)}
    if not upcoming:
        raise UsageError(
            f"there are no stored candles of {', '.join(job.symbols)} in {window.name}; see recall data list"
        )
    if job.arm is Arm.SHUFFLED:
        shuffle_memory(session.strategy, seed=config.training.seed)
    recording = RecordingStrategy(session.strategy)
    session.strategy = recording
    session.warm()
    trades: list[ClosedTrade] = []
    engine = session.engine(f"window-{window.number:03}", trades)
    total = sum(len(series) for series in upcoming.values())
    result = replay(engine, upcoming, trades=trades, progress=lambda done: progress("trading", done / total))
    cases: dict[str, FloatArray] = {}
    if job.arm is Arm.PLAIN:
        cases = stress_runs(recording.tape, engine.account, session.instruments, upcoming, closes=True)
    exposure, returns = _held(result, upcoming, job.symbols)
    audit = audit_maturity(recording, session.history, upcoming)
    span = recording.learned_until
    return WindowResult(
        window.number,
        job.arm,
        session.model_id,
        None if span is None else (window.train_start, span),
        result.close_times.tolist(),
        closed(result.equity, engine).tolist(),
        exposure.tolist(),
        returns.tolist(),
        _hold(result, upcoming, float(config.account.initial_cash)).tolist(),
        {name: equity.tolist() for name, equity in cases.items()},
        trades,
        float(engine.portfolio.fees_paid),
        float(engine.portfolio.funding_paid),
        slippage_of(result.executions, config.costs.slippage),
        float(engine.portfolio.turnover),
        None
        if audit is None
        else (
            audit.decisions,
            audit.violations,
            audit.latest_settlement,
            audit.decided_at,
            audit.smallest_margin_ms,
            audit.embargo_ms,
        ),
        result.decisions_sha256,
        result.trades_sha256,
        result.bars,
    )


def settings_of(job: WindowJob) -> Config:
    """The settings of an arm."""
    if job.arm is Arm.WITHOUT:
        return job.config.changed({"memory": {"enabled": False}}, "the walk")
    return job.config


def _model(job: WindowJob, config: Config, progress: Progress) -> str:
    """Id of the window's model: trained now, or before by another arm or by a walk that was interrupted."""
    # Imported here because torch takes seconds to load.
    from strategies.memory_transformer.bundle import save_bundle
    from strategies.memory_transformer.training import TrainingProgress, train

    window = job.window
    kind = "without" if job.arm is Arm.WITHOUT else "with"
    name = job.folder / f"{window.number:03}-{kind}.model"
    if name.is_file():
        return name.read_text(encoding="utf-8")
    series = {
        symbol: job.home.candles.load(symbol, job.interval, start=window.train_start, end=window.train_end)
        for symbol in job.symbols
    }
    enough = {symbol: bars for symbol, bars in series.items() if len(bars)}
    if not enough:
        raise UsageError(f"there are no stored candles to learn from before {window.name}; choose a later --start")

    def tell(at: TrainingProgress) -> None:
        progress("training", ((at.epoch - 1) * at.steps + at.step) / (at.epochs * at.steps))

    trained = train(
        enough,
        model_config(config),
        training_config(config, threads=job.threads),
        progress=tell,
        checkpoints=job.folder / f".training-{window.number:03}-{kind}",
    )
    model_id = save_bundle(job.folder / "models", trained)
    _write(name, model_id.encode())
    return model_id


def _held(
    result: ReplayResult, upcoming: Mapping[str, BarSeries], symbols: tuple[str, ...]
) -> tuple[FloatArray, FloatArray]:
    """Exposure to every symbol at every close, and the symbol's return until the next close, ``[n, symbols]`` both."""
    times = result.close_times
    exposure, returns = np.zeros((len(times), len(symbols))), np.zeros((len(times), len(symbols)))
    for column, symbol in enumerate(symbols):
        series = upcoming.get(symbol)
        if series is None:
            continue
        own = exposure_of(result.executions, {symbol: series}, times, result.equity)
        place = np.searchsorted(times, own.times)
        exposure[place, column] = own.net
        at = np.searchsorted(series.close_time, times, side="right")
        marks = np.concatenate(([series.open[0]], series.close))[at]
        returns[:-1, column] = marks[1:] / marks[:-1] - 1.0
    return np.nan_to_num(exposure), returns


def _hold(result: ReplayResult, upcoming: Mapping[str, BarSeries], cash: float) -> FloatArray:
    from backtest.report.returns import hold_equally

    times, held = hold_equally(dict(upcoming), cash)
    assert np.array_equal(times, result.close_times), "held and traded bars are not the same"
    return held


def _write(file: Path, content: bytes) -> None:
    """Make a file appear whole."""
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}-")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).replace(file)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
