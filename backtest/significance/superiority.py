"""Whether returns are better than those of a baseline, also where the best of many was chosen.

White, "A reality check for data snooping", 2000 (https://doi.org/10.1111/1468-0262.00152) and Hansen, "A test for superior
predictive ability", 2005 (https://doi.org/10.1198/073500105000000063), by ``arch.bootstrap.SPA`` with a stationary bootstrap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from backtest.significance.sharpe import block_length
from strategies.bars import FloatArray

REPETITIONS: Final = 1000


@dataclass(frozen=True, slots=True)
class Superiority:
    """Probabilities of a lead like the best one's if nobody is better than the baseline."""

    hansen: float
    """The consistent p-value of studentised leads: candidates that are far behind take no part."""
    upper: float
    """That of studentised leads with nobody left out: also of one candidate that is behind it says how far."""
    white: float
    """That of the reality check: leads as they are, nobody left out."""


def superiority(
    candidates: FloatArray, baseline: FloatArray, *, seed: int = 0, repetitions: int = REPETITIONS
) -> Superiority:
    """Test the best of some candidates against a baseline.

    Args:
        candidates: returns, ``[n, k]`` or ``[n]`` for one.
        baseline: returns at the same times, ``[n]``.
        seed: of the bootstrap.
        repetitions: of the bootstrap.
    """
    from arch.bootstrap import SPA

    columns = candidates.reshape(len(baseline), -1)
    lead = columns - baseline[:, None]
    # A candidate that is the baseline has no variance to divide by, and no lead.
    different = columns[:, np.ptp(lead, axis=0) > 0.0]
    if not different.shape[1]:
        return Superiority(1.0, 1.0, 1.0)
    block = block_length((different - baseline[:, None]).mean(axis=1))
    found: list[float] = []
    for studentize, names in ((True, ("consistent", "upper")), (False, ("upper",))):
        test = SPA(
            -baseline,
            -different,
            block_size=block,
            reps=repetitions,
            seed=np.random.default_rng(seed),
            studentize=studentize,
        )
        test.compute()
        found += [float(test.pvalues[name]) for name in names]
    return Superiority(*found)
