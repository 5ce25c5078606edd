"""The encoder bar by bar, many bars at once and ahead of time, the same to the last bit.

There is one kernel, which takes one bar after the other, whoever asks. What a bar leaves behind for later ones lies at its
place; a look ahead fills the places behind it, and bars that come otherwise are written over what was expected of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

import numpy as np

from memory_store.second_thread import Promise, SecondThread
from strategies.memory_transformer.bar_kernel import BarKernel, EncodedSeries
from strategies.memory_transformer.compiled import FloatRows

_ROOM: Final = 512
"""Bars that are encoded until what they left behind is moved: the more, the seldomer, and the more memory it takes."""


class EncodedBar(NamedTuple):
    """State and key of one bar, each ``[d_model]``."""

    hidden: FloatRows
    key: FloatRows


class _Ahead(NamedTuple):
    """Bars that are computed ahead of time, together."""

    features: FloatRows
    encoded: Promise[EncodedSeries]


class StreamingEncoder:
    """The encoder of one symbol, which takes bars in order.

    Args:
        kernel: the model's kernel.
        first_ordinal: absolute number of the first bar.
    """

    def __init__(self, kernel: BarKernel, first_ordinal: int) -> None:
        self._kernel = kernel
        self._first_ordinal = self._next_ordinal = first_ordinal
        self._room = _ROOM
        self._past = kernel.past(self._room)
        self._place = 0
        """Of the next bar in it."""
        self._ahead: deque[_Ahead] = deque()
        self._taken = 0
        """Bars of the first of them that came as expected."""
        self._coming = 0
        """Bars of all of them that did not come yet."""

    @property
    def next_ordinal(self) -> int:
        """Absolute number of the bar that is expected next."""
        return self._next_ordinal

    def push(self, features: FloatRows) -> EncodedBar:
        """State and key of the next bar, from its scaled features ``[n_features]``.

        Raises:
            ValueError: a feature is not finite.
        """
        _check_finite(features)
        if self._coming:
            if np.array_equal(self._ahead[0].features[self._taken], features):
                return self.push_expected()
            self._expect_nothing()
        encoded = self._encode(features[None])
        self._go_on(1)
        return EncodedBar(encoded.hidden[0], encoded.keys[0])

    def push_expected(self) -> EncodedBar:
        """The same of a bar that was looked ahead to and came as it was expected."""
        features, promise = self._ahead[0]
        hidden, keys = promise.result()
        place = self._taken
        self._taken += 1
        self._coming -= 1
        if self._taken == len(features):
            self._ahead.popleft()
            self._taken = 0
        self._go_on(1)
        return EncodedBar(hidden[place], keys[place])

    def encode_series(self, features: FloatRows) -> EncodedSeries:
        """States and keys of the next bars, ``[n, n_features]`` scaled: what ``push`` gives for each, and leaves behind.

        Raises:
            ValueError: a feature is not finite.
        """
        _check_finite(features)
        self._expect_nothing()
        series = EncodedSeries(*np.empty((2, len(features), self._kernel.config.d_model), dtype=np.float32))
        for start in range(0, len(features), _ROOM):
            part = slice(start, start + _ROOM)
            series.hidden[part], series.keys[part] = self._encode(features[part])
            self._go_on(len(features[part]))
        return series

    def look_ahead(self, features: FloatRows, thread: SecondThread | None = None) -> Promise[EncodedSeries]:
        """Compute the next bars at once, so that their ``push`` costs nothing.

        Only a convenience: a bar whose features turn out to be others is computed anew, as are those after it.

        Args:
            features: scaled features expected of the next bars, ``[n, n_features]``, one or more.
            thread: begins with it soon; without one it is done when somebody needs it.

        Returns:
            States and keys of these bars, should they come as expected.

        Raises:
            ValueError: a feature is not finite.
        """
        self._expect_nothing()
        return self.look_further(features, thread)

    def look_further(self, features: FloatRows, thread: SecondThread | None = None) -> Promise[EncodedSeries]:
        """The same for the bars after those that were computed and have not come yet.

        Args:
            features: scaled features expected of them, ``[n, n_features]``, one or more.
            thread: as for ``look_ahead``.

        Raises:
            ValueError: a feature is not finite.
        """
        _check_finite(features)
        compute = self._prepared(features)
        before = self._ahead[-1].encoded if self._ahead else None

        def encode() -> EncodedSeries:
            # Every bar takes up what the one before left behind.
            if before is not None:
                before.result()
            return compute()

        encoded = Promise(encode) if thread is None else thread.begin(encode)
        self._ahead.append(_Ahead(features, encoded))
        self._coming += len(features)
        return encoded

    def _encode(self, features: FloatRows) -> EncodedSeries:
        """Compute the next bars."""
        return self._prepared(features)()

    def _prepared(self, features: FloatRows) -> Callable[[], EncodedSeries]:
        """What computes the bars after those that have come or are expected, with room for them."""
        ahead = self._coming
        needed = ahead + len(features)
        if self._place + needed > self._room:
            self._finish()
            self._room = max(self._room, 2 * needed)
            self._past = self._kernel.moved(self._past, self._place, ahead, self._room)
            self._place = 0
        known = self._next_ordinal - self._first_ordinal + ahead
        return partial(self._kernel, self._past, self._place + ahead, known, features)

    def _go_on(self, count: int) -> None:
        """So many bars have come."""
        self._next_ordinal += count
        self._place += count

    def _finish(self) -> None:
        """Have all computed that is expected, so that nobody writes to the past any more."""
        for ahead in self._ahead:
            ahead.encoded.result()

    def _expect_nothing(self) -> None:
        while self._ahead:  # the last one first, as those before it are not computed for it then
            self._ahead.pop().encoded.drop()
        self._taken = self._coming = 0


def _check_finite(features: FloatRows) -> None:
    if not np.isfinite(features).all():
        raise ValueError("a scaled feature is not finite; the encoder takes finite numbers only")
