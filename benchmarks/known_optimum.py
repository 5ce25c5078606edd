"""Synthetic tasks whose best possible forecast is known: what a memory makes of them without any network.

The memory is the product's bank, fed bar by bar; the read-out is fitted to the training span alone (``backtest/synthetic/
recollection.py``), but for returning regimes, whose neighbours' outcomes are the forecast as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from backtest.synthetic.candles import Floats
from backtest.synthetic.echo import echo_task
from backtest.synthetic.motifs import Integers, MotifSettings, MotifTask, motif_task
from backtest.synthetic.optimum import best_profit, decoy_filter, normal_mixture_crps
from backtest.synthetic.recollection import (
    RecallSettings,
    Recollections,
    SignReadout,
    fit_readout,
    recollect,
)
from backtest.synthetic.regimes import RegimeSettings, RegimeTask, regime_task
from benchmarks.harness import Measurement, benchmark
from strategies.bars import BarSeries
from strategies.memory_transformer.shrinkage import crps

SEEDS: Final = 3
FEWEST: Final = 2
"""Matured occurrences of a pattern from which on its forecasts are judged."""
COST: Final = 0.5
"""Of a round trip, as a share of a motif's drift."""
_RECENT: Final = 2_000
"""Bars of the sliding window that forgets."""
_AFTER: Final = 500
"""Bars after the return of a regime that are judged."""
_REGIME_NEIGHBOURS: Final = 256
_SPANS: Final = (20, 120)
"""Bars over which a key of the regimes' market tells volatility."""


def settings(**changes: float) -> MotifSettings:
    """Motifs long enough to be told apart, as many in the training span as after it."""
    return MotifSettings(
        bars=60_000,
        training_bars=30_000,
        training_motifs=75,
        test_motifs=75,
        length=12,
        **changes,  # type: ignore[arg-type]
    )


class Answers(NamedTuple):
    """What the memory forecast at the motifs of a task."""

    task: MotifTask
    readout: SignReadout
    recalled: Recollections
    forecast: Floats
    """``[n]`` log returns."""


def ask_motifs(task: MotifTask) -> Answers:
    """Ask the memory at every motif, with a read-out fitted to those of the training span."""
    events = task.events
    recalled = recollect({task.series.symbol: task.series}, task.series.symbol, events.bar, recall_settings(task))
    readout = fit_readout(recalled.of(events.in_training), events.outcome[events.in_training])
    return Answers(task, readout, recalled, readout.forecast(recalled))


def recall_settings(task: MotifTask) -> RecallSettings:
    """Keys as long as a motif, in units of the training span's usual return."""
    moves = np.diff(np.log(task.series.close[: task.settings.training_bars]))
    unit = 1.4826 * float(np.median(np.abs(moves)))  # the standard deviation of normal returns
    return RecallSettings(task.settings.length, task.settings.horizon, unit)


def r2(outcome: Floats, forecast: Floats) -> float:
    """Share of the squared outcomes that a forecast explains."""
    return 1.0 - float(np.square(outcome - forecast).sum() / np.square(outcome).sum())


def judged(task: MotifTask) -> npt.NDArray[np.bool_]:
    """Which motifs are judged, ``[n]`` bool: of the test span, remembered often enough."""
    events = task.events
    chosen: npt.NDArray[np.bool_] = ~events.in_training & (events.matured >= FEWEST)
    return chosen


@benchmark("drift_over_filter", "drift_undecayed_over_filter", seed=0)
def drift(seed: int) -> Mapping[str, Measurement]:
    """Motifs whose sign flips now and then, against the exact filter."""
    found = np.array([drift_shares(motif_task(seed + number, settings(flip_hazard=0.05))) for number in range(SEEDS)])
    note = f"{_note()}; a motif's sign flips with a hazard of 0.05 per occurrence; share of the R² of the exact filter"
    return {
        "drift_over_filter": _measured(found[:, 0], "R² / R²", note),
        "drift_undecayed_over_filter": _measured(found[:, 1], "R² / R²", f"{note}, by the same memory without decay"),
    }


def drift_shares(task: MotifTask) -> tuple[float, float]:
    """R² over the filter's, with decay and without."""
    answers, rows = ask_motifs(task), judged(task)
    outcome, best = task.events.outcome[rows], task.events.best[rows]
    undecayed = answers.readout.without_decay().forecast(answers.recalled)
    return r2(outcome, answers.forecast[rows]) / r2(outcome, best), r2(outcome, undecayed[rows]) / r2(outcome, best)


@benchmark("decoys_r2_over_bayes", seed=0)
def decoys(seed: int) -> Mapping[str, Measurement]:
    """Motifs half of which mean nothing, each like one that does."""
    found = [decoy_share(motif_task(seed + number, settings(decoys=0.5, jitter=0.05))) for number in range(SEEDS)]
    note = (
        f"{_note()}; half of the motifs mean nothing and differ from one that does in the last two bars only; share of the "
        "R² of Bayes' rule for rise, fall and nothing"
    )
    return {"decoys_r2_over_bayes": _measured(np.array(found), "R² / R²", note)}


