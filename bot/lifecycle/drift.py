"""The drift alarm: forecasts have become worse than they were when the model was new.

A CUSUM chart (Page, "Continuous inspection schemes", Biometrika 41, 1954) of the losses of forecasts, each taken in when its
outcome is known, so that it knows nothing that the run does not. Losses are averaged over stretches of time as long as
outcomes and the embargo reach, because those of overlapping forecasts are no evidence of their own. The first stretches
after a model took over say what is usual: their median and median absolute deviation, which one crash does not move.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, median
from typing import TYPE_CHECKING, Final

from strategies.bars import Bar, interval_ms
from strategies.base import Signal

if TYPE_CHECKING:
    from strategies.memory_transformer.config import ModelConfig

REFERENCE_STRETCHES: Final = 20
_SLACK: Final = 0.5
"""In standard deviations: the chart is quickest to see a rise of twice that."""
_MOST: Final = 3.0
"""In standard deviations: no stretch alone sets the alarm off, because one crash is no drift."""
_DEVIATION: Final = 1.4826
"""Standard deviation of a normal distribution in units of its median absolute deviation."""


class DriftAlarm:
    """A pure function of the decisions it is shown: a run that is taken up again shows it the recorded ones.

    Args:
        config: of the model.
        interval: of the bars.
        cost: see ``MaturingForecasts``.
        threshold: evidence that sets it off, in standard deviations of a stretch's mean loss.
    """

    def __init__(self, config: ModelConfig, interval: str, *, cost: float, threshold: float) -> None:
        # Imported here because it loads torch.
        from strategies.memory_transformer.forecast_loss import MaturingForecasts

        self._forecasts = MaturingForecasts(config, cost=cost)
        self._length = (config.primary_horizon + config.embargo) * interval_ms(interval)
        self._threshold = threshold
        self._stretch: int | None = None
        self._losses: list[float] = []
        self._reference: list[float] = []
        self._evidence = 0.0

    @property
    def evidence(self) -> float:
        """How far the chart has risen; the threshold sets the alarm off."""
        return self._evidence

    def observe(self, bars: Sequence[Bar], signals: Sequence[Signal]) -> bool:
        """Take in a batch and what was decided on it; returns whether it sets the alarm off, which starts it anew."""
        stretch = bars[0].close_time // self._length
        is_over = self._stretch is not None and stretch > self._stretch
        went_off = self._close_stretch() if is_over else False
        self._stretch = stretch if self._stretch is None else max(stretch, self._stretch)
        for bar, signal in zip(bars, signals, strict=True):
            loss = self._forecasts.observe(bar, signal)
            if loss is not None:
                self._losses.append(loss)
        return went_off

    def _close_stretch(self) -> bool:
        if not self._losses:
            return False
        mean = fmean(self._losses)
        self._losses.clear()
        if len(self._reference) < REFERENCE_STRETCHES:
            self._reference.append(mean)
            return False
        usual = median(self._reference)
        spread = _DEVIATION * median([abs(each - usual) for each in self._reference])
        if spread == 0.0:
            return False
        self._evidence = max(0.0, self._evidence + min((mean - usual) / spread, _MOST) - _SLACK)
        if self._evidence <= self._threshold:
            return False
        self._evidence = 0.0
        return True
