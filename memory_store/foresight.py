"""What a bank can do before its time: propose neighbours, answer searches that are still to come, and have help with it.

Searches are the law, and nothing here gives another answer than they do: who looks ahead asks again when the time has come
whether what he found still holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile
from operator import index as whole
from typing import Any

import numpy.typing as npt

from memory_store.ahead import Outlook, Terms, look_ahead
from memory_store.gpu import gpu_nearest
from memory_store.helper import Helper, Promise, can_help
from memory_store.holdings import Holdings
from memory_store.index import scan_margin
from memory_store.late_writes import LateWrites
from memory_store.pruned import WORTHWHILE
from memory_store.records import (
    BankConfig,
    Eviction,
    IndexKind,
    MemoryBankError,
    Proposal,
    ScoreArray,
    SearchResult,
)
from memory_store.retrieval import propose
from memory_store.ring import NEVER
from memory_store.rounded import ByteArithmetic
from memory_store.vectors import prepare


class Foresight:
    """The part of a ``MemoryBank`` that works ahead.

    Args:
        config: of the bank.
    """

    def __init__(self, config: BankConfig) -> None:
        self.config = config
        self._late: LateWrites | None = None
        """Where writes are put off."""
        self._holdings = Holdings(config)
        self._may_be_helped = False

    @property
    def _held(self) -> Holdings:
        """All that is held, with every write made."""
        late = self._late
        if late is not None and late.wait:
            late.write()
        return self._holdings

    @_held.setter
    def _held(self, held: Holdings) -> None:
        assert self._late is None, "a bank that puts off its writes cannot be filled"
        self._holdings = held

    def propose(
        self,
        queries: npt.ArrayLike,
        *,
        as_of: int,
        k: int,
        skip_oldest: int = 0,
        arithmetic: ByteArithmetic | None = None,
    ) -> Proposal:
        """Do the bulk of the work of many coming searches at once.

        The proposal covers the stable set: the entries visible at ``as_of``; first in, first out only those that
        ``skip_oldest`` more appends do not evict (at a full bank: all visible but the ``skip_oldest`` oldest). ``search``
        adds what is outside it. Under other evictions it lists some more neighbours than wanted instead. An approximate index
        proposes from the cells that the searches are going to look into.

        Args:
            queries: ``[n, dimension]``, one or more.
            as_of: milliseconds, not after the first of the searches to come.
            k: the most neighbours that they want.
            skip_oldest: appends after which the proposal is still to serve.
            arithmetic: of bytes, where there is a fast one; the proposal is the same without.

        Raises:
            MemoryBankError: as ``search``, or there is no query.
        """
        rows, lengths = prepare(queries, self.config, "query")
        if not len(rows):
            raise MemoryBankError("queries are empty; propose for at least one")
        if skip_oldest < 0:
            raise MemoryBankError(f"skip_oldest is {skip_oldest}; it counts entries, from 0")
        held = self._held
        as_of = self._moment(as_of, k)
        return propose(
            held.ring,
            held.finder,
            rows.copy(),
            self._margin(lengths),
            as_of=as_of,
            k=k,
            skip_oldest=skip_oldest,
            next_id=held.next_id,
            arithmetic=arithmetic,
        )

    def begin(self, work: Callable[[Any], Any], task: Any, *, patient: bool = False) -> Promise | None:
        """Have a task done in a second process that has a copy of this bank as it is now; ``None`` where there is no help.

        Args:
            work: what to do, the same at every call; it may ask the bank, and must not write. See ``memory_store.helper``.
            task: for it.
            patient: others may be done first. A task that proposes must be so: while it looks, others are let in.
        """
        held = self._held
        if not self._may_be_helped:
            return None
        if held.helper is None:
            held.helper = Helper(held, work)
        return held.helper.begin(task, patient=patient)

    @contextmanager
    def helped(self) -> Iterator[None]:
        """Let a second process do what ``begin`` asks for, where there is a core for it and enough to do.

        Every bit of every answer is what it would be without.
        """
        held, config = self._held, self.config
        exact = config.index is IndexKind.EXACT and not config.sealed and config.eviction is Eviction.FIFO
        alone = self._may_be_helped or not exact or config.capacity < WORTHWHILE or not can_help()
        if alone or gpu_nearest() is not None:  # a copy of a process cannot go on with its GPU
            yield
            return
        self._may_be_helped = True
        try:
            yield
        finally:
            self._may_be_helped = False
            helper, held.helper = held.helper, None
            if helper is not None:
                helper.close()

    @property
    def has_help(self) -> bool:
        """Whether a second process does what ``begin`` asks for, or is going to."""
        return self._may_be_helped

    @property
    def known_until(self) -> int:
        """Searches before this time see no outcome that is still to come, so that ``look_ahead`` can answer them now."""
        return self._held.settled_until + self.config.embargo_ms

    def look_ahead(self, proposal: Proposal, first_row: int, as_of: Sequence[int]) -> Outlook | None:
        """Answer coming searches at once, as far as what is still to happen cannot change their answers.

        Args:
            proposal: from ``propose`` of this bank.
            first_row: row of the first search's query in the proposal; the others follow.
            as_of: when the searches are going to be made, in order, milliseconds; the first of them may be now.

        Returns:
            Answers to the first of the searches, at least one of them; ``None`` if not even the first can be given: an
            outcome may still come that it has to see, or the proposal no longer holds.

        Raises:
            MemoryBankError: the proposal is of another bank or has no such row.
        """
        self._check_proposal(proposal, first_row)
        known_until = self.known_until
        times = list(takewhile(lambda time: time < known_until, as_of[: len(proposal.ids) - first_row]))
        fifo = self.config.eviction is Eviction.FIFO
        turned = fifo and self._held.next_id - self.config.capacity > proposal.first_stable
        if not times or times[0] < proposal.as_of or turned or not proposal.complete.any():
            return None
        return look_ahead(
            self._held.ring,
            proposal,
            first_row,
            times,
            key_norm=self._held.key_norm,
            symbol_names=self._held.directory.names,
            size=self._held.size,
            next_id=self._held.next_id,
            disorder=self._held.disorder,
        )

    def foreseen(self, outlook: Outlook, place: int, *, as_of: int) -> SearchResult | None:
        """What ``search`` would give now, if the outlook still knows it; arguments and errors of ``still_foreseen``."""
        visible = self.still_foreseen(outlook.terms, place, as_of=as_of)
        if visible is None:
            return None
        result = outlook.results[place]
        return result if visible == result.visible else result.with_visible(visible)

    def still_foreseen(self, terms: Terms, place: int, *, as_of: int) -> int | None:
        """Whether ``search`` would give now what an outlook says, and how many entries it could choose from.

        Args:
            terms: of an outlook from ``look_ahead``.
            place: of the search among those that it answered.
            as_of: milliseconds; another time than was foreseen has no answer.

        Raises:
            MemoryBankError: the outlook has no such place.
        """
        if not 0 <= place < len(terms.as_of):
            raise MemoryBankError(f"place {place} is not in the outlook, which has {len(terms.as_of)} searches")
        late, held = self._late, self._holdings
        finder = held.finder
        same = terms.owner == held.ring.number and terms.disorder == held.disorder and terms.as_of[place] == as_of
        if not same or finder.checks_next:
            return None
        # Where writes wait the oldest make room, so that ids tell what is held.
        next_id = held.next_id if late is None else late.next_id
        visible = terms.visible_count(place, held.ring, size=held.size, next_id=next_id, partition=finder.partition)
        if visible is not None:
            finder.answered_ahead()
        return visible

    @staticmethod
    def _moment(as_of: int, k: int) -> int:
        """The time asked, before the time at which nothing is ever usable."""
        if k < 1:
            raise MemoryBankError(f"k is {k}; ask for at least 1 neighbour")
        return min(whole(as_of), NEVER - 1)

    def _margin(self, lengths: ScoreArray) -> ScoreArray:
        return scan_margin(self.config.dimension, self._held.key_norm, lengths)

    def _check_proposal(self, proposal: Proposal, row: int) -> None:
        if proposal.owner != self._held.ring.number:
            raise MemoryBankError("the proposal was made by another memory bank; ask this one for its own")
        if not 0 <= row < len(proposal.ids):
            raise MemoryBankError(f"row {row} is not in the proposal, which has {len(proposal.ids)} queries")
