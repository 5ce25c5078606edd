"""The strength of the whitening, chosen by what it is for: that alike keys are followed by alike outcomes.

Every candidate makes keys of the same states, the keys choose neighbours for bars of the validation part under the rule
that trading obeys, and what followed the neighbours is taken as a forecast of what will follow the bar. No weight of the
model has a part in that, so no candidate needs a training of its own.

Keys are whitened states here, without the metric that the model learns on top of them: it has learned for one candidate only.

The forecast is the plain distribution of the neighbours' outcomes, all alike: with a softmax over cosines the candidates
would differ in how many neighbours they listen to, which a learned temperature sets right later, and not only in whom
they choose. It is scored as a distribution, because a memory of markets says little about the mean of what comes next,
and at every horizon up to the primary one, because short ones have more to tell apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np

from strategies.bars import interval_ms
from strategies.memory_transformer.config import ModelConfig
from strategies.memory_transformer.dataset import Dataset, Flags, Floats, Integers
from strategies.memory_transformer.span_memory import Rows, find_neighbours, visibility_rule, whitened
from strategies.memory_transformer.whitening import Whitening, anisotropy, directions
from strategies.stretches import FEWEST_STRETCHES, standard_error

SHRINKAGES: Final = (0.01, 0.1, 0.3, 1.0)
"""Candidates, from nearly full whitening to centring alone."""
QUERIES: Final = 2000
"""Validation bars that ask, at most: outcomes overlap, so that more of them tell little more."""


class ShrinkageSource(StrEnum):
    """Where a shrinkage comes from."""

    GIVEN = "given"
    """It was asked for."""
    VALIDATION = "validation"
    """The candidates were compared."""
    DEFAULT = "default"
    """The validation part is missing or too short to compare them."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One shrinkage on the validation part."""

    shrinkage: float
    skill: float
    """1 - CRPS / CRPS of all training outcomes as the forecast, mean over horizons: 0 knows nothing, 1 everything."""
    behind: float
    """How much more skill the best candidate has."""
    standard_error: float
    """Of ``behind``, over stretches of time that do not overlap."""
    anisotropy: float
    """Mean cosine of pairs of keys."""
    directions: float
    """Effective number of directions that the keys are spread over; the fewer, the faster a pruned search."""


@dataclass(frozen=True, slots=True)
class ShrinkageChoice:
    """A shrinkage and why it is that."""

    shrinkage: float
    source: ShrinkageSource
    queries: int
    """Validation bars that asked."""
    candidates: tuple[Candidate, ...]
    """Empty where nothing was compared."""


def choose_shrinkage(hidden: Rows, dataset: Dataset, config: ModelConfig, *, seed: int) -> ShrinkageChoice:
    """The largest candidate that is not worse than the best by more than one standard error.

    "One standard error" is the rule of Breiman, Friedman, Olshen and Stone, "Classification and Regression Trees",
    1984, section 3.4.3: of models that cannot be told apart take the simplest. Weak whitening estimates least, and its
    keys lie along few directions, which makes exact search many times cheaper.

    It depends on states, outcomes and times of the training and validation parts and on nothing after them: a
    validation bar has an outcome within the span, and its neighbours are older.

    Args:
        hidden: ``[n, d_model]`` states of all moments.
        dataset: the span.
        config: ``shrinkage`` stays where the validation part does not allow a comparison.
        seed: draws the bars that ask.
    """
    queries, candidates = compare_shrinkages(hidden, dataset, config, SHRINKAGES, seed=seed)
    if not candidates:
        return ShrinkageChoice(config.shrinkage, ShrinkageSource.DEFAULT, 0, ())
    chosen = max(each.shrinkage for each in candidates if each.behind <= each.standard_error)
    return ShrinkageChoice(chosen, ShrinkageSource.VALIDATION, queries, candidates)


def compare_shrinkages(
    hidden: Rows, dataset: Dataset, config: ModelConfig, shrinkages: Sequence[float], *, seed: int
) -> tuple[int, tuple[Candidate, ...]]:
    """Candidates on the validation part, in the order given, and how many of its bars asked.

    Nothing where the validation part is missing, finds no neighbours, or is shorter than ``FEWEST_STRETCHES``.
    """
    queries = _queries(dataset.validation, seed)
    found = _losses(hidden, dataset, config, shrinkages, queries)
    if found is None:
        return 0, ()
    losses, asked, shapes = found
    stretches = _stretches(dataset, config, asked)
    if stretches[-1] + 1 < FEWEST_STRETCHES:
        return 0, ()
    means = losses.mean(axis=1)
    best = int(np.argmin(means))
    return len(asked), tuple(
        Candidate(
            shrinkage,
            skill=float(1.0 - mean),
            behind=float(mean - means[best]),
            standard_error=standard_error(loss - losses[best], stretches),
            anisotropy=crowding,
            directions=count,
        )
        for shrinkage, mean, loss, (crowding, count) in zip(shrinkages, means, losses, shapes, strict=True)
    )


