"""Calibration while a run goes on: forecasts wait for their outcomes, and every outcome moves what calibrates the next.

For every received bar of a symbol the order is ``settle``, ``calibrate`` where there is a forecast, ``remember``, in the three
calls of a strategy of the same sense. A forecast with a horizon of h is settled by the h-th later received bar, as an entry
of the memory is by ``strategies.recorder``; bars that do not come settle nothing, and outcomes are never guessed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from strategies.outcomes import outcome
from strategies.readout import level_at
from strategies.uncertainty.calibration import Calibration
from strategies.uncertainty.direction import raw_rise_probability
from strategies.uncertainty.platt import Platt, rise_of, score_of, update
from strategies.uncertainty.quantile_tracking import STEP, Offsets, issue, track


class RawForecast(NamedTuple):
    """What a model says of one horizon."""

    quantiles: Sequence[float]
    """Log returns, one per level of the calibration, not decreasing."""
    scale: float
    """Volatility of the log return over the horizon, or another measure of its size; positive."""


class Issued(msgspec.Struct, frozen=True, array_like=True):
    """A forecast that waits for its outcome."""

    levels: tuple[float, ...]
    """As issued, in the order of their probabilities; they may cross."""
    score: float
    """Of the raw direction, see ``score_of``."""


class CalibratedForecast(NamedTuple):
    """Of one horizon."""

    horizon: int
    """Received bars."""
    rise_probability: float
    quantiles: tuple[tuple[float, float], ...]
    """Pairs (probability, log return); they do not cross."""
    issued: Issued

    def quantile(self, probability: float) -> float:
        """The log return at one of the probabilities of the calibration."""
        return level_at(self.quantiles, probability)


class HorizonState(msgspec.Struct, frozen=True, array_like=True):
    """What calibrates one horizon of one symbol."""

    offsets: Offsets
    platt: Platt


class _Moment(msgspec.Struct, frozen=True, array_like=True):
    """A received bar."""

    close: float
    issued: tuple[Issued | None, ...]
    """One per horizon; ``None`` where no forecast was made, or where it is settled."""


class _SymbolState(msgspec.Struct, array_like=True):
    """Of one symbol."""

    horizons: list[HorizonState]
    recent: list[_Moment]
    """The last bars, as many as the longest horizon."""
    settled: bool
    """Whether the newest bar is settled and not yet remembered."""


class OnlineUncertainty:
    """Everything that calibrates the forecasts of one run, a function of its start and of what was shown since.

    A forecast of a bar depends on outcomes that had matured by its close and on nothing later.

    Args:
        calibration: where every symbol starts.
        step: of the quantile trackers, see ``strategies.uncertainty.quantile_tracking``.
    """

    def __init__(self, calibration: Calibration, step: float = STEP) -> None:
        self.calibration = calibration
        self._step = step
        self._spans = tuple([each.horizon for each in calibration.horizons])
        self._symbols: dict[str, _SymbolState] = {}

    def settle(self, symbol: str, close: float) -> None:
        """Let the close of a received bar, positive, settle the forecasts that end with it."""
        state = self._of(symbol)
        assert not state.settled, f"{symbol}: a bar was settled but never remembered"
        state.settled = True
        recent = state.recent
        for place, horizon in enumerate(self._spans):
            if len(recent) < horizon:
                return
            then = recent[-horizon]
            waiting = then.issued[place]
            if waiting is None:
                continue
            came = outcome(then.close, close)
            before = state.horizons[place]
            state.horizons[place] = HorizonState(
                track(before.offsets, self.calibration.probabilities, waiting.levels, came, self._step),
                update(before.platt, waiting.score, rise_of(came), horizon),
            )
            # What is settled need not be kept; a state holds only what waits.
            issued = (*then.issued[:place], None, *then.issued[place + 1 :])
            recent[-horizon] = _Moment(then.close, issued)

    def calibrate(self, symbol: str, forecasts: Sequence[RawForecast]) -> tuple[CalibratedForecast, ...]:
        """The forecasts of the settled bar, one per horizon; nothing changes."""
        state = self._of(symbol)
        assert state.settled, f"{symbol}: a bar was asked about before it was settled"
        probabilities = self.calibration.probabilities
        calibrated = []
        for horizon, forecast, known in zip(self._spans, forecasts, state.horizons, strict=True):
            levels = issue(forecast.quantiles, known.offsets, forecast.scale)
            score = score_of(raw_rise_probability(probabilities, forecast.quantiles))
            pairs = tuple(zip(probabilities, sorted(levels), strict=True))
            calibrated.append(CalibratedForecast(horizon, known.platt.calibrated(score), pairs, Issued(levels, score)))
        return tuple(calibrated)

    def remember(self, symbol: str, close: float, forecasts: Sequence[CalibratedForecast] = ()) -> None:
        """Count the settled bar, and let its forecasts wait for their outcomes.

        Args:
            symbol: of the bar.
            close: of the bar, positive.
            forecasts: of ``calibrate`` for this bar; none where it has none.
        """
        state = self._of(symbol)
        assert state.settled, f"{symbol}: a bar was remembered before it was settled"
        state.settled = False
        issued = tuple([each.issued for each in forecasts]) or (None,) * len(self._spans)
        state.recent.append(_Moment(close, issued))
        del state.recent[: -self._spans[-1]]

    def known(self, symbol: str) -> tuple[HorizonState, ...]:
        """What calibrates the next forecast of a symbol, one per horizon."""
        return tuple(self._of(symbol).horizons)

    def state(self) -> bytes:
        """All that was learned and all that waits, exact."""
        return msgspec.msgpack.encode(self._symbols)

    def restore(self, state: bytes) -> None:
        """Go on from ``state`` of an instance with the same calibration and step.

        Raises:
            msgspec.MsgspecError: it is damaged, or of a calibration of another shape.
        """
        symbols = msgspec.msgpack.decode(state, type=dict[str, _SymbolState])
        levels, spans = len(self.calibration.probabilities), len(self._spans)
        for symbol, each in symbols.items():
            waiting = [issued.levels for moment in each.recent for issued in moment.issued if issued is not None]
            fits = (
                len(each.horizons) == spans
                and all(len(moment.issued) == spans for moment in each.recent)
                and all(len(row) == levels for row in (*waiting, *[known.offsets for known in each.horizons]))
                and len(each.recent) <= self._spans[-1]
            )
            if not fits:
                raise msgspec.ValidationError(f"what {symbol} has learned belongs to another calibration")
        self._symbols = symbols

    def _of(self, symbol: str) -> _SymbolState:
        state = self._symbols.get(symbol)
        if state is None:
            start = [HorizonState(each.offsets, each.platt) for each in self.calibration.horizons]
            state = self._symbols[symbol] = _SymbolState(start, [], False)
        return state
