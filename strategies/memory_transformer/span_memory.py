"""The memory of a whole training span under the current weights: states, keys, neighbours.

One pass encodes every bar, one bulk search finds the neighbours of every bar that asks. Entries are encoded anew whenever
this is built, so a span never holds two entries of one bar, nor keys of two encoders.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from memory_store.policy import Scope
from strategies.bars import interval_ms
from strategies.memory_transformer.config import ModelConfig
from strategies.memory_transformer.dataset import Dataset, Flags, Floats, Integers, Moments, SymbolBlocks
from strategies.memory_transformer.encoder import Encoder
from strategies.memory_transformer.memory_read import Retrieved, describe
from strategies.memory_transformer.retrieval import Lifetimes, NeighbourTable, VisibilityRule, causal_neighbours
from strategies.memory_transformer.targets import units
from strategies.memory_transformer.whitening import Whitening, anisotropy

_BLOCKS_AT_ONCE: Final = 16

Rows = npt.NDArray[np.float32]


def block_starts(blocks: SymbolBlocks, numbers: Integers) -> Integers:
    """First real row of the series counted from the start of each of these blocks."""
    starts: Integers = blocks.offset - numbers * blocks.rows.shape[1]
    return starts


def encode_blocks(encoder: Encoder, blocks: SymbolBlocks) -> tuple[Rows, Rows]:
    """States, and keys under the whitening as it is, ``[blocks, block, d_model]`` each.

    Several blocks at once: faster than the streaming kernel, and the same up to rounding.
    """
    state = encoder.initial_state()
    hidden, keys = [], []
    with torch.inference_mode():
        bias = encoder.attention_bias()
        for start in range(0, len(blocks.features), _BLOCKS_AT_ONCE):
            features = torch.from_numpy(blocks.features[start : start + _BLOCKS_AT_ONCE]).unsqueeze(0)
            numbers = np.arange(start, start + features.shape[1])
            blank = encoder.blank_mask(torch.from_numpy(block_starts(blocks, numbers)).unsqueeze(0))
            encoding = encoder(features, state, bias=bias, blank=blank)
            state = encoding.state
            hidden.append(encoding.hidden[0].numpy())
            keys.append(encoding.keys[0].numpy())
    return np.concatenate(hidden), np.concatenate(keys)


def encode_span(encoder: Encoder, dataset: Dataset) -> Rows:
    """States of all moments, ``[n, d_model]``.

    The encoder is put in evaluation mode, because dropout in a key would be noise.
    """
    encoder.eval()
    hidden = np.zeros((len(dataset.moments), encoder.config.d_model), dtype=np.float32)
    for blocks in dataset.blocks:
        present = blocks.rows >= 0
        hidden[blocks.rows[present]] = encode_blocks(encoder, blocks)[0][present]
    return hidden


def whitened(whitening: Whitening, hidden: Rows) -> Rows:
    """Whitened states ``[n, d_model]`` of length one: keys before the learned metric."""
    with torch.inference_mode():
        rows: Rows = whitening(torch.from_numpy(hidden)).numpy()
    return rows


def keys_of(encoder: Encoder, rows: Rows) -> Rows:
    """Keys of whitened states ``[n, d_model]``."""
    with torch.inference_mode():
        keys: Rows = encoder.key_of(torch.from_numpy(rows)).numpy()
    return keys


def visibility_rule(dataset: Dataset, config: ModelConfig) -> VisibilityRule:
    """When the moments of a span may be retrieved: the rule that trading obeys."""
    return VisibilityRule(config.primary, config.embargo * interval_ms(dataset.interval), config.memory_size)


def find_neighbours(
    keys: Rows, dataset: Dataset, queries: Integers, rule: VisibilityRule, config: ModelConfig
) -> NeighbourTable:
    """Neighbours of rows that ask, increasing, among all moments or those of their own symbol, by ``config.scope``.

    All symbols share one memory: its capacity is counted over all of them, whoever asks.
    """
    moments, k = dataset.moments, config.n_neighbors
    if config.scope is Scope.ALL:
        return causal_neighbours(keys, moments, queries, rule, k)
    shared = rule.lifetimes(moments)
    rows, mask = np.zeros((len(queries), k), dtype=np.int64), np.zeros((len(queries), k), dtype=np.bool_)
    for blocks in dataset.blocks:
        own = blocks.rows[blocks.rows >= 0]
        places = np.flatnonzero(np.isin(queries, own, assume_unique=True))
        found = causal_neighbours(
            keys[own],
            moments.of(own),
            np.searchsorted(own, queries[places]),
            rule,
            k,
            lifetimes=Lifetimes(shared.born[own], shared.gone[own]),
        )
        rows[places], mask[places] = np.where(found.mask, own[found.rows], 0), found.mask
    return NeighbourTable(rows, mask)


@dataclass(frozen=True, slots=True, eq=False)
class SpanMemory:
    """States and keys of all moments of a data set, and the neighbours of those that ask."""

    hidden: Rows
    """``[n, d_model]``."""
    whitened: Rows
    """``[n, d_model]``: what keys are made of by the learned metric."""
    keys: Rows
    """``[n, d_model]``."""
    neighbours: NeighbourTable
    positions: Integers
    """``[n]`` place of every moment in ``neighbours``; -1 for those that do not ask."""
    rule: VisibilityRule
    moments: Moments
    unit: Floats
    """``[n, horizons]`` what every moment lets expect, see :func:`targets.units`."""
    interval_ms: int
    remembered: Floats | None = None
    """See :attr:`Dataset.remembered`."""

    @classmethod
    def build(cls, encoder: Encoder, dataset: Dataset, config: ModelConfig) -> SpanMemory:
        """Encode the span, fit the whitening to its training rows, and find all neighbours."""
        return cls.of_states(encode_span(encoder, dataset), encoder, dataset, config)

    @classmethod
    def of_states(cls, hidden: Rows, encoder: Encoder, dataset: Dataset, config: ModelConfig) -> SpanMemory:
        """As :meth:`build`, from what :func:`encode_span` gave."""
        moments = dataset.moments
        encoder.whitening.fit(hidden[dataset.train], config.shrinkage)
        rows = whitened(encoder.whitening, hidden)
        keys = keys_of(encoder, rows)
        length = interval_ms(dataset.interval)
        rule = visibility_rule(dataset, config)
        asking = np.union1d(dataset.train, dataset.validation)
        positions = np.full(len(moments), -1, dtype=np.int64)
        positions[asking] = np.arange(len(asking))
        neighbours = find_neighbours(keys, dataset, asking, rule, config)
        unit = units(moments.volatility, config)
        return cls(hidden, rows, keys, neighbours, positions, rule, moments, unit, length, dataset.remembered)

    def retrieve(
        self, rows: Integers, *, hide: Flags | None = None, outcomes: Floats | None = None, raw: bool = False
    ) -> Retrieved:
        """What the memory read gets for these moments.

        Args:
            rows: ``[b]`` moments that ask.
            hide: ``[b]`` true where the memory is to look empty.
            outcomes: ``[n, horizons]`` instead of those that it remembers, for controls.
            raw: give whitened states in the place of keys, for one who learns the metric.
        """
        places = self.positions[rows]
        found, mask = self.neighbours.rows[places], self.neighbours.mask[places]
        close_time = self.moments.close_time
        outcomes = self.remembered if outcomes is None else outcomes
        ages = np.maximum(close_time[rows][:, None] - close_time[found], 0) / self.interval_ms
        known = self.rule.usable_outcomes(self.moments, found, close_time[rows], outcomes)
        if hide is not None:
            mask = mask & ~hide[:, None]
        facts = describe(known, ages, self.unit[rows])
        return Retrieved(
            torch.from_numpy((self.whitened if raw else self.keys)[found]),
            torch.from_numpy(facts),
            torch.from_numpy(mask),
        )

    def anisotropies(self) -> tuple[float, float]:
        """Mean cosine of pairs of states, and of pairs of keys: what the whitening changes."""
        present = self.moments.has_key
        states = self.hidden[present]
        lengths = np.linalg.norm(states, axis=1, keepdims=True)
        return anisotropy(states / np.maximum(lengths, 1e-12)), anisotropy(self.keys[present])
