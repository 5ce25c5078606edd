"""The encoder bar by bar and block by block, the same to the last bit.

There is one kernel with one shape: a single block of ``config.block`` bars. Live, the block that is under way is computed
again at every bar with its future rows blank; in replay and warm-up every block is computed once, full. A row of a matrix
product does not depend on the other rows, and what the attention masks gets exactly zero weight, so both give a bar the
same numbers. All of it runs on one thread (see :mod:`strategies.memory_transformer.threads`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from strategies.memory_transformer.config import ModelConfig
from strategies.memory_transformer.encoder import Encoder, EncoderState
from strategies.memory_transformer.threads import one_thread

FloatRows = npt.NDArray[np.float32]


class EncodedBar(NamedTuple):
    """State and key of one bar, each ``[d_model]``."""

    hidden: FloatRows
    key: FloatRows


class EncodedSeries(NamedTuple):
    """States and keys of consecutive bars, each ``[n, d_model]``."""

    hidden: FloatRows
    keys: FloatRows


class BlockKernel:
    """The one function from a block of features to states and keys; serves all symbols of a model.

    The encoder must be in evaluation mode and its weights must not change afterwards.
    """

    def __init__(self, encoder: Encoder) -> None:
        if encoder.training:
            raise ValueError("the encoder is in training mode, where dropout makes keys random; call eval() first")
        self.config: ModelConfig = encoder.config
        self._encoder = encoder
        with torch.inference_mode(), one_thread():
            self._bias: Tensor = encoder.attention_bias()

    def initial_state(self) -> EncoderState:
        """The state before the first bar of a series."""
        with torch.inference_mode():
            return self._encoder.initial_state()

    def __call__(self, features: FloatRows, start: int, state: EncoderState) -> tuple[EncodedSeries, EncoderState]:
        """Encode one block.

        Args:
            features: ``[block, n_features]``, scaled; rows not yet known are zeros.
            start: first real row of the series counted from the start of this block; negative once it lies behind.
            state: of the block before.

        Returns:
            States and keys of all rows, and the state of this block, which is of use only if all rows were known.
        """
        with torch.inference_mode(), one_thread():
            # The clone keeps the caller's buffer out of the returned state.
            rows = torch.from_numpy(features).clone().view(1, 1, *features.shape)
            blank = self._encoder.blank_mask(torch.tensor([[start]])) if start > -self.config.block else None
            encoding = self._encoder(rows, state, bias=self._bias, blank=blank)
            return EncodedSeries(encoding.hidden[0, 0].numpy(), encoding.keys[0, 0].numpy()), encoding.state


class _Block(NamedTuple):
    """A block computed ahead of time."""

    features: FloatRows
    known: int
    encoded: EncodedSeries
    state: EncoderState


class StreamingEncoder:
    """The encoder of one symbol, which takes bars in order.

    Args:
        kernel: the model's block kernel.
        first_ordinal: absolute number of the first bar; blocks are aligned to absolute numbers, so that a bar sits at
            the same place of its block whatever history it was loaded with.
    """

    def __init__(self, kernel: BlockKernel, first_ordinal: int) -> None:
        config = kernel.config
        self._kernel = kernel
        self._block = config.block
        self._first_ordinal = first_ordinal
        self._next_ordinal = first_ordinal
        self._features: FloatRows = np.zeros((config.block, config.n_features), dtype=np.float32)
        self._state = kernel.initial_state()
        self._ahead: _Block | None = None

    @property
    def next_ordinal(self) -> int:
        """Absolute number of the bar that is expected next."""
        return self._next_ordinal

    @property
    def rows_left(self) -> int:
        """Bars until the block that the next bar lies in is full; that bar included."""
        return self._block - self._next_ordinal % self._block

    @property
    def rows_ahead(self) -> int:
        """Bars that :meth:`look_ahead` has computed and that were not pushed yet."""
        return 0 if self._ahead is None else max(0, self._ahead.known - self._next_ordinal % self._block)

    def push(self, features: FloatRows) -> EncodedBar:
        """State and key of the next bar, from its scaled features ``[n_features]``.

        Raises:
            ValueError: a feature is not finite.
        """
        row = self._take(features)
        block = self._matching_block(row)
        if block is None:
            encoded, state = self._compute(self._features)
        else:
            encoded, state = block.encoded, block.state
        self._next_ordinal += 1
        if row == self._block - 1:
            self._begin_block(state)
        return EncodedBar(encoded.hidden[row], encoded.keys[row])

    def encode_series(self, features: FloatRows) -> EncodedSeries:
        """States and keys of the next bars, ``[n, n_features]`` scaled: what ``push`` gives for each, and leaves behind.

        Raises:
            ValueError: a feature is not finite.
        """
        self._ahead = None
        _check_finite(features)
        width = self._kernel.config.d_model
        hidden, keys = (np.empty((len(features), width), dtype=np.float32) for _ in range(2))
        done = 0
        while done < len(features):
            row = self._next_ordinal % self._block
            taken = min(self._block - row, len(features) - done)
            self._features[row : row + taken] = features[done : done + taken]
            encoded, state = self._compute(self._features)
            hidden[done : done + taken] = encoded.hidden[row : row + taken]
            keys[done : done + taken] = encoded.keys[row : row + taken]
            self._next_ordinal += taken
            done += taken
            if row + taken == self._block:
                self._begin_block(state)
        return EncodedSeries(hidden, keys)

    def look_ahead(self, features: FloatRows) -> EncodedSeries:
        """Compute the next bars of the current block at once, so that their ``push`` costs nothing.

        Only a convenience: a bar whose features turn out to be others is computed anew, as are those after it.

        Args:
            features: scaled features expected of the next bars, ``[n, n_features]`` with n at most ``rows_left``.

        Returns:
            States and keys of these bars, should they come as expected.
        """
        _check_finite(features)
        row = self._next_ordinal % self._block
        expected = self._features.copy()
        expected[row : row + len(features)] = features
        encoded, state = self._compute(expected)
        known = row + len(features)
        self._ahead = _Block(expected, known, encoded, state)
        return EncodedSeries(encoded.hidden[row:known], encoded.keys[row:known])

    def _take(self, features: FloatRows) -> int:
        """Put the features of the next bar where they belong; their row."""
        _check_finite(features)
        row = self._next_ordinal % self._block
        self._features[row] = features
        return row

    def _matching_block(self, row: int) -> _Block | None:
        """The block computed ahead, if it saw this bar as it is."""
        ahead = self._ahead
        if ahead is None or row >= ahead.known or not np.array_equal(ahead.features[row], self._features[row]):
            self._ahead = None
            return None
        return ahead

    def _compute(self, features: FloatRows) -> tuple[EncodedSeries, EncoderState]:
        """Run the kernel on the current block."""
        block_start = self._next_ordinal - self._next_ordinal % self._block
        return self._kernel(features, self._first_ordinal - block_start, self._state)

    def _begin_block(self, state: EncoderState) -> None:
        """Go on to the next block."""
        self._state = state
        self._features[:] = 0.0
        self._ahead = None


def _check_finite(features: FloatRows) -> None:
    if not np.isfinite(features).all():
        raise ValueError("a scaled feature is not finite; the encoder takes finite numbers only")
