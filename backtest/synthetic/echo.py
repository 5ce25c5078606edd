"""Cross-symbol echo: one market does what another did a few bars ago.

The leader has planted motifs; the follower repeats the leader's bars some bars later, with noise of its own. So what
followed the leader's earlier motifs tells what will follow the follower's: the legal gain of a memory that is shared by
symbols. The leader's *last* motif would tell far more, because its consequence is the one that is asked for. But it is not
known yet when the follower asks, and a memory that counts symbols instead of time gives it away.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from backtest.synthetic.candles import Floats, series_of
from backtest.synthetic.motifs import Integers, MotifSettings, MotifTask, motif_task
from strategies.bars import BarSeries


@dataclass(frozen=True, slots=True, eq=False)
class EchoTask:
    """Two series and what the follower can know."""

    leader: MotifTask
    follower: BarSeries
    bar: Integers
    """``[n]`` position of the last bar of every motif in the follower."""
    outcome: Floats
    """``[n]`` the follower's log return over the horizon after it."""
    best: Floats
    """``[n]`` the best forecast from what the leader's earlier motifs were followed by."""
    leak: Floats
    """``[n]`` what the leader's same motif is followed by: nobody may know it when the follower asks."""


def echo_task(
    seed: int, settings: MotifSettings | None = None, *, delay: int = 3, noise: float = 0.5, symbol: str = "ECHOUSDT"
) -> EchoTask:
    """A leader with motifs and a follower that echoes it. The same seed gives the same bars.

    Args:
        seed: of everything.
        settings: of the leader's motifs.
        delay: bars until the echo; fewer than the horizon.
        noise: the follower's own volatility in units of the leader's.
        symbol: the follower's name.

    Raises:
        ValueError: the delay leaves nothing to give away.
    """
    settings = settings or MotifSettings()
    if not 0 < delay < settings.horizon:
        raise ValueError(f"delay is {delay}; it must be above 0 and below the horizon {settings.horizon}")
    leader = motif_task(seed, settings)
    generator = np.random.default_rng((seed, delay))
    moves = np.diff(np.log(leader.series.close), prepend=np.log(leader.series.open[0]))
    own = noise * settings.volatility * generator.standard_normal(len(moves))
    echoed = own + np.concatenate((np.zeros(delay), moves[:-delay]))
    events = leader.events
    inside = events.bar + delay + settings.horizon < len(moves)
    bar = events.bar[inside] + delay
    sums = np.concatenate(([0.0], np.cumsum(echoed)))
    return EchoTask(
        leader,
        series_of(symbol, echoed, generator),
        bar,
        sums[bar + 1 + settings.horizon] - sums[bar + 1],
        events.best[inside],
        events.outcome[inside],
    )
