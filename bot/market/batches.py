"""What the market feed hands to the decision core: bars that close together, and symbols that come and go."""

from __future__ import annotations

import msgspec

from strategies.bars import Bar


class BarBatch(msgspec.Struct, frozen=True):
    """Bars of several symbols that closed at the same time, in the order of the run's symbols."""

    bars: tuple[Bar, ...]
    late: tuple[bool, ...]
    """Per bar: it is older than the newest closed one, or its batch had already left without it."""


class SymbolUnavailable(msgspec.Struct, frozen=True):
    """The feed does not know a symbol's newest bar; batches do not wait for it until it is back."""

    symbol: str
    reason: str


class SymbolAvailable(msgspec.Struct, frozen=True):
    """A symbol that was unavailable is up to date again; the batch that shows it follows."""

    symbol: str


FeedEvent = BarBatch | SymbolUnavailable | SymbolAvailable
