"""What model and memory say of a bar: in time, or before its time where a replay has shown the bars to come."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

from memory_store import MemoryBank, Proposal, SearchResult
from memory_store.helper import Promise
from memory_store.policy import Asker
from strategies.bars import Bar, interval_ms
from strategies.memory_rules import MemoryRules
from strategies.memory_transformer.bundle import Bundle
from strategies.memory_transformer.byte_arithmetic import byte_arithmetic
from strategies.memory_transformer.forecaster import Forecaster
from strategies.memory_transformer.prospect import Appraisal, Appraisals, Findings, Prospect, Stretch
from strategies.memory_transformer.streaming import EncodedBar
from strategies.memory_transformer.tile_kernel import EncodedSeries
from strategies.readout import read_out_all

_STRETCHES: Final = 3
"""What can be known of the bars to come is cut into so many stretches where a second process helps: one is decided on, one
is worked on here or there, and one waits."""
_LONGEST: Final = 16
"""Bars of such a stretch at most: as many as a scan takes at once."""
_SHORTEST: Final = 4
"""And at least, as a shorter one costs as much."""
_KEPT: Final = 64
"""Proposals that a second process keeps: one for every symbol, and more."""


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
        self._temperature = self._forecaster.temperature
        self._horizon = config.primary
        # Outcomes of moments closer than this overlap, or nearly so: together they are one piece of evidence.
        self._cluster_ms = (config.primary_horizon + config.embargo) * interval_ms(bundle.interval)
        self._policy = rules.policy(temperature=self._temperature, cluster_ms=self._cluster_ms)
        self._skip_oldest = config.block * symbols
        self._alone_at_once = config.block
        self._shared_at_once = max(_SHORTEST, min(_LONGEST, config.embargo // _STRETCHES))
        self._proposed_at_once = _STRETCHES * self._shared_at_once

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
            proposal, place = prospect.proposal(stretch.block), row - stretch.block
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
        appraisals = self._appraisals(alone, (result,), (bar.open_time,), (volatility,), ordinal)
        return appraisals.appraisal(0, result.visible)

    def _found(self, bank: MemoryBank, prospect: Prospect, row: int, now: int) -> tuple[Stretch, Findings]:
        """The stretch of a bar, and what is known of it."""
        current = prospect.current
        if current is None or row >= current[0].end:
            current = prospect.current = self._next(bank, prospect, row, now)
        stretch, findings = current
        place = row - stretch.row
        proposal = prospect.proposal(stretch.block)
        if place >= findings.end and proposal is not None:
            current = prospect.current = stretch, self._answer(bank, stretch, proposal, place)
        return current

    def _next(self, bank: MemoryBank, prospect: Prospect, row: int, now: int) -> tuple[Stretch, Findings]:
        """The stretch that this bar lies in. What can be known of later ones is asked for, or found out instead of waiting."""
        coming = prospect.take(row)
        if coming is None:
            size = self._shared_at_once if bank.has_help else self._alone_at_once
            own = prospect.cut(size, max(size, self._proposed_at_once), now)
            assert own is not None, "a bar of a prospect is in one of its stretches"
            prospect.assign(own, None)
            prospect.take(row)
            coming = own, None
        self._share(bank, prospect, row, now)
        stretch, findings = coming
        if isinstance(findings, Promise):
            waiting = None if findings.is_kept else prospect.waiting()
            if waiting is not None:
                prospect.assign(waiting, self._find_here(bank, prospect, waiting))
            findings = self._kept(prospect, stretch, findings)
        if findings is None:
            findings = self._find_here(bank, prospect, stretch._replace(as_of=now))
        return stretch, findings

    def _share(self, bank: MemoryBank, prospect: Prospect, row: int, now: int) -> None:
        """Give a second process as much as it takes; the last stretch of every block is left to this one."""
        while bank.has_help and (later := self._later(bank, prospect, row, now)) is not None:
            promise = None
            if not later.ends_block:
                promise = bank.begin(partial(self._find_there, bank, {}), later)
                if promise is None:
                    return
            prospect.assign(later, promise)

    def _kept(self, prospect: Prospect, stretch: Stretch, promise: Promise) -> Findings | None:
        """What the second process found, ``None`` where it is gone."""
        findings: Findings | None = promise.result()
        if findings is not None and findings.proposal is not None:
            prospect.propose(stretch.block, findings.proposal, here=False)
        return findings

    def _later(self, bank: MemoryBank, prospect: Prospect, row: int, now: int) -> Stretch | None:
        """The next stretch that nobody works on, if all that can be known before its time is known."""
        later = prospect.cut(self._shared_at_once, self._proposed_at_once, now)
        if later is None or later.end > row + _STRETCHES * self._shared_at_once:
            return None
        return later if self._policy is not None or later.closed[-1] < bank.known_until else None

    def _find_here(self, bank: MemoryBank, prospect: Prospect, stretch: Stretch) -> Findings:
        """Find out as much as can be known now."""
        proposal = prospect.proposal(stretch.block)
        if proposal is None:
            proposal = self._propose(bank, stretch)
            prospect.propose(stretch.block, proposal, here=True)
        return self._answer(bank, stretch, proposal, 0)

    def _find_there(self, bank: MemoryBank, kept: dict[bytes, Proposal], stretch: Stretch) -> Findings:
        """The same in the second process, which keeps proposals for the stretches to come, by what they are for."""
        block = stretch.queries.tobytes()
        known = kept.get(block) if stretch.proposal is None else stretch.proposal
        proposal = self._propose(bank, stretch) if known is None else known
        kept[block] = proposal
        if len(kept) > _KEPT:
            del kept[next(iter(kept))]
        findings = self._answer(bank, stretch, proposal, 0)
        return findings if known is not None else findings._replace(proposal=proposal)

    def _propose(self, bank: MemoryBank, stretch: Stretch) -> Proposal:
        return bank.propose(
            stretch.queries,
            as_of=stretch.as_of,
            k=self._neighbors,
            skip_oldest=self._skip_oldest,
            arithmetic=byte_arithmetic(),
        )

    def _answer(self, bank: MemoryBank, stretch: Stretch, proposal: Proposal, first: int) -> Findings:
        """What can be known of a stretch from one of its bars on, by the proposal for its block."""
        if self._policy is not None:
            return Findings(None, first, None, None)  # what a bar is going to prefer depends on more than its key
        outlook = bank.look_ahead(proposal, stretch.row - stretch.block + first, stretch.closed[first:])
        if outlook is None:
            return Findings(None, first, None, None)
        part = slice(first, first + len(outlook.results))
        encoded = EncodedSeries(stretch.encoded.hidden[part], stretch.encoded.keys[part])
        opened, volatility, ordinal = stretch.opened[part], stretch.volatility[part], stretch.ordinal + first
        appraisals = self._appraisals(encoded, outlook.results, opened, volatility, ordinal)
        return Findings(None, first, outlook.terms, appraisals)

    def _appraisals(
        self,
        encoded: EncodedSeries,
        results: Sequence[SearchResult],
        opened: Sequence[int],
        volatility: Sequence[float],
        ordinal: int,
    ) -> Appraisals:
        """Appraisals of consecutive bars."""
        forecasts = self._forecaster.forecast(encoded, results, opened, volatility, ordinal)
        views = read_out_all(results, self._horizon, temperature=self._temperature, cluster_ms=self._cluster_ms)
        return Appraisals.of(results, forecasts, views, self._horizon)


def _if_true(bank: MemoryBank, findings: Findings, place: int, now: int) -> Appraisal | None:
    """The appraisal of a bar that was found beforehand, if it still holds."""
    if findings.terms is None or findings.appraisals is None:
        return None
    place -= findings.first
    visible = bank.still_foreseen(findings.terms, place, as_of=now)
    return None if visible is None else findings.appraisals.appraisal(place, visible)
