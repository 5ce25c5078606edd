"""Batches of training: stretches of consecutive blocks, drawn so that an epoch shows every sample once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from strategies.memory_transformer.dataset import Flags, Integers, SymbolBlocks
from strategies.memory_transformer.span_memory import block_starts


@dataclass(frozen=True, slots=True, eq=False)
class Segments:
    """Some stretches of blocks, each preceded by the blocks that its states depend on."""

    features: npt.NDArray[np.float32]
    """``[segments, context + length, block, n_features]``."""
    starts: Integers
    """``[segments, context + length]`` first real row counted from the start of each block."""
    sampled: Flags
    """``[segments, context + length, block]`` which rows are samples; none of the context is."""
    rows: Integers
    """``[samples]`` their rows in the moments table, in the order of ``sampled``."""


def draw_segments(
    blocks: Sequence[SymbolBlocks],
    is_sample: Flags,
    *,
    length: int,
    context: int,
    per_step: int,
    generator: np.random.Generator,
) -> list[Segments]:
    """The batches of one epoch in random order; together they hold every sample once.

    Args:
        blocks: of every symbol.
        is_sample: ``[n]`` which moments are samples.
        length: blocks of a segment.
        context: blocks shown before each, without samples.
        per_step: segments of a batch.
        generator: draws where the cuts between segments lie, and their order.
    """
    places: list[tuple[int, int]] = []
    for symbol, cut in enumerate(blocks):
        first = -int(generator.integers(length))
        for start in range(first, len(cut.rows), length):
            rows = cut.rows[max(start, 0) : start + length]
            if is_sample[rows[rows >= 0]].any():
                places.append((symbol, start))
    order = generator.permutation(len(places))
    shuffled = [places[number] for number in order.tolist()]
    return [
        _join([_segment(blocks[symbol], is_sample, start, length, context) for symbol, start in batch])
        for batch in (shuffled[step : step + per_step] for step in range(0, len(shuffled), per_step))
    ]


def _segment(blocks: SymbolBlocks, is_sample: Flags, start: int, length: int, context: int) -> Segments:
    """One segment; blocks outside the series are blank."""
    numbers = np.arange(start - context, start + length)
    inside = (numbers >= 0) & (numbers < len(blocks.rows))
    features = np.zeros((len(numbers), *blocks.features.shape[1:]), dtype=np.float32)
    features[inside] = blocks.features[numbers[inside]]
    rows = np.full((len(numbers), blocks.rows.shape[1]), -1, dtype=np.int64)
    rows[inside] = blocks.rows[numbers[inside]]
    rows[:context] = -1
    sampled = (rows >= 0) & is_sample[rows]
    starts = block_starts(blocks, numbers)
    starts[0] = max(starts[0], 0)  # what came before the first block is not shown
    return Segments(features[None], starts[None], sampled[None], rows[sampled])


def _join(parts: Sequence[Segments]) -> Segments:
    return Segments(
        np.concatenate([part.features for part in parts]),
        np.concatenate([part.starts for part in parts]),
        np.concatenate([part.sampled for part in parts]),
        np.concatenate([part.rows for part in parts]),
    )
