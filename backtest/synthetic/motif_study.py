"""What a model remembers of planted motifs that its training never saw, and how far each piece of it would get.

The weights are frozen before the test span begins. From there on the model only appends: what it says of the second and
later occurrences of a motif can come from its memory alone. Everything goes through the parts that an evaluation of real
candles uses, so the rule of visibility is the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from backtest.evaluation.controls import Recalled, Remembering, controls, recall
from backtest.evaluation.folds import Fold, FoldLength, walk_forward
from backtest.evaluation.model import EncodedPanel, Weights, answer, encode_panel, model_forecast
from backtest.evaluation.panel import Panel, build_panel
from backtest.synthetic.candles import Floats
from backtest.synthetic.motifs import Integers, MotifTask
from backtest.synthetic.optimum import posterior_mean
from strategies.memory_transformer.config import ModelConfig
from strategies.memory_transformer.training import TrainedModel, TrainingConfig, train

FEWEST: Final = 2
"""Matured occurrences from which on a forecast counts."""
_MATCHED_DISTANCE: Final = 0.4
"""Squared distance, in units of the motifs' size, up to which a matched filter takes two windows for one motif: between
twice the jitter's energy and the distance of two shapes drawn at random."""

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class MotifStudy:
    """Forecasts of what followed the motifs of the test span. All arrays but ``bar_gate`` are ``[n]``, log returns."""

    matured: Integers
    """Earlier occurrences of the motif."""
    outcome: Floats
    best: Floats
    """From all earlier occurrences, with the true drift and noise."""
    model: Floats
    without_memory: Floats
    """The same weights, the gate shut."""
    shuffled: Floats
    """The same weights, every remembered outcome that of another moment."""
    learned_key: Floats
    """The best forecast from those earlier occurrences that the learned key found: what a perfect read would make of it."""
    matched_filter: Floats
    """The best forecast from moments whose returns resemble the motif's, by distance: no learning, the shape's length known."""
    mean_read: Floats
    """``n / (n + 1)`` of the mean of all earlier occurrences: the best *linear* read, with a perfect key, at strength 1."""
    found: Floats
    """Share of the earlier occurrences among the neighbours; nan without any."""
    gate: Floats
    since_motif: Integers
    """``[bars]`` bars of the test span: how long ago its motif ended, negative within the motif."""
    bar_matured: Integers
    """``[bars]`` earlier occurrences of that motif."""
    bar_gate: Floats
    """``[bars]`` the gate there."""

    def explained(self, forecast: Floats, among: Flags | None = None) -> float:
        """Share of the squared outcomes that a forecast explains, from ``FEWEST`` occurrences on or ``among`` these."""
        rows = self.matured >= FEWEST if among is None else among
        return 1.0 - float(np.square((self.outcome - forecast)[rows]).sum() / np.square(self.outcome[rows]).sum())

    def correlated(self, forecast: Floats) -> float:
        """Share that the forecast would explain if its size were fitted afterwards, negative where it points the wrong way.

        A forecast from outcomes that belong to others is believed like any other, so its squared error is that of a
        confident guess. Whether it knows anything is told by this one.
        """
        rows = self.matured >= FEWEST
        product = float((self.outcome * forecast)[rows].sum())
        size = float(np.square(self.outcome[rows]).sum() * np.square(forecast[rows]).sum())
        return product * abs(product) / size if size > 0.0 else 0.0

    def noiseless(self, forecast: Floats) -> float:
        """As :meth:`over_bayes`, with the best forecast in place of the outcomes, whose noise is left out.

        The noise has no part that any forecast knows, so that with endless outcomes both are the same.
        """
        rows = self.matured >= FEWEST
        best = self.best[rows]
        return 1.0 - float(np.square(best - forecast[rows]).sum() / np.square(best).sum())

    def over_bayes(self, forecast: Floats) -> float:
        """What a forecast explains in units of what can be known."""
        return self.explained(forecast) / self.explained(self.best)


def train_on_motifs(task: MotifTask, model: ModelConfig, training: TrainingConfig) -> TrainedModel:
    """A model of the training span of a task."""
    bars = task.series.slice(0, task.settings.training_bars)
    return train({task.series.symbol: bars}, model, training)