def crps(values: Floats, weights: Floats, outcome: Floats) -> Floats:
    """Continuous ranked probability score of weighted samples as a forecast, ``[n]``; smaller is better.

    ``E|X - y| - E|X - X'| / 2`` (Gneiting and Raftery, "Strictly proper scoring rules, prediction, and estimation",
    2007, equation 21).

    Args:
        values: ``[n, k]`` samples.
        weights: ``[n, k]`` not negative, rows summing to 1.
        outcome: ``[n]`` what came.
    """
    order = np.argsort(values, axis=1, kind="stable")
    values, weights = np.take_along_axis(values, order, axis=1), np.take_along_axis(weights, order, axis=1)
    error = (weights * np.abs(values - outcome[:, None])).sum(axis=1)
    middles = np.cumsum(weights, axis=1) - 0.5 * weights
    score: Floats = error - (weights * values * (2.0 * middles - 1.0)).sum(axis=1)
    return score


def _queries(validation: Integers, seed: int) -> Integers:
    """Some of the validation rows, increasing; drawn, because every n-th might be bars of one symbol only."""
    if len(validation) <= QUERIES:
        return validation
    return np.sort(np.random.default_rng(seed).choice(validation, QUERIES, replace=False))


def _losses(
    hidden: Rows, dataset: Dataset, config: ModelConfig, shrinkages: Sequence[float], queries: Integers
) -> tuple[Floats, Integers, list[tuple[float, float]]] | None:
    """Relative losses ``[candidates, m]``, the ``m`` rows that asked, and the shapes of the keys.

    ``None`` where no row finds a neighbour.
    """
    rule = visibility_rule(dataset, config)
    losses, shapes = [], []
    asked = queries
    for shrinkage in shrinkages:
        whitening = Whitening(config.d_model)
        whitening.fit(hidden[dataset.train], shrinkage)
        keys = whitened(whitening, hidden)
        table = find_neighbours(keys, dataset, queries, rule, config)
        # Whether a row finds any does not depend on the keys.
        answered = table.mask.any(axis=1)
        if not answered.any():
            return None
        asked = queries[answered]
        losses.append(_relative_loss(dataset, config.primary, asked, table.rows[answered], table.mask[answered]))
        fitted = keys[dataset.train]
        shapes.append((anisotropy(fitted), directions(fitted)))
    return np.stack(losses), asked, shapes


def _relative_loss(dataset: Dataset, primary: int, asked: Integers, rows: Integers, mask: Flags) -> Floats:
    """Loss of what followed the neighbours ``[m, k]`` as a forecast, in units of that of knowing nothing, ``[m]``.

    The mean over the horizons up to the primary one; whoever is visible has an outcome at all of them.
    """
    moments = dataset.moments
    weights = mask / mask.sum(axis=1, keepdims=True)
    total = np.zeros(len(asked))
    for horizon in range(primary + 1):
        values = np.where(mask, moments.outcomes[rows, horizon], 0.0)
        came = moments.outcomes[asked, horizon]
        total += crps(values, weights, came) / _ignorant_loss(moments.outcomes[dataset.train, horizon], came)
    return total / (primary + 1)


def _ignorant_loss(known: Floats, outcome: Floats) -> float:
    """Mean loss of the forecast that all known outcomes ``[m]`` are, for outcomes ``[n]``."""
    values = np.sort(known)
    count = len(values)
    below = np.searchsorted(values, outcome)
    sums = np.concatenate(([0.0], np.cumsum(values)))
    error = (outcome * (2 * below - count) + sums[-1] - 2.0 * sums[below]) / count
    spread = (values * (2 * np.arange(count) + 1 - count)).sum() / count**2
    return float(error.mean() - spread)


def _stretches(dataset: Dataset, config: ModelConfig, rows: Integers) -> Integers:
    """Number of the stretch of time that each row lies in, as long as outcomes and the embargo reach."""
    length = (config.primary_horizon + config.embargo) * interval_ms(dataset.interval)
    close_time = dataset.moments.close_time[rows]
    # Stretches without a row get no number.
    numbers: Integers = np.unique((close_time - close_time[0]) // length, return_inverse=True)[1]
    return numbers
