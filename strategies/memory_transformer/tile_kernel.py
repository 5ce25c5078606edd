"""The encoder as it decides: one tile of bars, and the keys and values that earlier bars left behind.

:class:`~strategies.memory_transformer.encoder.Encoder` is made for training: many blocks at once, with gradients. A decision
needs one bar. So here the same weights run over one tile, in as few operations as can be. What does not depend on the bars
is computed once: the scale and shift of a layer norm go into the linear map behind it, the scale of the scores into the
queries, the whitening into the metric and its mean into a shift. Both forms give the same numbers up to rounding.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from strategies.memory_transformer.config import ModelConfig
from strategies.memory_transformer.encoder import TILE, Encoder, EncoderLayer, attention_bias, blank_mask, context_of
from strategies.memory_transformer.threads import one_thread

FloatRows = npt.NDArray[np.float32]

_SHORTEST: Final = 1e-12  # length that a key is divided by at least, as in torch.nn.functional.normalize


class EncodedSeries(NamedTuple):
    """States and keys of consecutive bars, each ``[n, d_model]``."""

    hidden: FloatRows
    keys: FloatRows


class TileState(NamedTuple):
    """What a tile needs from the bars before it."""

    rows: Tensor
    """Last input rows that are still looked back to, ``[input_window - 1, n_features]``."""
    earlier: tuple[Tensor, ...]
    """Keys and values of every layer, ``[2, heads, context, d_model / heads]``."""


class _Affine(NamedTuple):
    """``rows @ matrix + bias``."""

    bias: Tensor
    """``[outputs]``."""
    matrix: Tensor
    """``[inputs, outputs]``."""

    def __call__(self, rows: Tensor) -> Tensor:
        """``[n, inputs]`` to ``[n, outputs]``."""
        return torch.addmm(self.bias, rows, self.matrix)

    @classmethod
    def of(cls, layer: nn.Linear | nn.Conv1d) -> _Affine:
        """A linear layer, or a convolution as the map of a window, features outermost."""
        matrix = layer.weight.flatten(1).t().contiguous()
        return cls(matrix.new_zeros(matrix.shape[1]) if layer.bias is None else layer.bias.clone(), matrix)

    def after(self, norm: nn.LayerNorm) -> _Affine:
        """This map of rows that a layer norm scales and shifts, as a map of rows that are only normed."""
        return _Affine(self.bias + norm.bias @ self.matrix, norm.weight.unsqueeze(1) * self.matrix)


class _Layer(NamedTuple):
    """The maps of an :class:`EncoderLayer`."""

    projection: _Affine
    output: _Affine
    inner: _Affine
    outer: _Affine
    bias: Tensor
    """Added to the scores, ``[heads, tile, context + tile]``."""

    @classmethod
    def of(cls, layer: nn.Module, bias: Tensor) -> _Layer:
        assert isinstance(layer, EncoderLayer)
        attention, feed_forward = layer.attention, layer.feed_forward
        projection = _Affine.of(attention.projection).after(layer.attention_norm)
        scale = torch.ones_like(projection.bias)
        scale[: attention.heads * attention.width] = attention.width**-0.5
        return cls(
            _Affine(projection.bias * scale, projection.matrix * scale),
            _Affine.of(attention.output),
            _Affine.of(feed_forward.inner).after(layer.feed_forward_norm),
            _Affine.of(feed_forward.outer),
            bias,
        )


class TileKernel:
    """The one function from a tile of features to states and keys; serves all symbols of a model.

    The encoder must be in evaluation mode and its weights must not change afterwards.

    Raises:
        ValueError: the encoder is in training mode.
    """

    def __init__(self, encoder: Encoder) -> None:
        if encoder.training:
            raise ValueError("the encoder is in training mode, where dropout makes keys random; call eval() first")
        self.config: ModelConfig = encoder.config
        self._context = context_of(self.config.attention_window, TILE)
        with torch.inference_mode(), one_thread():
            self._embedding = _Affine.of(encoder.embedding.convolution)
            self._embedding_norm = encoder.embedding.norm
            biases = attention_bias(encoder.position_bias, TILE, self._context)
            self._layers = [_Layer.of(layer, bias) for layer, bias in zip(encoder.layers, biases, strict=True)]
            self._norm = encoder.norm
            self._linear = None if encoder.linear is None else _Affine.of(encoder.linear.convolution)
            matrix = encoder.whitening.matrix @ encoder.metric.weight.t()
            self._key = _Affine(-encoder.whitening.mean @ matrix, matrix)

    def initial_state(self) -> TileState:
        """The state before the first bar of a series: zeros, which ``start`` keeps out of the attention."""
        config = self.config
        with torch.inference_mode():
            nothing = torch.zeros(2, config.n_heads, self._context, config.d_model // config.n_heads)
            return TileState(torch.zeros(config.input_window - 1, config.n_features), (nothing,) * config.n_layers)

    def __call__(self, features: FloatRows, start: int, state: TileState) -> tuple[EncodedSeries, TileState]:
        """Encode one tile.

        Args:
            features: ``[TILE, n_features]``, scaled; rows not yet known are zeros.
            start: first real row of the series counted from the start of this tile; negative once it lies behind.
            state: of the tile before.

        Returns:
            States and keys of all rows, and the state of this tile, which is of use only if all rows were known.
        """
        with torch.inference_mode(), one_thread():
            rows = torch.cat((state.rows, torch.from_numpy(features)))
            blank = blank_mask(torch.tensor(start), TILE, self._context) if start > -self._context else None
            hidden = _normed(self._embedding(self._windows(rows, self.config.kernel_size)), self._embedding_norm)
            caches = []
            for layer, earlier in zip(self._layers, state.earlier, strict=True):
                hidden, cache = self._attend(layer, hidden, earlier, blank)
                hidden = hidden + layer.outer(F.gelu(layer.inner(_normed(hidden))))
                caches.append(cache)
            hidden = _normed(hidden, self._norm)
            if self._linear is not None:
                hidden = hidden + self._linear(self._windows(rows, self.config.linear_window))
            keys = self._key(hidden)
            keys = keys / torch.linalg.vector_norm(keys, dim=1, keepdim=True).clamp(min=_SHORTEST)
            return EncodedSeries(hidden.numpy(), keys.numpy()), TileState(rows[TILE:], tuple(caches))

    def _attend(self, layer: _Layer, hidden: Tensor, earlier: Tensor, blank: Tensor | None) -> tuple[Tensor, Tensor]:
        """Rows ``[TILE, d_model]`` with what they attend to, and the keys and values that the next tile sees."""
        heads = self.config.n_heads
        projected = layer.projection(_normed(hidden)).view(TILE, 3, heads, -1).permute(1, 2, 0, 3)
        seen = torch.cat((earlier, projected[1:]), dim=2)
        keys, values = seen
        bias = layer.bias if blank is None else layer.bias + blank
        weights = torch.softmax(torch.baddbmm(bias, projected[0], keys.transpose(1, 2)), dim=2)
        mixed = torch.bmm(weights, values).transpose(0, 1).reshape(TILE, -1)
        return hidden + layer.output(mixed), seen[:, :, TILE:]

    def _windows(self, rows: Tensor, width: int) -> Tensor:
        """The last ``width`` input rows of every row of the tile, features outermost: ``[TILE, n_features * width]``."""
        return rows[self.config.input_window - width :].unfold(0, width, 1).reshape(TILE, -1)


def _normed(rows: Tensor, norm: nn.LayerNorm | None = None) -> Tensor:
    """Rows with mean 0 and variance 1, scaled and shifted as a layer norm does; plain where the map after it does that."""
    if norm is None:
        return F.layer_norm(rows, rows.shape[1:])
    return F.layer_norm(rows, rows.shape[1:], norm.weight, norm.bias, norm.eps)
