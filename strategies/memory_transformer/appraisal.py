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
            stretch, findings = self._found(bank, prospect, ordinal - prospect.first_ordinal, bar.close_time)
            proposal, place = findings.proposal, ordinal - stretch.ordinal
            early = _if_true(bank, findings, place, bar.close_time)
            if early is not None:
                return early
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
        if place >= findings.end:
            current = prospect.current = stretch, self._answer(bank, stretch, findings.proposal, place)
        return current

    def _next(self, bank: MemoryBank, prospect: Prospect, row: int, now: int) -> tuple[Stretch, Findings]:
        """The stretch that begins here. What can be known of later ones is asked for, or found out instead of waiting."""
        coming = prospect.take(row)
        if coming is None:
            own = prospect.cut(self._shared_at_once if bank.has_help else self._alone_at_once, now)
            assert own is not None, "a bar of a prospect is in one of its stretches"
            prospect.assign(own)
            self._share(bank, prospect, row, now)
            return own, self._find(bank, own)
        self._share(bank, prospect, row, now)
        stretch, findings = coming
        if isinstance(findings, Promise):
            if not findings.is_kept and (later := self._later(bank, prospect, row, now)) is not None:
                prospect.assign(later, self._find(bank, later))
            answer: Findings | None = findings.result()
            findings = self._find(bank, stretch._replace(as_of=now)) if answer is None else answer
        return stretch, findings

    def _share(self, bank: MemoryBank, prospect: Prospect, row: int, now: int) -> None:
        """Give a second process as much as it takes."""
        while bank.has_help and (later := self._later(bank, prospect, row, now)) is not None:
            promise = bank.begin(partial(self._find, bank), later)
            if promise is None:
                return
            prospect.assign(later, promise)

    def _later(self, bank: MemoryBank, prospect: Prospect, row: int, now: int) -> Stretch | None:
        """The next stretch that nobody works on, if all that can be known before its time is known."""
        later = prospect.cut(self._shared_at_once, now)
        if later is None or later.end > row + _STRETCHES * self._shared_at_once:
            return None
        return later if self._policy is not None or later.closed[-1] < bank.known_until else None

    def _find(self, bank: MemoryBank, stretch: Stretch) -> Findings:
        """Find out as much as can be known now."""
        keys, skipped = stretch.encoded.keys, self._skip_oldest
        proposal = bank.propose(keys, as_of=stretch.as_of, k=self._neighbors, skip_oldest=skipped)
        return self._answer(bank, stretch, proposal, 0)

    def _answer(self, bank: MemoryBank, stretch: Stretch, proposal: Proposal, first: int) -> Findings:
        """The same from one bar of the stretch on, its neighbours being proposed."""
        if self._policy is not None:
            return Findings(proposal, first, None, None)  # what a bar is going to prefer depends on more than its key
        outlook = bank.look_ahead(proposal, first, stretch.closed[first:])
        if outlook is None:
            return Findings(proposal, first, None, None)
        part = slice(first, first + len(outlook.results))
        encoded = EncodedSeries(stretch.encoded.hidden[part], stretch.encoded.keys[part])
        opened, volatility, ordinal = stretch.opened[part], stretch.volatility[part], stretch.ordinal + first
        appraisals = self._appraisals(encoded, outlook.results, opened, volatility, ordinal)
        return Findings(proposal, first, outlook.terms, appraisals)

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
