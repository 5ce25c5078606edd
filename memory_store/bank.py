"""The memory bank: moments go in pending, become visible when their outcome is known, and leave when room is needed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from operator import index as whole

import numpy as np
import numpy.typing as npt

from memory_store.archive import Archive, Keeper
from memory_store.changes import ChangeLog
from memory_store.foresight import Foresight
from memory_store.holdings import holdings_of_entries, holdings_of_state
from memory_store.late_writes import LateWrites, can_wait
from memory_store.policy import Asker, RetrievalPolicy
from memory_store.pruning import PruneRule, candidates_for_pruning
from memory_store.question import Question
from memory_store.recall_monitor import RecallReading, RecallState
from memory_store.records import (
    LARGEST_NOVELTY,
    REGIME_LIMIT,
    BankChanges,
    BankConfig,
    Entry,
    MemoryBankError,
    Proposal,
    Recollection,
    SearchResult,
)
from memory_store.restoration import BankState
from memory_store.retrieval import result, search_proposed
from memory_store.settling import slot_to_settle
from memory_store.vectors import prepare_one


class MemoryBank(Foresight):
    """An exact, causal nearest-neighbour memory of fixed capacity, for one thread.

    An entry is visible to a search at ``as_of`` if and only if its primary outcome is known and
    ``settled_time[primary] + embargo_ms <= as_of``. Outcomes of other horizons are nan until the same holds for them. Scores
    are exact in float64; equal scores come in the order of ids. Everything is a function of the calls made: the same calls
    give the same bank, and one that was restored goes on as the original would.

    A bank belongs to one thread, and no call may be made while another is under way. Who wants to read what another thread
    or process writes opens a bank of its own from storage; ``state`` gives a copy that shares nothing.

    Args:
        config: shape and rules.
        encoder_version: which encoder makes the keys; a bank never mixes two.
        record_changes: keep what happens for ``take_changes``. Without it that is always empty.
    """

    def __init__(self, config: BankConfig, *, encoder_version: str, record_changes: bool = True) -> None:
        super().__init__(config)
        self.encoder_version = encoder_version
        self._changes = ChangeLog(config, encoder_version, recording=record_changes)

    def __len__(self) -> int:
        """Entries held, pending and sealed ones included."""
        return len(self._held)

    @property
    def unsealed(self) -> int:
        """The same without sealed ones."""
        return self._held.size

    @property
    def next_id(self) -> int:
        """The id that the next entry gets."""
        return self._held.next_id

    # -- writing ----------------------------------------------------------------------------------------------------

    def append(self, key: npt.ArrayLike, *, symbol: str, bar_time: int, regime: int = 0, novelty: float = 0.0) -> int:
        """Remember a moment, pending until ``settle``. Where there is no room, the config's eviction makes some.

        First in, first out that takes constant time; else it grows with the logarithm of the entries.

        Args:
            key: ``[dimension]``.
            symbol: whose bar.
            bar_time: name of the bar, milliseconds; strictly increasing per symbol.
            regime: label of the moment, any 32-bit number.
            novelty: one minus the best similarity that the bar found; kept as float32.

        Returns:
            The entry's id.

        Raises:
            MemoryBankError: the key is of another dimension, not finite or zero, the novelty is not finite, the bar is there
                already, or time runs backwards.
        """
        if self._late is not None:
            return self._late.append(key, symbol, bar_time, regime, novelty)
        return self.append_now(key, symbol, bar_time, regime, novelty)

    def append_now(self, key: npt.ArrayLike, symbol: str, bar_time: int, regime: int, novelty: float) -> int:
        """``append`` that does not wait."""
        row, length = prepare_one(key, self.config, "key")
        bar_time, regime, novelty = whole(bar_time), whole(regime), float(novelty)
        if not -REGIME_LIMIT <= regime < REGIME_LIMIT:
            raise MemoryBankError(f"{symbol}: regime {regime} does not fit 32 bits")
        if not abs(novelty) <= LARGEST_NOVELTY:
            raise MemoryBankError(f"{symbol}: novelty {novelty} is no finite number; leave it 0 where it is not known")
        held = self._held
        held.directory.admit(symbol, bar_time)
        entry_id = held.next_id
        for evicted in held.make_room(regime):
            self._changes.evict(evicted)
        slot = held.write(row, length, symbol, bar_time, regime, novelty)
        if self._changes.recording:
            self._changes.append(entry_id, symbol, bar_time, row, regime, float(held.ring.novelties[slot]))
        return entry_id

    def settle(self, entry_id: int, horizon: int, outcome: float, settled_time: int) -> None:
        """Record what followed an entry. Saying the same again changes nothing; an evicted or sealed entry is left alone.

        With the primary outcome the neighbours that ``note`` gave the entry are credited; see ``memory_store.credit``.

        Args:
            entry_id: from ``append``.
            horizon: index into the config's horizons.
            outcome: any finite number.
            settled_time: when it became known, milliseconds.

        Raises:
            MemoryBankError: the id was never given, the horizon does not exist, the outcome is not finite or lies before
                its own bar, or another one is recorded.
        """
        if self._late is not None:
            self._late.settle(entry_id, horizon, outcome, settled_time)
        else:
            self.settle_now(entry_id, horizon, outcome, settled_time)

    def settle_now(self, entry_id: int, horizon: int, outcome: float, settled_time: int) -> None:
        """``settle`` that does not wait."""
        entry_id, horizon, settled_time = whole(entry_id), whole(horizon), whole(settled_time)
        outcome = float(outcome) + 0.0  # a database does not keep the sign of a zero
        held = self._held
        slot = slot_to_settle(held.ring, entry_id, horizon, outcome, settled_time, next_id=held.next_id)
        if slot is None:
            return
        held.ring.settle(slot, horizon, outcome, settled_time)
        if horizon == self.config.primary:
            held.evictor.changed((slot, *held.recollections.settled(entry_id, outcome)))
        if settled_time < held.settled_until:
            held.disorder += 1
        held.settled_until = max(held.settled_until, settled_time)
        self._changes.settle(entry_id, horizon, outcome, settled_time)

    def note(self, asker_id: int, *, as_of: int, ids: npt.ArrayLike, weights: npt.ArrayLike) -> None:
        """Remember which neighbours spoke for a decision: hits now, and credit when the asker's primary outcome settles.

        Neighbours that are sealed, or were evicted since they were found, are left out, and an evicted asker is left alone.
        No neighbours at all is no decision to remember.

        Args:
            asker_id: the entry of the bar that was decided, its primary outcome pending; each is noted once.
            as_of: when it asked, milliseconds.
            ids: ``[n]`` the neighbours, best first, none twice.
            weights: ``[n]`` their shares of the vote, not negative and not all 0.

        Raises:
            MemoryBankError: an id was never given, a neighbour was not visible then, the asker's outcome is known or its
                neighbours are noted already, or the arrays do not fit.
        """
        if self._late is not None:
            self._late.note(asker_id, as_of, ids, weights)
        else:
            self.note_now(asker_id, as_of, ids, weights)

    def note_now(self, asker_id: int, as_of: int, ids: npt.ArrayLike, weights: npt.ArrayLike) -> None:
        """``note`` that does not wait."""
        held = self._held
        noted = held.recollections.note(whole(asker_id), whole(as_of), ids, weights, next_id=held.next_id)
        self._changes.note(noted)

    def evict(self, ids: Iterable[int]) -> None:
        """Forget entries now, whoever's turn it is. Those that are gone already are left alone.

        Raises:
            MemoryBankError: an id was never given; nothing is evicted then.
        """
        leaving = [whole(entry_id) for entry_id in ids]
        for entry_id in leaving:
            if not 0 <= entry_id < self._held.next_id:
                raise MemoryBankError(f"entry {entry_id} cannot be evicted: this memory has given no such id")
        before = self._held.disorder
        for entry_id in dict.fromkeys(leaving):
            if self._held.ring.holds(entry_id):
                self._held.remove(entry_id)
                self._held.disorder += 1
            elif not self._held.archive.forget(entry_id):
                continue
            self._changes.evict(entry_id)
        if self._held.disorder > before:
            self._held.finder.evicted()

    def prune(self, rule: PruneRule, as_of: int) -> tuple[int, ...]:
        """Evict what ``prune_candidates`` names; returns the ids."""
        ids = self.prune_candidates(rule, as_of)
        self.evict(ids)
        return ids

    def prune_candidates(self, rule: PruneRule, as_of: int) -> tuple[int, ...]:
        """Ids of the entries that meet a rule at a time, milliseconds, increasing; nothing is changed. None that is sealed."""
        return candidates_for_pruning(self._held.counted(), rule, whole(as_of))

    @property
    def recall(self) -> RecallReading | None:
        """What the running check of an approximate index shows; ``None`` where the index is exact."""
        return self._held.finder.recall

    @property
    def recall_state(self) -> RecallState | None:
        """What that check knows, for ``resume_recall`` of the same memory opened again; ``None`` where the index is exact."""
        return self._held.finder.recall_state

    def resume_recall(self, state: RecallState) -> None:
        """Let the running check go on where that of the same memory was stopped; it never changes an answer."""
        self._held.finder.resume_recall(state)

    @contextmanager
    def written_late(self) -> Iterator[None]:
        """Let writes wait until somebody looks, which costs less, where the config allows it and no changes are recorded.

        The bank is the same to the last bit as with writes that do not wait. Only their errors come later: from whatever
        looks, or at the end. Keys, ids and weights that are given must not be changed meanwhile.
        """
        if self._late is not None or self._changes.recording or not can_wait(self.config):
            yield
            return
        self._late = LateWrites(self._held, self)
        try:
            yield
        finally:
            late, self._late = self._late, None
            late.write()

    def stop_recording(self) -> None:
        """Keep no changes from now on, and forget those not taken yet: for a memory that is never stored."""
        self._changes.stop()

    def take_changes(self) -> BankChanges:
        """What happened since the last call, for the transaction that makes it durable."""
        return self._changes.take()

    # -- asking -----------------------------------------------------------------------------------------------------

    def search(
        self,
        query: npt.ArrayLike,
        *,
        as_of: int,
        k: int,
        symbols: Collection[str] | None = None,
        policy: RetrievalPolicy | None = None,
        asker: Asker | None = None,
        proposal: Proposal | None = None,
        row: int = 0,
    ) -> SearchResult:
        """The ``k`` nearest entries that were visible at a time, or those that a policy prefers.

        All of the nearest, always; with an approximate index nearly all of them.

        Args:
            query: ``[dimension]``.
            as_of: milliseconds; what was not usable then is not used.
            k: neighbours wanted; with fewer visible the result is masked.
            symbols: search only these.
            policy: what is preferred beyond being alike.
            asker: the bar that asks, where the policy compares with it.
            proposal: from ``propose`` of this bank: makes the search faster, never different. It is left aside when it no
                longer holds: another query, more neighbours, an earlier time, or too many entries evicted that it counted on.
            row: of the query in the proposal.

        Raises:
            MemoryBankError: the query is of another dimension, not finite or zero, ``k`` is not positive, the policy needs
                an asker, or the proposal is of another bank or has no such row.
        """
        vector, length = prepare_one(query, self.config, "query")
        question = Question(
            vector[None], self._margin(np.array([length])), self._moment(as_of, k), k, symbols, policy, asker
        )
        held, finder, found = self._held, self._held.finder, None
        if proposal is not None:
            self._check_proposal(proposal, row)
            if not finder.checks_next:
                count = {"size": held.size, "next_id": held.next_id}
                found = search_proposed(held.ring, finder, held.directory, proposal, row, question, **count)
        if found is not None:
            finder.answered_ahead()
        else:
            found = finder.search(held.directory, question, next_id=held.next_id)
        return result(found, partial(finder.rows, held.directory), question)

    def visible_count(self, as_of: int) -> int:
        """How many entries a search at this time may choose from."""
        return self._held.visible_count(self._moment(as_of, 1))

    def find(self, symbol: str, bar_time: int) -> int | None:
        """Id of the entry of a bar, if it is held."""
        return self._held.find(symbol, bar_time)

    def entry(self, entry_id: int) -> Entry:
        """A copy of one entry; a sealed one is as if no decision had used it.

        Raises:
            MemoryBankError: it was evicted or never was.
        """
        entry = self._held.entry(entry_id, self.encoder_version)
        if entry is None:
            raise MemoryBankError(f"entry {entry_id} is not in this memory; it was evicted or never was")
        return entry

    def entries(self) -> Iterator[Entry]:
        """Copies of all entries, oldest first; the bank must not change meanwhile."""
        for entry_id in self._held.ids():
            yield self.entry(entry_id)

    def digest(self) -> str:
        """SHA-256 over all entries in the order of their ids, in hexadecimal: equal digests mean equal content.

        Hits, credits and the recollections that wait for an outcome are content too.
        """
        return self._held.digest(self.encoder_version)

    # -- from storage -----------------------------------------------------------------------------------------------

    def restore(
        self,
        entries: Iterable[Entry],
        *,
        next_id: int,
        last_times: Mapping[str, int] | None = None,
        recollections: Iterable[Recollection] = (),
        outcomes: Mapping[int, float] | None = None,
    ) -> None:
        """Fill a bank that was never used, keeping ids and keys as they are. Nothing is recorded as a change.

        Args:
            entries: in the order of their ids, with the hits and credits that the recollections do not count.
            next_id: the id that the next append gets.
            last_times: latest bar time of symbols, evicted entries included, so that their time cannot run backwards.
            recollections: what decisions remembered, in any order: all of them where the entries come without hits. One
                may be left out if none of its neighbours is held and its asker's outcome is not pending.
            outcomes: primary outcomes of entries that are evicted, for the askers and neighbours that recollections name.

        Raises:
            MemoryBankError: the bank was used, or the entries do not fit it; the bank is then still empty.
        """
        self._check_unused()
        self._held = holdings_of_entries(
            self.config,
            self.encoder_version,
            entries,
            next_id=next_id,
            last_times=last_times or {},
            recollections=recollections,
            outcomes=outcomes or {},
        )

    def state(self) -> BankState:
        """A copy of all that the bank holds, sealed entries as if no decision had used them."""
        return self._held.state()

    def unsealed_state(self) -> BankState:
        """The same without sealed entries."""
        return self._held.unsealed_state()

    def restore_state(
        self,
        state: BankState,
        *,
        recollections: Iterable[Recollection] = (),
        outcomes: Mapping[int, float] | None = None,
    ) -> None:
        """Fill a bank that was never used, of the same config and encoder. Nothing is recorded as a change.

        Args:
            state: of another bank, or made from stored columns. Where the asker of a recollection that waits has an
                outcome by now, the credit is given.
            recollections: as for ``restore``: those that the state's hits do not count.
            outcomes: as for ``restore``.

        Raises:
            MemoryBankError: the bank was used, or the state does not fit it; the bank is then still empty.
        """
        self._check_unused()
        self._held = holdings_of_state(self.config, state, recollections, outcomes or {})

    def restore_archive(self, archive: Archive) -> None:
        """Take over the sealed entries of this bank, which has been filled with all others.

        Raises:
            MemoryBankError: the bank keeps none, or holds some already.
        """
        if not self.config.sealed or len(self._held.archive):
            raise MemoryBankError("an archive can only be restored to a bank that keeps one and has nothing in it yet")
        self._held = self._held.with_archive(archive)

    def keep_sealed(self, keeper: Keeper) -> None:
        """Let sealed segments be kept elsewhere than in memory, those that there are and those to come."""
        self._held.archive.keep_in(keeper)

    def _check_unused(self) -> None:
        if self._held.next_id or self._held.size:
            raise MemoryBankError(f"memory bank holds {len(self)} entries already; only an unused one can be restored")
