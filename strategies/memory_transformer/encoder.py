"""The memory-free encoder: a causal convolution and causal sliding-window attention over blocks of bars.

A series is cut into blocks of ``config.block`` bars. A block attends to itself and to the block before it, whose keys and
values are carried along in :class:`EncoderState`. Rows of a block that lie in the future may hold anything finite: they
get exactly zero weight in every earlier row.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from strategies.memory_transformer.config import ModelConfig
from strategies.memory_transformer.whitening import Whitening

_HIDDEN = float("-inf")


class LayerCache(NamedTuple):
    """Keys and values of one layer over one block, each ``[segments, heads, block, d_model / heads]``."""

    keys: Tensor
    values: Tensor


class EncoderState(NamedTuple):
    """What a block needs from the block before it."""

    tail: Tensor
    """Last input rows that are still looked back to, ``[segments, input_window - 1, n_features]``."""
    layers: tuple[LayerCache, ...]


class Encoding(NamedTuple):
    """States of the bars of consecutive blocks."""

    hidden: Tensor
    """``[segments, blocks, block, d_model]``."""
    keys: Tensor
    """Of length one, shape of ``hidden``."""
    state: EncoderState
    """What the block after the last one needs."""


class CausalConvolution(nn.Module):
    """One-dimensional convolution over time that looks back only; the token embedding of a bar."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(config.n_features, config.d_model, config.kernel_size)
        self.norm = nn.LayerNorm(config.d_model)

    def forward(self, rows: Tensor) -> Tensor:
        """``[n, kernel_size - 1 + block, n_features]`` to ``[n, block, d_model]``."""
        embedded: Tensor = self.norm(self.convolution(rows.transpose(1, 2)).transpose(1, 2))
        return embedded


class LinearWindow(nn.Module):
    """A linear map of the last rows of features, which no norm takes the size from.

    It starts from random directions of the rows' running sums: features tell changes, and where changes have led to is what
    makes two windows look alike.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(config.n_features, config.d_model, config.linear_window, bias=False)
        with torch.no_grad():
            weight = torch.randn_like(self.convolution.weight).cumsum(dim=2)
            self.convolution.weight.copy_(weight / weight[0].numel())

    def forward(self, rows: Tensor) -> Tensor:
        """``[n, linear_window - 1 + block, n_features]`` to ``[n, block, d_model]``."""
        mapped: Tensor = self.convolution(rows.transpose(1, 2)).transpose(1, 2)
        return mapped


class LocalAttention(nn.Module):
    """Multi-head attention over the last ``attention_window`` bars with a learned bias per head and distance."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = config.n_heads
        self.width = config.d_model // config.n_heads
        self.projection = nn.Linear(config.d_model, 3 * config.d_model)
        self.output = nn.Linear(config.d_model, config.d_model)

    def forward(self, hidden: Tensor, previous: LayerCache, bias: Tensor) -> tuple[Tensor, LayerCache]:
        """Attend within every block and to the block before it.

        Args:
            hidden: ``[segments, blocks, block, d_model]``.
            previous: keys and values of the block before the first one of every segment.
            bias: added to the scores, broadcastable to ``[segments * blocks, heads, block, 2 * block]``.

        Returns:
            The attended rows, shape of ``hidden``, and the cache of the last block of every segment.
        """
        segments, blocks, block, d_model = hidden.shape
        projected = self.projection(hidden).view(segments, blocks, block, 3, self.heads, self.width)
        queries, keys, values = projected.permute(3, 0, 1, 4, 2, 5).unbind(0)
        scores = queries.reshape(-1, block, self.width) @ _with_previous(keys, previous.keys).transpose(1, 2)
        scores = (scores * self.width**-0.5).view(segments * blocks, self.heads, block, 2 * block) + bias
        weights = torch.softmax(scores, dim=-1).view(-1, block, 2 * block)
        mixed = weights @ _with_previous(values, previous.values)
        mixed = mixed.view(segments, blocks, self.heads, block, self.width).transpose(2, 3)
        attended: Tensor = self.output(mixed.reshape(segments, blocks, block, d_model))
        return attended, LayerCache(keys[:, -1], values[:, -1])


def _with_previous(rows: Tensor, previous: Tensor) -> Tensor:
    """Every block joined to the one before it: ``[s, c, h, b, w]`` to ``[s * c * h, 2 * b, w]``."""
    earlier = torch.cat((previous.unsqueeze(1), rows[:, :-1]), dim=1)
    return torch.cat((earlier, rows), dim=3).flatten(0, 2)


