"""What model and memory say of a bar: in time, or before its time where a replay has shown the bars to come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from memory_store import MemoryBank, Outlook, Proposal, SearchResult
from memory_store.helper import PromisedProposal
from memory_store.policy import Asker
from strategies.bars import Bar, interval_ms
from strategies.base import Neighbour
from strategies.memory_rules import MemoryRules
from strategies.memory_transformer.bundle import Bundle
from strategies.memory_transformer.forecaster import BarForecast, Forecaster
from strategies.memory_transformer.streaming import EncodedBar
from strategies.memory_transformer.tile_kernel import EncodedSeries
from strategies.readout import MemoryView, neighbours, read_out_all
from strategies.recorder import Recall, recall_of

_AT_ONCE: Final = 16
"""Bars whose neighbours are proposed where they are decided on, while a second process begins with those after them."""
_LATER: Final = 48
"""Bars whose neighbours are proposed by a second process at once."""


class Appraisal(NamedTuple):
    """Forecast, memory, and what they rest on."""

    visible: int
    """Entries that the bar could choose its neighbours from."""
    forecast: BarForecast
    view: MemoryView
    neighbours: tuple[Neighbour, ...]
    recall: Recall


class Prospect:
    """Consecutive bars of one symbol that are expected, with all that was found out about them before they came.

    Args:
        first_ordinal: absolute number of the first bar.
        bars: as expected.
        encoded: their states and keys.
        volatility: trailing volatility of each, per bar.
    """

    def __init__(
        self, first_ordinal: int, bars: Sequence[Bar], encoded: EncodedSeries, volatility: Sequence[float]
    ) -> None:
        self.first_ordinal = first_ordinal
        self.bars = bars
        self.encoded = encoded
        self.volatility = volatility
        self.proposal: Proposal | None = None
        self.first_proposed = 0
        """Place in ``bars`` of the first that the proposal is for."""
        self.promised: PromisedProposal | None = None
        """For the bars after those of the proposal."""
        self.first_promised = 0
        """Place in ``bars`` of the first of them."""
        self.outlook: Outlook | None = None
        self.first_row = 0
        """Place in ``bars`` of the first that the outlook answers."""
        self.appraisals: list[Appraisal] = []
        """Of the bars that the outlook answers, on the terms on which it does."""


class Appraiser:
    """Asks memory and model about bars; early or in time, the answer has the same bits.

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
        proposal, row = None, 0
        if prospect is not None:
            row = ordinal - prospect.first_ordinal
            early = self._early(bank, bar, prospect, row)
            if early is not None:
                return early
            proposal, row = prospect.proposal, row - prospect.first_proposed
        result = bank.search(
            encoded.key,
            as_of=bar.close_time,
            k=self._neighbors,
            policy=self._policy,
            asker=None if self._policy is None else Asker(bar.symbol, regime, bar.open_time),
            proposal=proposal,
            row=row,
        )
        alone = EncodedSeries(encoded.hidden[None], encoded.key[None])
        return self._appraisals(alone, (result,), (bar.open_time,), (volatility,), ordinal)[0]

    def _early(self, bank: MemoryBank, bar: Bar, prospect: Prospect, row: int) -> Appraisal | None:
        """What was found out before, if it holds."""
        if row - prospect.first_row >= len(prospect.appraisals):
            self._look_ahead(bank, prospect, row)
        if prospect.outlook is None:
            return None
        place = row - prospect.first_row
        visible = bank.still_foreseen(prospect.outlook, place, as_of=bar.close_time)
        if visible is None:
            return None
        appraisal = prospect.appraisals[place]
        return appraisal if visible == appraisal.visible else appraisal._replace(visible=visible)

    def _look_ahead(self, bank: MemoryBank, prospect: Prospect, row: int) -> None:
        """Find out as much as can be known now about the bars from this one on."""
        times = [bar.close_time for bar in prospect.bars[row:]]
        proposal = self._propose(bank, prospect, row, times[0])
        prospect.first_row, prospect.appraisals = row, []
        if self._policy is not None:
            return  # what a bar is going to prefer depends on more than its key
        prospect.outlook = bank.look_ahead(proposal, row - prospect.first_proposed, times)
        if prospect.outlook is not None:
            results = prospect.outlook.results
            part = slice(row, row + len(results))
            encoded = EncodedSeries(prospect.encoded.hidden[part], prospect.encoded.keys[part])
            opened = [bar.open_time for bar in prospect.bars[part]]
            volatility = prospect.volatility[part]
            prospect.appraisals = self._appraisals(encoded, results, opened, volatility, prospect.first_ordinal + row)

    def _propose(self, bank: MemoryBank, prospect: Prospect, row: int, now: int) -> Proposal:
        """The proposal for some bars from this one on; where there is help, that for the bars after them is in the making."""
        proposal, keys = prospect.proposal, prospect.encoded.keys
        if proposal is not None and row - prospect.first_proposed < len(proposal.queries):
            return proposal
        first, size = row, _AT_ONCE if bank.has_help else len(keys)
        ready = None if prospect.promised is None else prospect.promised.result()
        if ready is not None and row - prospect.first_promised < len(ready.queries):
            first, size = prospect.first_promised, len(ready.queries)
        else:
            ready = None
        end = first + size
        wanted = {"as_of": now, "k": self._neighbors, "skip_oldest": self._skip_oldest}
        # Before the work here begins, so that both are done at the same time.
        prospect.promised = bank.propose_later(keys[end : end + _LATER], **wanted) if end < len(keys) else None
        prospect.first_promised, prospect.first_proposed = end, first
        prospect.proposal = bank.propose(keys[first:end], **wanted) if ready is None else ready
        return prospect.proposal

    def _appraisals(
        self,
        encoded: EncodedSeries,
        results: Sequence[SearchResult],
        opened: Sequence[int],
        volatility: Sequence[float],
        ordinal: int,
    ) -> list[Appraisal]:
        """Appraisals of consecutive bars."""
        forecasts = self._forecaster.forecast(encoded, results, opened, volatility, ordinal)
        views = read_out_all(results, self._horizon, temperature=self._temperature, cluster_ms=self._cluster_ms)
        return [
            Appraisal(
                result.visible,
                forecast,
                view,
                neighbours(result, view, self._horizon, forecast.weights),
                recall_of(result, view.weights),
            )
            for result, forecast, view in zip(results, forecasts, views, strict=True)
        ]
