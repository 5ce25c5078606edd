"""What a bank can do before its time: propose neighbours, answer searches that are still to come, and have help with it.

Searches are the law, and nothing here gives another answer than they do: who looks ahead asks again when the time has come
whether what he found still holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile
from operator import index as whole
from typing import NamedTuple

import numpy.typing as npt

from memory_store.ahead import Outlook, Terms, look_ahead
from memory_store.gpu import gpu_nearest
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
from memory_store.second_thread import Promise, SecondThread, has_second_core
from memory_store.vectors import prepare


class ComingProposal(NamedTuple):
    """A proposal that a second thread makes; redeemed by ``MemoryBank.proposal_of``."""

    promise: Promise[Proposal]
    disorder: int
    """The bank's count of events that no outlook survives, when it was begun."""


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
        self._second_thread: SecondThread | None = None

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

        Raises:
            MemoryBankError: as ``search``, or there is no query.
        """
        return self._proposing(queries, as_of, k, skip_oldest)()

    def begin_proposal(
        self,
        queries: npt.ArrayLike,
        *,
        as_of: int,
        k: int,
        skip_oldest: int = 0,
    ) -> ComingProposal | None:
        """The same by a second thread, while this one goes on; ``None`` where there is none.

        Arguments and errors are those of ``propose``.
        """
        if self._second_thread is None:
            return None
        look = self._proposing(queries, as_of, k, skip_oldest)
        return ComingProposal(self._second_thread.begin(look), self._held.disorder)

    def proposal_of(self, coming: ComingProposal) -> Proposal | None:
        """What was begun, with as much waiting as it takes; ``None`` where what it looked at was written meanwhile."""
        proposal, held = coming.promise.result(), self._holdings
        late = self._late
        next_id = held.next_id if late is None else late.next_id
        turned = next_id - self.config.capacity > proposal.first_stable or held.disorder != coming.disorder
        return None if turned else proposal

    def _proposing(self, queries: npt.ArrayLike, as_of: int, k: int, skip_oldest: int) -> Callable[[], Proposal]:
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
        )

    @contextmanager
    def helped(self) -> Iterator[None]:
        """Let a second thread do what is begun ahead of its time, where there is a core for it and enough to do.

        Every bit of every answer is what it would be without.
        """
        config = self.config
        exact = config.index is IndexKind.EXACT and not config.sealed and config.eviction is Eviction.FIFO
        alone = self._second_thread is not None or not exact or config.capacity < WORTHWHILE or not has_second_core()
        if alone or gpu_nearest() is not None:  # which is faster than a core, and asked at once
            yield
            return
        self._second_thread = SecondThread()
        try:
            yield
        finally:
            thread, self._second_thread = self._second_thread, None
            thread.close()

    @property
    def second_thread(self) -> SecondThread | None:
        """Which works ahead, where there is one."""
        return self._second_thread

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