def study_motifs(task: MotifTask, trained: TrainedModel, *, seed: int = 0) -> MotifStudy:
    """Forecasts of the test span with frozen weights.

    Args:
        task: whose training span the model was trained on.
        trained: the model.
        seed: of the dealing of outcomes.
    """
    config, series, settings = trained.model.config, task.series, task.settings
    bars_by_symbol = {series.symbol: series}
    panel = build_panel(bars_by_symbol, config)
    start = int(series.open_time[settings.training_bars])
    (fold,) = walk_forward(panel, start, int(series.close_time[-1]), FoldLength.ONE)
    encoded = encode_panel(panel, bars_by_symbol, Weights(trained.model, trained.scaler))
    memory = Remembering(
        lambda rows, recalled: answer(panel, encoded, rows, recalled), encoded.keys, config.n_neighbors
    )
    recalled = recall(panel, fold, memory)
    dealt = next(iter(controls(panel, fold, memory, recalled, seed))).recalled
    asked = np.searchsorted(fold.test, _asked(task, fold))
    return _study(task, panel, fold, encoded, recalled, dealt, asked)


def _asked(task: MotifTask, fold: Fold) -> Integers:
    """Bars that end a motif of the test span; a panel of one symbol numbers its rows as the series does."""
    bars = task.events.bar[task.events.bar >= task.settings.training_bars]
    return bars[np.isin(bars, fold.test)]


def _study(
    task: MotifTask,
    panel: Panel,
    fold: Fold,
    encoded: EncodedPanel,
    recalled: Recalled,
    dealt: Recalled,
    asked: Integers,
) -> MotifStudy:
    config, rows = encoded.weights.model.config, fold.test
    unit = panel.moments.volatility[rows]
    forecast = model_forecast(panel, encoded, rows, recalled)
    shut = model_forecast(panel, encoded, rows, recalled, force_gate=0.0)
    other = model_forecast(panel, encoded, rows, dealt)
    said, alone, misled = (each.prediction[:, 0].double().numpy() * unit for each in (forecast, shut, other))
    gate = forecast.gate.double().numpy()
    events, bars = task.events, rows[asked]
    place = np.searchsorted(events.bar, bars)
    motif_at = np.full(len(panel.symbol), -1, dtype=np.int64)
    motif_at[events.bar] = events.motif
    same = (motif_at[recalled.found[asked]] == events.motif[place][:, None]) & recalled.mask[asked]
    remembered = np.where(same, panel.log_return[recalled.found[asked]], 0.0).sum(axis=1)
    matured = events.matured[place]
    with np.errstate(invalid="ignore"):
        found = same.sum(axis=1) / np.where(matured > 0, matured, np.nan)
    nearest = np.minimum(np.searchsorted(events.bar, rows + task.settings.length, side="left") - 1, place[-1])
    inside = nearest >= place[0]
    return MotifStudy(
        matured=matured,
        outcome=events.outcome[place],
        best=events.best[place],
        model=said[asked],
        without_memory=alone[asked],
        shuffled=misled[asked],
        learned_key=_believed(remembered, task),
        matched_filter=_believed(_matched(task, panel, bars, config), task),
        mean_read=np.array([_mean_of_earlier(task, int(each)) for each in place]),
        found=found,
        gate=gate[asked],
        since_motif=(rows - events.bar[nearest])[inside],
        bar_matured=events.matured[nearest][inside],
        bar_gate=gate[inside],
    )


def _believed(totals: Floats, task: MotifTask) -> Floats:
    settings = task.settings
    return np.array([posterior_mean(total, settings.drift, settings.noise) for total in totals.tolist()])


def _mean_of_earlier(task: MotifTask, event: int) -> float:
    events = task.events
    earlier = np.flatnonzero(events.motif[:event] == events.motif[event])
    return float(events.outcome[earlier].sum() / (len(earlier) + 1.0))


def _matched(task: MotifTask, panel: Panel, bars: Integers, config: ModelConfig) -> Floats:
    """Sum of the outcomes of visible moments whose last returns resemble those of every bar ``[n]``."""
    settings = task.settings
    returns = np.diff(np.log(task.series.close), prepend=np.log(task.series.open[0]))
    windows = np.lib.stride_tricks.sliding_window_view(returns, settings.length) / (
        settings.volatility * settings.amplitude
    )
    first = settings.length - 1
    totals = np.empty(len(bars))
    for number, bar in enumerate(bars.tolist()):
        seen = np.flatnonzero(panel.visible_from[:bar] <= panel.moments.close_time[bar])
        seen = seen[(seen >= first) & (seen >= bar - config.memory_size)]
        apart = np.square(windows[seen - first] - windows[bar - first]).sum(axis=1)
        totals[number] = panel.log_return[seen[apart < _MATCHED_DISTANCE]].sum()
    return totals
