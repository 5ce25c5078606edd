"""What model and memory say of a bar: in time, or before its time where a replay has shown the bars to come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypedDict

from memory_store import ComingProposal, MemoryBank, Proposal, SearchResults
from memory_store.policy import Asker
from strategies.bars import Bar, interval_ms
from strategies.memory_rules import MemoryRules
from strategies.memory_transformer.bar_kernel import EncodedSeries
from strategies.memory_transformer.bundle import Bundle
from strategies.memory_transformer.forecaster import Forecaster
from strategies.memory_transformer.prospect import Appraisal, Block, Findings, Prospect, appraisals_of
from strategies.memory_transformer.streaming import EncodedBar
from strategies.readout import compile_read_out, read_out_columns

_AT_ONCE: Final = 48
"""Bars answered together at most, as far as no outcome is missing that they may see."""
_BLOCK: Final = 144
"""Bars whose neighbours a second thread proposes together: the more, the cheaper. Bars encoded together are whole blocks."""
_AHEAD: Final = 2 * _BLOCK
"""Bars to come up to which it does."""


class _Wanted(TypedDict):
    """Of every proposal; see ``MemoryBank.propose``."""

    as_of: int
    k: int
    skip_oldest: int


class Appraiser:
    """Asks memory and model about bars; early or in time, in one thread or two, the answer has the same bits.

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
        self._symbols = symbols
        self._alone_at_once = config.block
        compile_read_out()

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
            findings = prospect.findings
            if row >= findings.end:
                findings = prospect.findings = self._find(bank, prospect, row, bar.close_time)
            early = _if_true(bank, findings, row, bar.close_time)
            if early is not None:
                return early
            block = self._proposed(bank, prospect, row, bar.close_time)
            proposal, place = self._proposal(bank, block, bar.close_time), row - block.row
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
        return appraisals[0].seeing(result.visible)

    def _find(self, bank: MemoryBank, prospect: Prospect, row: int, now: int) -> Findings:
        """What can be known now of a bar that comes now, and of those after it."""
        block = self._proposed(bank, prospect, row, now)
        if self._policy is not None:
            return Findings(row)  # what a bar is going to prefer depends on more than its key
        place, rows = row - block.row, slice(row, min(row + _AT_ONCE, block.end))
        bars, volatility = prospect.bars[rows], prospect.volatility[rows]
        outlook = bank.look_ahead(self._proposal(bank, block, now), place, [bar.close_time for bar in bars])
        if outlook is None:
            return Findings(row)
        count = len(outlook.results)
        part, opened = slice(place, place + count), [bar.open_time for bar in bars[:count]]
        encoded = EncodedSeries(block.encoded.hidden[part], block.encoded.keys[part])
        return Findings(row, outlook.terms, self._appraisals(encoded, outlook.results, opened, volatility[:count]))

    def _proposed(self, bank: MemoryBank, prospect: Prospect, row: int, now: int) -> Block:
        """The block of a bar. A second thread begins with those that come after it."""
        has_help = self._is_helped(bank)
        block, size = prospect.block(row), _BLOCK if has_help else self._alone_at_once
        if block is None:
            block = prospect.cut(size, row)
            assert block is not None, "a bar of a prospect is in one of its blocks"
        while has_help and (later := prospect.cut(size, row + _AHEAD)) is not None:
            later.proposal = bank.begin_proposal(later.encoded.keys, **self._wanted(bank, now))
        return block

    def _proposal(self, bank: MemoryBank, block: Block, now: int) -> Proposal:
        """That of a block, made now if it was not begun in time."""
        if isinstance(block.proposal, ComingProposal):
            block.proposal = bank.proposal_of(block.proposal)
        if block.proposal is None:
            block.proposal = bank.propose(block.encoded.keys, **self._wanted(bank, now))
        return block.proposal

    def _wanted(self, bank: MemoryBank, now: int) -> _Wanted:
        # A block is proposed up to so many bars before it begins, and serves until it ends.
        bars = _AHEAD + _BLOCK if self._is_helped(bank) else self._alone_at_once
        return _Wanted(as_of=now, k=self._neighbors, skip_oldest=bars * self._symbols)

    def _is_helped(self, bank: MemoryBank) -> bool:
        """Whether a second thread works ahead, and not of so many symbols that hardly anything is sure to stay until then."""
        return bank.second_thread is not None and (_AHEAD + _BLOCK) * self._symbols <= bank.config.capacity // 4

    def _appraisals(
        self,
        encoded: EncodedSeries,
        results: SearchResults,
        opened: Sequence[int],
        volatility: Sequence[float],
    ) -> list[Appraisal]:
        """Appraisals of consecutive bars."""
        forecasts = self._forecaster.forecast(encoded, results, opened, volatility)
        views = read_out_columns(results, self._horizon, temperature=self._temperature, cluster_ms=self._cluster_ms)
        return appraisals_of(results, forecasts, views, self._horizon)


def _if_true(bank: MemoryBank, findings: Findings, row: int, now: int) -> Appraisal | None:
    """The appraisal of a bar that was found beforehand, if it still holds."""
    if findings.terms is None:
        return None
    place = row - findings.row
    visible = bank.still_foreseen(findings.terms, place, as_of=now)
    return None if visible is None else findings.appraisals[place].seeing(visible)
