"""What model and memory say of a bar: in time, or before its time where a replay has shown the bars to come."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

from memory_store import MemoryBank, Proposal, SearchResults
from memory_store.helper import Promise
from memory_store.policy import Asker
from strategies.bars import Bar, interval_ms
from strategies.memory_rules import MemoryRules
from strategies.memory_transformer.bar_kernel import EncodedSeries
from strategies.memory_transformer.bundle import Bundle
from strategies.memory_transformer.byte_arithmetic import byte_arithmetic
from strategies.memory_transformer.forecaster import Forecaster
from strategies.memory_transformer.prospect import Appraisal, Appraisals, Block, Findings, Prospect, Stretch
from strategies.memory_transformer.streaming import EncodedBar
from strategies.readout import read_out_columns

_STRETCHES: Final = 2
"""What can be known of the bars to come is cut into so many stretches where a second process helps: one is decided on, and one
is worked on here or there."""
_LONGEST: Final = 24
"""Bars of such a stretch at most."""
_SHORTEST: Final = 4
"""And at least, as a shorter one costs as much."""
_BLOCK: Final = 6
"""Stretches whose neighbours are proposed together: the more, the cheaper. Bars encoded together are whole blocks of them."""
_KEPT: Final = 4
"""Proposals that a second process keeps for every symbol: more than are worked on at once."""
_NOTHING: Final = Findings(0, None, None)


class Appraiser:
    """Asks memory and model about bars; early or in time, here or in a second process, the answer has the same bits.

    Args:
        bundle: the trained model.
        n_neighbors: asked for at every bar.
        symbols: how many share the memory.
        rules: of the memory.
    """

    def __init__(self, bundle: Bundle, n_neighbors: int, symbols: int, rules: MemoryRules) -> None:
        config = bundle.config
        self._neighbors = n_neighbors
        self._forecaster = Forecaster(bundle, n_neighbors)
        self._temperature = bundle.model.memory_read.temperature
        self._horizon = config.primary
        # Outcomes of moments closer than this overlap, or nearly so: together they are one piece of evidence.
        self._cluster_ms = (config.primary_horizon + config.embargo) * interval_ms(bundle.interval)
        self._policy = rules.policy(temperature=self._temperature, cluster_ms=self._cluster_ms)
        self._alone_at_once = config.block
        self._shared_at_once = max(_SHORTEST, min(_LONGEST, config.embargo // _STRETCHES))
        self._proposed_at_once = _BLOCK * self._shared_at_once
        self._ahead = 2 * self._proposed_at_once
        # A block is proposed up to so many bars before it begins, and serves until it ends.
        self._skip_oldest = max(config.block, self._ahead + self._proposed_at_once) * symbols
        self._kept = _KEPT * symbols

    def appraise(
        self,
        bank: MemoryBank,
        bar: Bar,
        encoded: EncodedBar,
        volatility: float,
        ordinal: int,
        prospect: Prospect | None,
        regime: int,
    ) -> Appraisal:
        """The appraisal of a bar whose batch has settled and of which nothing is remembered yet.

        Args:
            bank: the memory.
            bar: the bar.
            encoded: its state and key.
            volatility: its trailing volatility, per bar.
            ordinal: its absolute number.
            prospect: one that expected this very bar, if there is any.
            regime: label of the bar.
        """
        proposal, place = None, 0
        if prospect is not None:
            row = ordinal - prospect.first_ordinal
            stretch, findings = self._found(bank, prospect, row, bar.close_time)
            early = _if_true(bank, findings, row - stretch.row, bar.close_time)
            if early is not None:
                return early
            proposal, place = prospect.proposal(stretch.block), row - stretch.block[1]
        result = bank.search(
            encoded.key,
            as_of=bar.close_time,
            k=self._neighbors,
            policy=self._policy,
            asker=None if self._policy is None else Asker(bar.symbol, regime, bar.open_time),
            proposal=proposal,
            row=place,
        )
        alone = EncodedSeries(encoded.hidden[None], encoded.key[None])
        appraisals = self._appraisals(alone, SearchResults.of((result,)), (bar.open_time,), (volatility,))
        return appraisals.appraisal(0, result.visible)

    def _found(self, bank: MemoryBank, prospect: Prospect, row: int, now: int) -> tuple[Stretch, Findings]:
        """The stretch of a bar, and what is known of it."""
        current = prospect.current
        if current is None or row >= current[0].end:
            current = prospect.current = self._next(bank, prospect, row, now)
        stretch, findings = current
        place = row - stretch.row
        if place >= findings.end:
            proposal = prospect.proposal(stretch.block)
            if proposal is not None:
                current = prospect.current = stretch, self._answer(bank, stretch, proposal, place)
        return current

    def _next(self, bank: MemoryBank, prospect: Prospect, row: int, now: int) -> tuple[Stretch, Findings]:
        """The stretch that this bar lies in. What can be known of later ones is asked for, or found out instead of waiting."""
        coming = prospect.take(row)
        if coming is None:
            own = self._own(bank, prospect, row, now)
            self._share(bank, prospect, row, now)
            return own, self._find_here(bank, prospect, own)
        stretch, findings = coming
        is_behind = prospect.proposed_until < row + self._proposed_at_once
        if is_behind or (isinstance(findings, Promise) and not findings.is_kept):
            self._help_out(bank, prospect, row)
        self._share(bank, prospect, row, now)
        found: Findings | None = findings.result() if isinstance(findings, Promise) else findings
        return stretch, self._find_here(bank, prospect, stretch) if found is None else found

    def _own(self, bank: MemoryBank, prospect: Prospect, row: int, now: int) -> Stretch:
        """The stretch that this bar begins, which nobody else has, its neighbours proposed.

        A second process that starts after that has what proposing takes.
        """
        size = self._shared_at_once if bank.has_help else self._alone_at_once
        own = prospect.cut(size)
        if own is None:
            block = prospect.cut_block(self._proposed_at_once if bank.has_help else size, now, row)
            assert block is not None, "a bar of a prospect is in one of its blocks"
            prospect.propose(block, self._propose(bank, block))
            own = prospect.cut(size)
        assert own is not None, "a bar of a block is in one of its stretches"
        prospect.assign(own, _NOTHING)
        prospect.take(row)
        return own

    def _share(self, bank: MemoryBank, prospect: Prospect, row: int, now: int) -> None:
        """Give a second process as much as it takes: what bars are waiting for first."""
        if not bank.has_help:
            return
        work = partial(self._work, bank, {})
        while True:
            later = self._later(bank, prospect, row)
            task: Stretch | Block | None = later
            if later is None:
                task = prospect.cut_block(self._proposed_at_once, now, row + self._ahead)
            if task is None:
                return
            patient = isinstance(task, Block) or prospect.proposal(task.block, wait=False) is None
            promise = bank.begin(work, task, patient=patient)
            if promise is None:
                return
            if isinstance(task, Stretch):
                prospect.assign(task, promise)
            elif isinstance(task, Block):
                prospect.propose(task, promise)

    def _help_out(self, bank: MemoryBank, prospect: Prospect, row: int) -> None:
        """Do what the second process, which is behind, would be given next."""
        later = self._later(bank, prospect, row)
        proposal = None if later is None else prospect.proposal(later.block, wait=False)
        if later is not None and proposal is not None:
            prospect.assign(later, self._answer(bank, later, proposal, 0))

    def _later(self, bank: MemoryBank, prospect: Prospect, row: int) -> Stretch | None:
        """The next stretch that nobody works on, if all that can be known before its time is known."""
        later = prospect.cut(self._shared_at_once)
        if later is None or later.end > row + _STRETCHES * self._shared_at_once:
            return None
        return later if self._policy is not None or later.closed[-1] < bank.known_until else None

    def _find_here(self, bank: MemoryBank, prospect: Prospect, stretch: Stretch) -> Findings:
        """Find out as much as can be known now."""
        proposal = prospect.proposal(stretch.block)
        return _NOTHING if proposal is None else self._answer(bank, stretch, proposal, 0)

    def _work(
        self, bank: MemoryBank, kept: dict[tuple[int, int], Proposal], task: Block | Stretch
    ) -> Proposal | Findings | None:
        """What a second process does: it keeps the proposals of blocks for their stretches."""
        if isinstance(task, Block):
            kept[task.key] = self._propose(bank, task)
            if len(kept) > self._kept:
                del kept[next(iter(kept))]
            return kept[task.key]
        proposal = kept.get(task.block) if task.proposal is None else task.proposal
        return None if proposal is None else self._answer(bank, task, proposal, 0)

    def _propose(self, bank: MemoryBank, block: Block) -> Proposal:
        return bank.propose(
            block.queries,
            as_of=block.as_of,
            k=self._neighbors,
            skip_oldest=self._skip_oldest,
            arithmetic=byte_arithmetic(),
        )

    def _answer(self, bank: MemoryBank, stretch: Stretch, proposal: Proposal, first: int) -> Findings:
        """What can be known of a stretch from one of its bars on, by the proposal for its block."""
        if self._policy is not None:
            return Findings(first, None, None)  # what a bar is going to prefer depends on more than its key
        outlook = bank.look_ahead(proposal, stretch.place + first, stretch.closed[first:])
        if outlook is None:
            return Findings(first, None, None)
        part = slice(first, first + len(outlook.results))
        encoded = EncodedSeries(stretch.encoded.hidden[part], stretch.encoded.keys[part])
        appraisals = self._appraisals(encoded, outlook.results, stretch.opened[part], stretch.volatility[part])
        return Findings(first, outlook.terms, appraisals)

    def _appraisals(
        self,
        encoded: EncodedSeries,
        results: SearchResults,
        opened: Sequence[int],
        volatility: Sequence[float],
    ) -> Appraisals:
        """Appraisals of consecutive bars."""
        forecasts = self._forecaster.forecast(encoded, results, opened, volatility)
        views = read_out_columns(results, self._horizon, temperature=self._temperature, cluster_ms=self._cluster_ms)
        return Appraisals.of(results, forecasts, views, self._horizon)


def _if_true(bank: MemoryBank, findings: Findings, place: int, now: int) -> Appraisal | None:
    """The appraisal of a bar that was found beforehand, if it still holds."""
    if findings.terms is None or findings.appraisals is None:
        return None
    place -= findings.first
    visible = bank.still_foreseen(findings.terms, place, as_of=now)
    return None if visible is None else findings.appraisals.appraisal(place, visible)
