"""A needle in a haystack: one moment worth remembering among very many, asked for long after.

Keys are random directions. At random times a *needle* is written whose outcome is far larger than the hay's; later a cue, a
disturbed copy of its key, asks for it. A memory must find every needle that it still holds. First in, first out holds
those younger than its capacity, and nothing else; by importance it may hold all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from backtest.synthetic.candles import Floats

Keys = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class NeedleTask:
    """A stream of moments and the cues that ask for some of them."""

    keys: Keys
    """``[n, d]`` of length one, in the order of writing."""
    outcomes: Floats
    """``[n]``; the needles' are ten times the hay's and carry their payload in the sign and size."""
    needles: Integers
    """``[m]`` positions of the needles."""
    cues: Keys
    """``[m, d]`` what asks for each needle, of length one."""
    asked_after: Integers
    """``[m]`` moments written between a needle and its cue."""


def needle_task(
    seed: int, *, moments: int, delays: tuple[int, ...], per_delay: int = 20, dimension: int = 64, cosine: float = 0.75
) -> NeedleTask:
    """Hide needles so that each can be asked for after its delay. The same seed gives the same stream.

    Args:
        seed: of everything.
        moments: written in all.
        delays: moments between a needle and its cue; each below ``moments - per_delay``.
        per_delay: needles of every delay.
        dimension: of the keys.
        cosine: between a needle and its cue. Among ``N`` random directions the best cosine is about
            ``sqrt(2 ln N / d)``, 0.62 for 262,144 of dimension 64, so 0.75 is found for certain.

    Raises:
        ValueError: a delay does not fit.
    """
    for delay in delays:
        if not 0 < delay < moments - per_delay * len(delays):
            raise ValueError(
                f"delay {delay} does not fit into {moments} moments with {per_delay} needles of each delay"
            )
    generator = np.random.default_rng(seed)
    keys = _directions(generator.standard_normal((moments, dimension)))
    outcomes = 0.01 * generator.standard_normal(moments)
    asked_after = np.repeat(np.array(delays, dtype=np.int64), per_delay)
    needles = np.empty(len(asked_after), dtype=np.int64)
    free = np.ones(moments, dtype=np.bool_)
    for place, delay in enumerate(asked_after.tolist()):
        needles[place] = generator.choice(np.flatnonzero(free[: moments - delay]))
        free[needles[place]] = False
    outcomes[needles] = 0.1 * generator.choice((-1.0, 1.0), size=len(needles)) * generator.integers(1, 5, len(needles))
    chosen = keys[needles].astype(np.float64)
    noise = generator.standard_normal(chosen.shape)
    noise -= (noise * chosen).sum(axis=1, keepdims=True) * chosen
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    cues = _directions(cosine * chosen + np.sqrt(1.0 - cosine**2) * noise)
    return NeedleTask(keys, outcomes, needles, cues, asked_after)


def _directions(rows: Floats) -> Keys:
    directions: Keys = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return directions