class EncoderLayer(nn.Module):
    """Pre-norm transformer layer."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.d_model)
        self.attention = LocalAttention(config)
        self.feed_forward_norm = nn.LayerNorm(config.d_model)
        self.feed_forward = FeedForward(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, hidden: Tensor, previous: LayerCache, bias: Tensor) -> tuple[Tensor, LayerCache]:
        """One layer over ``[segments, blocks, block, d_model]``; see :class:`LocalAttention`."""
        attended, cache = self.attention(self.attention_norm(hidden), previous, bias)
        hidden = hidden + self.dropout(attended)
        return hidden + self.feed_forward(self.feed_forward_norm(hidden)), cache


class FeedForward(nn.Module):
    """Two linear layers with a GELU between them, row by row."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.inner = nn.Linear(config.d_model, config.d_ff)
        self.outer = nn.Linear(config.d_ff, config.d_model)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, rows: Tensor) -> Tensor:
        """``[..., d_model]`` to ``[..., d_model]``."""
        out: Tensor = self.dropout(self.outer(self.dropout(F.gelu(self.inner(rows)))))
        return out


class Encoder(nn.Module):
    """Features of blocks of bars in, their states and keys out. The state of a bar sees no later bar.

    A key is the whitened state under a learned metric, of length one. The memory is searched by what the read compares, so
    that who is found is who would be believed.
    """

    distances: Tensor
    outside: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = CausalConvolution(config)
        self.linear = None if config.linear_window == 0 else LinearWindow(config)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.n_layers))
        self.norm = nn.LayerNorm(config.d_model)
        self.position_bias = nn.Parameter(torch.zeros(config.n_layers, config.n_heads, config.attention_window))
        self.whitening = Whitening(config.d_model)
        self.metric = nn.Linear(config.d_model, config.d_model, bias=False)
        nn.init.eye_(self.metric.weight)
        rows = torch.arange(config.block).unsqueeze(1)
        columns = torch.arange(2 * config.block).unsqueeze(0)
        distances = rows + config.block - columns
        inside = (distances >= 0) & (distances < config.attention_window)
        self.register_buffer("distances", distances.clamp(0, config.attention_window - 1), persistent=False)
        self.register_buffer("outside", ~inside, persistent=False)

    def initial_state(self, segments: int = 1) -> EncoderState:
        """The state before the first bar of a series: zeros, which ``start`` keeps out of the attention."""
        config = self.config
        like = self.position_bias
        shape = (segments, config.n_heads, config.block, config.d_model // config.n_heads)
        return EncoderState(
            like.new_zeros(segments, config.input_window - 1, config.n_features),
            tuple(LayerCache(like.new_zeros(shape), like.new_zeros(shape)) for _ in range(config.n_layers)),
        )

    def key_of(self, whitened: Tensor) -> Tensor:
        """Keys of whitened states ``[..., d_model]``, same shape."""
        return F.normalize(self.metric(whitened), dim=-1)

    def attention_bias(self) -> Tensor:
        """Learned bias per distance, ``-inf`` outside the window: ``[n_layers, heads, block, 2 * block]``."""
        return self.position_bias[:, :, self.distances].masked_fill(self.outside, _HIDDEN)

    def blank_mask(self, start: Tensor) -> Tensor | None:
        """What hides rows before the start of a series, or ``None`` where nothing needs hiding.

        Args:
            start: ``[segments, blocks]`` first real row counted from the start of that block; the rows of the block
                before it are -block to -1.

        Returns:
            ``[segments * blocks, 1, block, 2 * block]`` of zeros and ``-inf``. A row always sees itself, so that blank
            rows stay finite.
        """
        block = self.config.block
        if bool((start <= -block).all()):
            return None
        columns = torch.arange(-block, block)
        blank = (columns < start.reshape(-1, 1)).unsqueeze(1) & (columns != torch.arange(block).unsqueeze(1))
        return torch.zeros(blank.shape).masked_fill(blank, _HIDDEN).unsqueeze(1)

    def forward(
        self, features: Tensor, state: EncoderState, *, bias: Tensor | None = None, blank: Tensor | None = None
    ) -> Encoding:
        """Encode consecutive blocks of one or several segments of bars.

        Args:
            features: ``[segments, blocks, block, n_features]``, scaled; blocks of a segment follow each other in time.
            state: what came before the first block of every segment.
            bias: :meth:`attention_bias`, where the caller keeps it.
            blank: :meth:`blank_mask` of rows before the start of the series.
        """
        if bias is None:
            bias = self.attention_bias()
        edge = features.shape[2] - (self.config.input_window - 1)
        before = torch.cat((state.tail.unsqueeze(1), features[:, :-1, edge:]), dim=1)
        rows = torch.cat((before, features), dim=2).flatten(0, 1)
        near = rows[:, self.config.input_window - self.config.kernel_size :]
        hidden: Tensor = self.embedding(near).view(*features.shape[:3], -1)
        caches = []
        for number, layer in enumerate(self.layers):
            layer_bias = bias[number] if blank is None else bias[number] + blank
            hidden, cache = layer(hidden, state.layers[number], layer_bias)
            caches.append(cache)
        hidden = self.norm(hidden)
        if self.linear is not None:
            far = rows[:, self.config.input_window - self.config.linear_window :]
            hidden = hidden + self.linear(far).view_as(hidden)
        return Encoding(
            hidden, self.key_of(self.whitening(hidden)), EncoderState(features[:, -1, edge:], tuple(caches))
        )
