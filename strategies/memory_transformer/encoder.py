"""The memory-free encoder: a causal convolution and causal sliding-window attention over blocks of bars.

A series is cut into blocks of ``config.block`` bars, and blocks into tiles. A tile attends to itself and to as many tiles
before it as the window reaches back; keys and values of those before the first are carried along in :class:`EncoderState`.
Rows that lie in the future may hold anything finite: they get exactly zero weight in every earlier row. Decisions run the same
weights bar by bar (:mod:`strategies.memory_transformer.bar_kernel`).
"""

from __future__ import annotations

from math import gcd
from typing import Final, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from strategies.memory_transformer.config import ModelConfig
from strategies.memory_transformer.dropout import Dropout
from strategies.memory_transformer.whitening import Whitening

TILE: Final = 32
"""Bars that attend together in training; states differ by rounding."""
_HIDDEN = float("-inf")


class LayerCache(NamedTuple):
    """Keys and values of one layer over the last bars, each ``[segments, heads, context, d_model / heads]``."""

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
        """Attend within every tile and to those before it.

        Args:
            hidden: ``[segments, blocks, block, d_model]``.
            previous: keys and values of the bars before the first block of every segment.
            bias: added to the scores, broadcastable to ``[segments, heads, tiles, tile, context + tile]``.

        Returns:
            The attended rows, shape of ``hidden``, and the cache of the last bars of every segment.
        """
        segments, tile = len(hidden), bias.shape[-2]
        projected = self.projection(hidden).view(segments, -1, tile, 3, self.heads, self.width)
        queries, keys, values = projected.permute(3, 0, 4, 1, 2, 5).unbind(0)
        seen, last_keys = _windows(keys, previous.keys)
        scores = (queries * self.width**-0.5).flatten(0, 2) @ seen.transpose(1, 2)
        scores = scores.view(*queries.shape[:4], -1) + bias
        told, last_values = _windows(values, previous.values)
        mixed = (torch.softmax(scores, dim=-1).flatten(0, 2) @ told).view(queries.shape)
        attended: Tensor = self.output(mixed.permute(0, 2, 3, 1, 4).reshape(hidden.shape))
        return attended, LayerCache(last_keys, last_values)


def _windows(rows: Tensor, previous: Tensor) -> tuple[Tensor, Tensor]:
    """Every tile joined to those before it, and the last rows.

    Args:
        rows: ``[segments, heads, tiles, tile, width]``.
        previous: ``[segments, heads, context, width]`` before the first of them; whole tiles.

    Returns:
        ``[segments * heads * tiles, context + tile, width]``, and the shape of ``previous``.
    """
    segments, heads, count, tile, width = rows.shape
    before = previous.shape[2] // tile
    tiles = torch.cat((previous.view(segments, heads, before, tile, width), rows), dim=2)
    joined = torch.cat([tiles[:, :, start : start + count] for start in range(before + 1)], dim=3)
    return joined.flatten(0, 2), tiles[:, :, count:].reshape(previous.shape)


class EncoderLayer(nn.Module):
    """Pre-norm transformer layer."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.d_model)
        self.attention = LocalAttention(config)
        self.feed_forward_norm = nn.LayerNorm(config.d_model)
        self.feed_forward = FeedForward(config)
        self.dropout = Dropout(config.dropout)

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
        self.dropout = Dropout(config.dropout)

    def forward(self, rows: Tensor) -> Tensor:
        """``[..., d_model]`` to ``[..., d_model]``."""
        out: Tensor = self.dropout(self.outer(self.dropout(F.gelu(self.inner(rows)))))
        return out


class Encoder(nn.Module):
    """Features of blocks of bars in, their states and keys out. The state of a bar sees no later bar.

    A key is the whitened state under a learned metric, of length one. The memory is searched by what the read compares, so
    that who is found is who would be believed.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self._tile = gcd(config.block, TILE)
        self._context = context_of(config.attention_window, self._tile)
        self.embedding = CausalConvolution(config)
        self.linear = None if config.linear_window == 0 else LinearWindow(config)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.n_layers))
        self.norm = nn.LayerNorm(config.d_model)
        self.position_bias = nn.Parameter(torch.zeros(config.n_layers, config.n_heads, config.attention_window))
        self.whitening = Whitening(config.d_model)
        self.metric = nn.Linear(config.d_model, config.d_model, bias=False)
        nn.init.eye_(self.metric.weight)

    def initial_state(self, segments: int = 1) -> EncoderState:
        """The state before the first bar of a series: zeros, which ``start`` keeps out of the attention."""
        config = self.config
        like = self.position_bias
        shape = (segments, config.n_heads, self._context, config.d_model // config.n_heads)
        return EncoderState(
            like.new_zeros(segments, config.input_window - 1, config.n_features),
            tuple(LayerCache(like.new_zeros(shape), like.new_zeros(shape)) for _ in range(config.n_layers)),
        )

    def key_of(self, whitened: Tensor) -> Tensor:
        """Keys of whitened states ``[..., d_model]``, same shape."""
        return F.normalize(self.metric(whitened), dim=-1)

    def attention_bias(self) -> Tensor:
        """See :func:`attention_bias`: ``[n_layers, heads, 1, tile, context + tile]``."""
        return attention_bias(self.position_bias, self._tile, self._context).unsqueeze(2)

    def blank_mask(self, start: Tensor) -> Tensor | None:
        """What hides rows before the start of a series, or ``None`` where nothing needs hiding.

        Args:
            start: ``[segments, blocks]`` first real row counted from the start of that block.

        Returns:
            ``[segments, 1, tiles, tile, context + tile]``, see :func:`blank_mask`.
        """
        tiles = torch.arange(0, self.config.block, self._tile)
        mask = blank_mask((start.unsqueeze(2) - tiles).flatten(1), self._tile, self._context)
        return None if mask is None else mask.unsqueeze(1)

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


def attention_bias(position_bias: Tensor, rows: int, context: int) -> Tensor:
    """Learned bias per distance, ``-inf`` outside the window: ``[..., rows, context + rows]``.

    Args:
        position_bias: ``[..., attention_window]``, of a bar itself first.
        rows: consecutive bars that attend.
        context: bars before them that they may see.
    """
    window, device = position_bias.shape[-1], position_bias.device
    places = torch.arange(rows, device=device).unsqueeze(1) + context
    distances = places - torch.arange(context + rows, device=device)
    outside = (distances < 0) | (distances >= window)
    return position_bias[..., distances.clamp(0, window - 1)].masked_fill(outside, _HIDDEN)


def blank_mask(start: Tensor, rows: int, context: int) -> Tensor | None:
    """What hides bars before the start of a series, or ``None`` where nothing needs hiding.

    Args:
        start: ``[...]`` first real row counted from the first of ``rows``; those of the context are -context to -1.
        rows: consecutive bars that attend.
        context: bars before them that they may see.

    Returns:
        ``[..., rows, context + rows]`` of zeros and ``-inf``. A row always sees itself, so that blank rows stay finite.
    """
    if bool((start <= -context).all()):
        return None
    columns = torch.arange(-context, rows)
    blank = (columns < start.unsqueeze(-1)).unsqueeze(-2) & (columns != torch.arange(rows).unsqueeze(1))
    return torch.zeros(blank.shape).masked_fill(blank, _HIDDEN)


def context_of(window: int, tile: int) -> int:
    """Bars in whole tiles before a tile that its rows see with a window of so many bars, their own included."""
    return -(-(window - 1) // tile) * tile
