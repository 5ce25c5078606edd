"""The memory transformer: encoder, memory read, feed-forward, heads."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from strategies.memory_transformer.config import ModelConfig, OutputType
from strategies.memory_transformer.distribution import Distribution, DistributionHead
from strategies.memory_transformer.encoder import Encoder, FeedForward
from strategies.memory_transformer.memory_read import MemoryRead, Retrieved
from strategies.memory_transformer.outcome_read import Remembered


class Outlook(NamedTuple):
    """What all heads say from the states of a batch of bars."""

    prediction: Tensor
    """``[batch, config.output_width]``: a scaled return, or one per horizon; three logits (down, flat, up); or a position."""
    distribution: Distribution
    """Of returns and volatilities over all horizons."""


class Forecast(NamedTuple):
    """What the model makes of a batch of bars."""

    prediction: Tensor
    """See :class:`Outlook`."""
    distribution: Distribution
    weights: Tensor
    """``[batch, k]`` share of every neighbour in the memory's vote; what is missing to one went to the null entry."""
    gate: Tensor
    """``[batch]`` share of the memory in the mixture, in [0, 1]."""


class MemoryTransformer(nn.Module):
    """A causal transformer whose bars consult a memory of earlier bars.

    All attention over time is in :attr:`encoder`, which knows no memory: the key of a bar is one function, whether it is
    written or asked with. The memory enters afterwards, bar by bar.
    """

    key_head: Tensor | None

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.memory_read = MemoryRead(config)
        self.feed_forward_norm = nn.LayerNorm(config.d_model)
        self.feed_forward = FeedForward(config)
        self.head_norm = nn.LayerNorm(config.d_model)
        self.head = nn.Linear(config.d_model, config.output_width)
        self.linear_head = None
        # Nothing, or fitted in closed form (:mod:`linear_start`): a state tells how far the window went, its key, of length
        # one, only which shape it has.
        self.register_buffer(
            "key_head", torch.zeros(config.output_width, config.d_model) if config.linear_window else None
        )
        if config.linear_window:
            self.linear_head = nn.Linear(config.d_model, config.output_width, bias=False)
            nn.init.zeros_(self.linear_head.weight)
        self.distribution = DistributionHead(config)

    def forward(
        self, hidden: Tensor, query: Tensor, retrieved: Retrieved, *, force_gate: float | None = None
    ) -> Forecast:
        """Forecast from states, with the memory.

        Args:
            hidden: ``[batch, d_model]`` states of the bars.
            query: ``[batch, d_model]`` keys of the bars.
            retrieved: their neighbours; an empty memory is a mask that is false everywhere.
            force_gate: use this gate instead of the learned one; 0 gives exactly the model without memory.
        """
        reading = self.memory_read(hidden, query, retrieved, force_gate)
        outlook = self._with(self._outlook(reading.hidden, query), reading.remembered)
        return Forecast(*self._finished(outlook), reading.weights, reading.gate)

    def without_memory(self, hidden: Tensor, query: Tensor) -> Outlook:
        """What the heads say from states and keys ``[batch, d_model]`` as they are."""
        return self._finished(self._outlook(hidden, query))

    def _outlook(self, hidden: Tensor, query: Tensor) -> Outlook:
        """What comes out of the heads, the position not yet bounded."""
        rows = self.head_norm(hidden + self.feed_forward(self.feed_forward_norm(hidden)))
        prediction: Tensor = self.head(rows)
        if self.linear_head is not None:
            prediction = prediction + self.linear_head(hidden)
        if self.key_head is not None:
            # Detached: keys are made for who is found by them.
            prediction = prediction + F.linear(query.detach(), self.key_head)
        return Outlook(prediction, self.distribution(rows))

    def _with(self, outlook: Outlook, remembered: Remembered) -> Outlook:
        """The same, moved by what followed the neighbours."""
        move = remembered.returns
        if self.config.output_type is not OutputType.PATH:
            move = move.narrow(1, self.config.primary, 1)
        if self.config.output_type is OutputType.DIRECTION:
            move = torch.cat((-move, torch.zeros_like(move), move), dim=1)
        quantiles, log_volatility = outlook.distribution
        moved = Distribution(quantiles + remembered.returns.unsqueeze(2), log_volatility + remembered.log_volatility)
        return Outlook(outlook.prediction + move, moved)

    def _finished(self, outlook: Outlook) -> Outlook:
        """A position bounded by 1; everything else as it is."""
        if self.config.output_type is OutputType.PORTFOLIO:
            return outlook._replace(prediction=torch.tanh(outlook.prediction))
        return outlook