def decoy_share(task: MotifTask) -> float:
    """R² over that of one who knows the motifs and the law, but not which of them mean nothing."""
    answers, rows, events = ask_motifs(task), judged(task), task.events
    best = np.zeros(len(events.bar))
    for motif in np.unique(events.motif).tolist():
        places = events.motif == motif
        best[places] = decoy_filter(
            events.outcome[places], task.settings.drift, task.settings.noise, task.settings.decoys
        )
    return r2(events.outcome[rows], answers.forecast[rows]) / r2(events.outcome[rows], best[rows])


@benchmark("novelty_loss", "novelty_loss_unguarded", "novelty_r2_over_bayes", seed=0)
def novelty(seed: int) -> Mapping[str, Measurement]:
    """Motifs that resemble older ones and mean the opposite."""
    tasks = [motif_task(seed + number, settings(hostile_motifs=75, resemblance=0.9)) for number in range(SEEDS)]
    found = np.array([novelty_losses(task) for task in tasks])
    note = f"{_note()}; hostile motifs correlate by 0.9 with older ones and mean the opposite; first sights"
    return {
        "novelty_loss": _measured(
            found[:, 0],
            "drift",
            f"{note}, loss of following the forecast by its size; abstaining, the optimum, loses 0",
        ),
        "novelty_loss_unguarded": _measured(
            found[:, 1], "drift", f"{note}, loss of following the nearest memory however far it is"
        ),
        "novelty_r2_over_bayes": _measured(
            found[:, 2], "R² / R²", f"{_note()}; hostile motifs once seen twice, share of the R² of Bayes' rule"
        ),
    }


def novelty_losses(task: MotifTask) -> tuple[float, float, float]:
    """Mean losses at first sights of hostile motifs in units of the drift, guarded and not, and the share of R² later on."""
    answers, events = ask_motifs(task), task.events
    first = events.hostile & (events.matured == 0)
    lean, drift = events.outcome[first], task.settings.drift
    guarded = -float((answers.forecast[first] / drift * lean).mean()) / drift
    # The nearest neighbour stands in the column of the smallest distance; it is believed as if it were the very same.
    nearest = answers.recalled.distance[first].argmin(axis=1)
    said = np.sign(np.take_along_axis(answers.recalled.outcome[first], nearest[:, None], axis=1)[:, 0])
    unguarded = -float((said * lean).mean()) / drift
    later = events.hostile & (events.matured >= FEWEST)
    share = r2(events.outcome[later], answers.forecast[later]) / r2(events.outcome[later], events.best[later])
    return guarded, unguarded, share


@benchmark("echo_r2_over_bayes", "echo_r2_alone_over_bayes", seed=0)
def echo(seed: int) -> Mapping[str, Measurement]:
    """A market that repeats what another did three bars ago."""
    found = np.array([echo_shares(seed + number) for number in range(SEEDS)])
    note = f"{_note()}; the follower repeats the leader three bars later with noise of its own; share of the R² of Bayes' rule"
    return {
        "echo_r2_over_bayes": _measured(found[:, 0], "R² / R²", f"{note}, one memory for both"),
        "echo_r2_alone_over_bayes": _measured(found[:, 1], "R² / R²", f"{note}, a memory of the follower alone"),
    }


def echo_shares(seed: int, motifs: MotifSettings | None = None) -> tuple[float, float]:
    """The follower's R² over the best from the leader's earlier motifs: with a shared memory, and with its own alone."""
    task = echo_task(seed, motifs or settings())
    known = recall_settings(task.leader)
    in_training = task.bar + known.horizon < task.leader.settings.training_bars
    rows = ~in_training & (task.leader.events.matured[: len(task.bar)] >= FEWEST)
    both = {task.leader.series.symbol: task.leader.series, task.follower.symbol: task.follower}
    shares = []
    for series in (both, {task.follower.symbol: task.follower}):
        recalled = recollect(series, task.follower.symbol, task.bar, known)
        readout = fit_readout(recalled.of(in_training), task.outcome[in_training])
        forecast = readout.forecast(recalled)[rows]
        shares.append(r2(task.outcome[rows], forecast) / r2(task.outcome[rows], task.best[rows]))
    return shares[0], shares[1]


@benchmark("costed_profit_over_optimum", seed=0)
def costed(seed: int) -> Mapping[str, Measurement]:
    """Trading motifs where every trade costs."""
    found = [profit_share(motif_task(seed + number, settings())) for number in range(SEEDS)]
    note = (
        f"{_note()}; a trade costs {COST} of the drift and is made where the forecast is larger; expected profit over the "
        "closed form of the best policy"
    )
    return {"costed_profit_over_optimum": _measured(np.array(found), "profit / profit", note)}


