"""The memory bank: moments go in pending, become visible when their outcome is known, and leave first in, first out."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import takewhile
from operator import index as whole

import numpy as np
import numpy.typing as npt

from memory_store.ahead import Outlook, look_ahead
from memory_store.digest import content_digest
from memory_store.directory import Directory
from memory_store.index import scan_margin
from memory_store.records import (
    REGIME_LIMIT,
    TIME_LIMIT,
    BankChanges,
    BankConfig,
    BoolArray,
    Entry,
    MemoryBankError,
    Proposal,
    ScoreArray,
    SearchResult,
    Settlement,
)
from memory_store.restoration import refill
from memory_store.retrieval import propose, result, search_all, search_proposed, still_holds
from memory_store.ring import EMPTY, NEVER, Ring
from memory_store.vectors import prepare


class MemoryBank:
    """An exact, causal nearest-neighbour memory of fixed capacity, for one thread.

    An entry is visible to a search at ``as_of`` if and only if its primary outcome is known and
    ``settled_time[primary] + embargo_ms <= as_of``. Outcomes of other horizons are nan until the same holds for them. Scores
    are exact in float64; equal scores come in the order of ids.

    Args:
        config: shape and rules.
        encoder_version: which encoder makes the keys; a bank never mixes two.
        record_changes: keep what happens for ``take_changes``. Without it that is always empty.
    """

    def __init__(self, config: BankConfig, *, encoder_version: str, record_changes: bool = True) -> None:
        self.config = config
        self.encoder_version = encoder_version
        self._record_changes = record_changes
        self._ring = Ring(config)
        self._next_id = 0
        self._size = 0
        self._key_norm = 0.0
        self._directory = Directory()
        self._settled_until = -TIME_LIMIT
        self._disorder = 0
        self._forget_changes()

    def __len__(self) -> int:
        """Entries held, pending ones included."""
        return self._size

    @property
    def next_id(self) -> int:
        """The id that the next entry gets."""
        return self._next_id

    # -- writing ----------------------------------------------------------------------------------------------------

    def append(self, key: npt.ArrayLike, *, symbol: str, bar_time: int, regime: int = 0) -> int:
        """Remember a moment, pending until ``settle``; at capacity the oldest entry is evicted. Constant time.

        Args:
            key: ``[dimension]``.
            symbol: whose bar.
            bar_time: name of the bar, milliseconds; strictly increasing per symbol.
            regime: label of the moment, any 32-bit number.

        Returns:
            The entry's id.

        Raises:
            MemoryBankError: the key is of another dimension, not finite or zero, the bar is there already, or time
                runs backwards.
        """
        rows, lengths = prepare(np.asarray(key)[None], self.config, "key")
        bar_time, regime = whole(bar_time), whole(regime)
        if not -REGIME_LIMIT <= regime < REGIME_LIMIT:
            raise MemoryBankError(f"{symbol}: regime {regime} does not fit 32 bits")
        self._directory.admit(symbol, bar_time)
        entry_id = self._next_id
        self._evict(entry_id - self.config.capacity)
        number = self._directory.add(symbol, bar_time, entry_id)
        self._ring.write(entry_id, rows[0], number, bar_time, regime)
        self._key_norm = max(self._key_norm, float(lengths[0]))
        self._next_id += 1
        self._size += 1
        if self._record_changes:
            stored = rows[0].copy()
            stored.flags.writeable = False
            pending = (None,) * len(self.config.horizons)
            entry = Entry(entry_id, symbol, bar_time, stored, regime, self.encoder_version, pending, pending)
            self._appended.append(entry)
        return entry_id

    def settle(self, entry_id: int, horizon: int, outcome: float, settled_time: int) -> None:
        """Record what followed an entry. Saying the same again changes nothing; an evicted entry is left alone.

        Args:
            entry_id: from ``append``.
            horizon: index into the config's horizons.
            outcome: any finite number.
            settled_time: when it became known, milliseconds.

        Raises:
            MemoryBankError: the id was never given, the horizon does not exist, the outcome is not finite or lies before
                its own bar, or another one is recorded.
        """
        entry_id, horizon, settled_time = whole(entry_id), whole(horizon), whole(settled_time)
        outcome = float(outcome) + 0.0  # a database does not keep the sign of a zero
        if not 0 <= entry_id < self._next_id:
            raise MemoryBankError(f"entry {entry_id} cannot be settled: this memory has given no such id")
        if not 0 <= horizon < len(self.config.horizons):
            raise MemoryBankError(f"horizon {horizon} is no index into the {len(self.config.horizons)} horizons")
        if not self._ring.holds(entry_id):
            return
        if not math.isfinite(outcome):
            raise MemoryBankError(f"outcome of entry {entry_id} is {outcome}; leave it pending until it is a number")
        bar_time = int(self._ring.bar_times[entry_id % self.config.capacity])
        if not bar_time < settled_time < TIME_LIMIT:
            raise MemoryBankError(
                f"outcome of entry {entry_id} is said to be known at {settled_time}, which is not after its bar {bar_time}"
            )
        known = self._ring.settlement(entry_id, horizon)
        if known is not None:
            if known != (outcome, settled_time):
                raise MemoryBankError(
                    f"outcome of entry {entry_id} over horizon {horizon} is {known[0]!r} known at {known[1]}; "
                    f"it cannot become {outcome!r} known at {settled_time}"
                )
            return
        self._ring.settle(entry_id, horizon, outcome, settled_time)
        if settled_time < self._settled_until:
            self._disorder += 1
        self._settled_until = max(self._settled_until, settled_time)
        if self._record_changes:
            self._settlements.append(Settlement(entry_id, horizon, outcome, settled_time))

    def stop_recording(self) -> None:
        """Keep no changes from now on, and forget those not taken yet: for a memory that is never stored."""
        self._record_changes = False
        self._forget_changes()

    def take_changes(self) -> BankChanges:
        """What happened since the last call, for the transaction that makes it durable."""
        changes = BankChanges(tuple(self._appended), tuple(self._settlements), tuple(self._evicted))
        self._forget_changes()
        return changes

    def _forget_changes(self) -> None:
        self._appended: list[Entry] = []
        self._settlements: list[Settlement] = []
        self._evicted: list[int] = []

    def _evict(self, entry_id: int) -> None:
        """Forget an entry, if it is there; its slot is free to be written."""
        if not self._ring.holds(entry_id):
            return
        slot = entry_id % self.config.capacity
        self._directory.remove(int(self._ring.symbols[slot]), int(self._ring.bar_times[slot]))
        self._size -= 1
        if self._record_changes:
            self._evicted.append(entry_id)

    # -- asking -----------------------------------------------------------------------------------------------------

    def search(
        self,
        query: npt.ArrayLike,
        *,
        as_of: int,
        k: int,
        symbols: Collection[str] | None = None,
        proposal: Proposal | None = None,
        row: int = 0,
    ) -> SearchResult:
        """The ``k`` nearest entries that were visible at a time.

        Args:
            query: ``[dimension]``.
            as_of: milliseconds; what was not usable then is not used.
            k: neighbours wanted; with fewer visible the result is masked.
            symbols: search only these.
            proposal: from ``propose`` of this bank: makes the search faster, never different. It is left aside when it no
                longer holds: another query, more neighbours, an earlier time, or an entry evicted that it counted on.
            row: of the query in the proposal.

        Raises:
            MemoryBankError: the query is of another dimension, not finite or zero, ``k`` is not positive, or the proposal
                is of another bank or has no such row.
        """
        rows, lengths = prepare(np.asarray(query)[None], self.config, "query")
        as_of = self._moment(as_of, k)
        if proposal is not None:
            self._check_proposal(proposal, row)
            oldest_id = self._next_id - self.config.capacity
            if symbols is None and still_holds(proposal, row, rows, as_of=as_of, k=k, oldest_id=oldest_id):
                found = search_proposed(self._ring, proposal, row, rows, as_of=as_of, k=k, next_id=self._next_id)
                return result(self._ring, found, self._directory.names, as_of=as_of, k=k)
        hidden = self._ring.hidden(as_of, self._ring.scanned(self._next_id))
        if symbols is not None:
            hidden |= self._of_others(symbols, len(hidden))
        found = search_all(self._ring, rows, self._margin(lengths), hidden=hidden, k=k)
        return result(self._ring, found, self._directory.names, as_of=as_of, k=k)

    def propose(self, queries: npt.ArrayLike, *, as_of: int, k: int, skip_oldest: int = 0) -> Proposal:
        """Do the bulk of the work of many coming searches at once.

        The proposal covers the stable set: entries visible at ``as_of`` that ``skip_oldest`` more appends do not evict (at
        a full bank: all visible but the ``skip_oldest`` oldest). ``search`` adds what is outside it.

        Args:
            queries: ``[n, dimension]``, one or more.
            as_of: milliseconds, not after the first of the searches to come.
            k: the most neighbours that they want.
            skip_oldest: appends after which the proposal is still to serve.

        Raises:
            MemoryBankError: as ``search``, or there is no query.
        """
        rows, lengths = prepare(queries, self.config, "query")
        if not len(rows):
            raise MemoryBankError("queries are empty; propose for at least one")
        if skip_oldest < 0:
            raise MemoryBankError(f"skip_oldest is {skip_oldest}; it counts entries, from 0")
        return propose(
            self._ring,
            rows.copy(),
            self._margin(lengths),
            as_of=self._moment(as_of, k),
            k=k,
            skip_oldest=skip_oldest,
            next_id=self._next_id,
        )

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
        end = self._settled_until + self.config.embargo_ms
        times = list(takewhile(lambda time: time < end, as_of[: len(proposal.ids) - first_row]))
        oldest_id = self._next_id - self.config.capacity
        if not times or times[0] < proposal.as_of or oldest_id > proposal.first_stable:
            return None
        return look_ahead(
            self._ring,
            proposal,
            first_row,
            times,
            key_norm=self._key_norm,
            symbol_names=self._directory.names,
            next_id=self._next_id,
            disorder=self._disorder,
        )

    def foreseen(self, outlook: Outlook, place: int, *, as_of: int) -> SearchResult | None:
        """What ``search`` would give now, if the outlook still knows it.

        Args:
            outlook: from ``look_ahead``.
            place: of the search among those that it answered.
            as_of: milliseconds; another time than was foreseen has no answer.

        Raises:
            MemoryBankError: the outlook has no such place.
        """
        if not 0 <= place < len(outlook.results):
            raise MemoryBankError(f"place {place} is not in the outlook, which has {len(outlook.results)} searches")
        if outlook.owner is not self._ring or outlook.disorder != self._disorder or outlook.as_of[place] != as_of:
            return None
        return outlook.result(place, self._next_id - self.config.capacity)

    def visible_count(self, as_of: int) -> int:
        """How many entries a search at this time may choose from."""
        return int(np.count_nonzero(self._ring.visible_from <= self._moment(as_of, 1)))

    def find(self, symbol: str, bar_time: int) -> int | None:
        """Id of the entry of a bar, if it is held."""
        return self._directory.find(symbol, bar_time)

    def entry(self, entry_id: int) -> Entry:
        """A copy of one entry.

        Raises:
            MemoryBankError: it was evicted or never was.
        """
        if not self._ring.holds(entry_id):
            raise MemoryBankError(f"entry {entry_id} is not in this memory; it was evicted or never was")
        symbol = self._directory.names[self._ring.symbols[entry_id % self.config.capacity]]
        return self._ring.entry(entry_id, symbol, self.encoder_version)

    def entries(self) -> Iterator[Entry]:
        """Copies of all entries, oldest first; the bank must not change meanwhile."""
        for entry_id in self._ring.ids[self._ring.slots_in_order()].tolist():
            yield self.entry(entry_id)

    def digest(self) -> str:
        """SHA-256 over all entries in the order of their ids, in hexadecimal: equal digests mean equal content."""
        return content_digest(self._ring, self._directory.names, self.encoder_version)

    @staticmethod
    def _moment(as_of: int, k: int) -> int:
        """The time asked, before the time at which nothing is ever usable."""
        if k < 1:
            raise MemoryBankError(f"k is {k}; ask for at least 1 neighbour")
        return min(whole(as_of), NEVER - 1)

    def _margin(self, lengths: ScoreArray) -> ScoreArray:
        return scan_margin(self.config.dimension, self._key_norm, lengths)

    def _check_proposal(self, proposal: Proposal, row: int) -> None:
        if proposal.owner is not self._ring:
            raise MemoryBankError("the proposal was made by another memory bank; ask this one for its own")
        if not 0 <= row < len(proposal.ids):
            raise MemoryBankError(f"row {row} is not in the proposal, which has {len(proposal.ids)} queries")

    def _of_others(self, symbols: Collection[str], scanned: int) -> BoolArray:
        """Which of the first slots hold entries of symbols that were not asked for."""
        if isinstance(symbols, str):
            raise MemoryBankError(f"symbols is the text {symbols!r}; give a collection such as [{symbols!r}]")
        unwanted = np.array([name not in symbols for name in self._directory.names] or [True], dtype=np.bool_)
        return unwanted[self._ring.symbols[:scanned]]

    # -- from storage -----------------------------------------------------------------------------------------------

    def restore(self, entries: Iterable[Entry], *, next_id: int, last_times: Mapping[str, int] | None = None) -> None:
        """Fill a bank that was never used, keeping ids and keys as they are. Nothing is recorded as a change.

        Args:
            entries: in the order of their ids.
            next_id: the id that the next append gets.
            last_times: latest bar time of symbols, evicted entries included, so that their time cannot run backwards.

        Raises:
            MemoryBankError: the bank was used, or the entries do not fit it; the bank is then still empty.
        """
        if self._next_id or self._size:
            raise MemoryBankError(f"memory bank holds {self._size} entries already; only an unused one can be restored")
        ring, directory, longest = refill(self.config, self.encoder_version, entries, next_id=next_id)
        directory.advance(last_times or {})
        self._ring, self._directory, self._key_norm = ring, directory, longest
        self._next_id = next_id
        self._size = int(np.count_nonzero(ring.ids != EMPTY))
