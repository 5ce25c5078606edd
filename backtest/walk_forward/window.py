"""One window: train, encode anew, warm, trade. Alone in a process, and from its arguments alone, so that windows can be
computed in any order, on any machine, and again after a crash, with the same numbers."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Final

import msgspec

from backtest.probe import probe_strategy
from backtest.replay import replay
from backtest.significance.certificate import MaturityAudit, PrefixInvariance
from backtest.significance.maturity import audit_maturity
from backtest.significance.positions import hold_curve, positions_of
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
from strategies.bars import Calendar, FloatArray

PROBE_CUTS: Final = 1
"""Of every window; each takes as long as filling its memory."""
PROBE_BARS: Final = 500
FEWEST_PROBED: Final = 4
"""Closes below which there is nothing to cut."""

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
    """Where results go."""
    threads: int = 1
    probes: bool = False
    """Whether the window is probed for lookahead."""

    @property
    def root(self) -> Path:
        """Folder of all walks, with the models that they trained."""
        return self.folder.parent

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
    outlooks: bytes = b""
    """What the memory expected at every decision, see ``Outlooks.to_bytes``; empty without a memory."""
    prefix: PrefixInvariance | None = None
    """Where it was probed for lookahead."""

    @property
    def audit(self) -> MaturityAudit | None:
        """When the outcomes that were used were known."""
        return None if self.maturity is None else MaturityAudit(*self.maturity)


def run_window(job: WindowJob, *, progress: Progress | None = None) -> WindowResult:
    """The result of a window, computed or, where it is there already, read.

    Raises:
        UsageError: there are too few candles.
    """
    tell = progress or (lambda _what, _share: None)
    stored = read_result(job.file)
    if stored is not None and (stored.prefix is not None or not job.probes):
        return stored
    result = _compute(job, tell) if stored is None else stored
    if job.probes:
        tell("probing", 1.0)
        result = msgspec.structs.replace(result, prefix=_probe(job, result))
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
    session = open_session(
        config, job.home, job.symbols, job.interval, job.calendars, window.start, models=job.root / "models"
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
        cases = stress_runs(
            recording.tape,
            engine.account,
            lambda strategy, account: session.engine("stress", [], strategy=strategy, account=account),
            upcoming,
            closes=True,
        )
    exposure, returns = positions_of(result.close_times, result.equity, result.executions, upcoming, job.symbols)
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
        hold_curve(result, upcoming, float(config.account.initial_cash)).tolist(),
        {name: equity.tolist() for name, equity in cases.items()},
        trades,
        float(engine.portfolio.fees_paid),
        float(engine.portfolio.funding_paid),
        slippage_of(result.executions, upcoming, engine.account.costs),
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
        b"" if result.outlooks is None else result.outlooks.to_bytes(),
    )


def _probe(job: WindowJob, result: WindowResult) -> PrefixInvariance | None:
    """The window's first bars with another future; ``None`` where there are too few."""
    config, window = settings_of(job), job.window
    if result.model_id:
        config = config.changed({"model": {"id": result.model_id}}, "the walk")
    if len(result.close_times) < FEWEST_PROBED:
        return None
    return PrefixInvariance.of(
        probe_strategy(
            config,
            job.home,
            job.symbols,
            job.interval,
            job.calendars,
            window.start,
            window.end,
            cuts=PROBE_CUTS,
            seed=window.number,
            at_most=PROBE_BARS,
            models=job.root / "models",
        )
    )


def settings_of(job: WindowJob) -> Config:
    """The settings of an arm."""
    if job.arm is Arm.WITHOUT:
        return job.config.changed({"memory": {"enabled": False}}, "the walk")
    return job.config


def _model(job: WindowJob, config: Config, progress: Progress) -> str:
    """Id of the window's model: trained now, or before by whoever needed the same one."""
    # Imported here because torch takes seconds to load.
    from strategies.memory_transformer.bundle import save_bundle
    from strategies.memory_transformer.training import TrainingProgress, train

    window = job.window
    series = {
        symbol: job.home.candles.load(symbol, job.interval, start=window.train_start, end=window.train_end)
        for symbol in job.symbols
    }
    enough = {symbol: bars for symbol, bars in series.items() if len(bars)}
    if not enough:
        raise UsageError(f"there are no stored candles to learn from before {window.name}; choose a later --start")
    shape, plan = model_config(config), training_config(config, threads=job.threads)
    content = [shape.as_dict(), asdict(replace(plan, threads=1)), [bars.digest() for bars in enough.values()]]
    key = hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]
    root = job.root / "models"
    root.mkdir(parents=True, exist_ok=True)
    name = root / f"{key}.trained"

    def tell(at: TrainingProgress) -> None:
        progress("training", ((at.epoch - 1) * at.steps + at.step) / (at.epochs * at.steps))

    with (root / f"{key}.lock").open("w") as lock:
        # Trials of a sweep that share a model wait for whoever trains it.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not name.is_file():
            trained = train(enough, shape, plan, progress=tell, checkpoints=root / f".training-{key}")
            _write(name, save_bundle(root, trained).encode())
    return name.read_text(encoding="utf-8")


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