def profit_share(task: MotifTask) -> float:
    """Expected profit of trading the forecasts, over the optimum for as many occurrences.

    The noise of the outcomes is left out of the profit, because it averages out: a motif's own lean pays.
    """
    answers, rows, events = ask_motifs(task), judged(task), task.events
    drift, noise = task.settings.drift, task.settings.noise
    forecast = answers.forecast[rows]
    trades = np.sign(forecast) * (np.abs(forecast) > COST * drift)
    profit = trades * events.lean[rows] - np.abs(trades) * COST * drift
    optimum = [best_profit(int(matured), drift, noise, COST * drift) for matured in events.matured[rows].tolist()]
    return float(profit.sum() / np.sum(optimum))


@benchmark("regime_crps_over_filter", "regime_crps_forgotten_over_filter", "regime_crps_window_over_filter", seed=0)
def regime(seed: int) -> Mapping[str, Measurement]:
    """A regime that comes back after 50,000 bars."""
    law = RegimeSettings()
    found = np.array(
        [regime_shares(regime_task(seed + number, law.absent_until + _AFTER + 2, law), law) for number in range(SEEDS)]
    )
    note = (
        f"mean of {SEEDS} seeds; CRPS of the next return over that of the forward filter with the true law, {_AFTER} bars "
        f"after a regime returns that was away for {law.absent_until - law.absent_from:,}; the filter is 1"
    )
    return {
        "regime_crps_over_filter": _measured(
            found[:, 0], "CRPS / CRPS", f"{note}; {_REGIME_NEIGHBOURS} neighbours by volatility, as they are"
        ),
        "regime_crps_forgotten_over_filter": _measured(
            found[:, 1], "CRPS / CRPS", f"{note}; the same with a memory too small to reach back"
        ),
        "regime_crps_window_over_filter": _measured(
            found[:, 2], "CRPS / CRPS", f"{note}; the returns of the last {_RECENT:,} bars"
        ),
    }


def regime_shares(task: RegimeTask, law: RegimeSettings) -> tuple[float, float, float]:
    """CRPS after the return over the filter's: of a memory, of one that has forgotten, and of a sliding window."""
    returned = law.absent_until
    asked = np.arange(returned, min(returned + _AFTER, len(task.returns) - 1))
    came = task.returns[asked + 1]
    means, deviations = np.array(law.means), np.array(law.volatilities)
    change = 1.0 / law.dwell
    transition = np.full((len(means), len(means)), change / (len(means) - 1))
    np.fill_diagonal(transition, 1.0 - change)
    best = normal_mixture_crps(means, deviations, task.filtered[asked] @ transition, came).mean()
    keys = volatility_keys(task.returns, known=law.absent_from)
    shares = []
    for capacity in (len(task.returns), returned - law.absent_from - _SPANS[-1]):
        recalled = _nearest(task.series, keys, asked, capacity)
        weights = np.isfinite(recalled.distance) / np.isfinite(recalled.distance).sum(axis=1, keepdims=True)
        shares.append(float(crps(recalled.outcome, weights, came).mean() / best))
    recent = np.lib.stride_tricks.sliding_window_view(task.returns, _RECENT)[asked - _RECENT + 1]
    window = crps(recent, np.full(recent.shape, 1.0 / _RECENT), came).mean()
    return shares[0], shares[1], float(window / best)


def volatility_keys(returns: Floats, *, known: int) -> Floats:
    """``[n, 2]`` logarithms of trailing volatilities, in standard deviations of the first ``known`` bars."""
    keys = np.zeros((len(returns), len(_SPANS)))
    for column, span in enumerate(_SPANS):
        windows = np.lib.stride_tricks.sliding_window_view(returns**2, span)
        keys[span - 1 :, column] = 0.5 * np.log(windows.mean(axis=1))
    fitted = keys[_SPANS[-1] : known]
    scaled: Floats = (keys - fitted.mean(axis=0)) / fitted.std(axis=0)
    return scaled


def _nearest(series: BarSeries, keys: Floats, asked: Integers, capacity: int) -> Recollections:
    known = RecallSettings(_SPANS[-1], 1, 1.0, neighbours=_REGIME_NEIGHBOURS, capacity=capacity)
    return recollect({series.symbol: series}, series.symbol, asked, known, keys={series.symbol: keys})


def _note() -> str:
    one = settings()
    return (
        f"mean of {SEEDS} seeds; {one.test_motifs} motifs of {one.length} bars drawn after the training span, memory of all "
        f"bars with a read-out fitted to the training span, no network; occurrences with {FEWEST} or more matured ones before"
    )


def _measured(values: Floats, unit: str, note: str) -> Measurement:
    each = ", ".join(f"{value:.3f}" for value in values.tolist())
    return Measurement(float(values.mean()), unit, f"{note}; seeds {each}")
