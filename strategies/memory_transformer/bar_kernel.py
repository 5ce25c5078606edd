"""The encoder as it decides: bar after bar, and what each leaves behind for those after it.

:class:`~strategies.memory_transformer.encoder.Encoder` is made for training: many blocks at once, with gradients. Here the
same weights run over one bar at a time, compiled. What does not depend on the bars is computed once: the scale and shift of a
layer norm go into the linear map behind it, the scale of the scores into the queries, the whitening into the metric and its
mean into a shift. Both forms give the same numbers up to rounding.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from strategies.memory_transformer.compiled import EncoderWeights, FloatRows, Past, encode_bars
from strategies.memory_transformer.config import ModelConfig
from strategies.memory_transformer.encoder import Encoder, EncoderLayer


class EncodedSeries(NamedTuple):
    """States and keys of consecutive bars, each ``[n, d_model]``."""

    hidden: FloatRows
    keys: FloatRows


class Map(NamedTuple):
    """``rows @ matrix + bias``, as arrays that compiled code takes."""

    matrix: FloatRows
    """``[inputs, outputs]``."""
    bias: FloatRows
    """``[outputs]``."""

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor | None = None) -> Map:
        """A linear layer's weight, ``[outputs, inputs]``."""
        matrix = array_of(weight.t())
        return cls(matrix, np.zeros(matrix.shape[1], np.float32) if bias is None else array_of(bias))

    def after(self, norm: nn.LayerNorm) -> Map:
        """This map of rows that a layer norm scales and shifts, as a map of rows that are only normed."""
        return Map(array_of(norm.weight)[:, None] * self.matrix, self.bias + array_of(norm.bias) @ self.matrix)


def array_of(tensor: Tensor) -> FloatRows:
    """An array of its own, rows one after the other."""
    return np.array(tensor.detach().cpu().numpy(), dtype=np.float32, order="C")


class BarKernel:
    """The one function from features of bars to states and keys; serves all symbols of a model.

    The encoder must be in evaluation mode; its weights are copied.

    Raises:
        ValueError: the encoder is in training mode.
    """

    def __init__(self, encoder: Encoder) -> None:
        if encoder.training:
            raise ValueError("the encoder is in training mode, where dropout makes keys random; call eval() first")
        self.config: ModelConfig = encoder.config
        with torch.no_grad():
            self._weights = _weights(encoder)
        # Compiled now, where nobody waits for a decision.
        self(self.past(1), 0, 0, np.zeros((1, self.config.n_features), dtype=np.float32))

    def past(self, room: int) -> Past:
        """Of a symbol without bars, with room for some."""
        config = self.config
        seen = config.attention_window - 1 + room
        return Past(
            np.zeros((config.input_window - 1 + room, config.n_features), dtype=np.float32),
            np.zeros((config.n_layers, config.d_model, seen), dtype=np.float32),
            np.zeros((config.n_layers, seen, config.d_model), dtype=np.float32),
        )

    def moved(self, past: Past, place: int, count: int, room: int) -> Past:
        """A past with other room, in which the bar at ``place`` is the first, and ``count`` bars are kept from it on."""
        rows = slice(place, place + self.config.input_window - 1 + count)
        seen = slice(place, place + self.config.attention_window - 1 + count)
        moved = self.past(room)
        moved.rows[: rows.stop - place] = past.rows[rows]
        moved.keys[:, :, : seen.stop - place] = past.keys[:, :, seen]
        moved.values[:, : seen.stop - place] = past.values[:, seen]
        return moved

    def __call__(self, past: Past, place: int, known: int, features: FloatRows) -> EncodedSeries:
        """Encode consecutive bars.

        Args:
            past: of their symbol, with room for them; written to from ``place`` on.
            place: of the first of them.
            known: bars of the series before it.
            features: ``[n, n_features]``, scaled.
        """
        shape = len(features), self.config.d_model
        encoded = EncodedSeries(np.empty(shape, dtype=np.float32), np.empty(shape, dtype=np.float32))
        # An array of another kind would be compiled for anew.
        rows = np.array(features, dtype=np.float32, order="C")
        encode_bars(self._weights, past, place, known, rows, *encoded)
        return encoded


def _weights(encoder: Encoder) -> EncoderWeights:
    projections, outputs, inners, outers = [], [], [], []
    for layer in encoder.layers:
        assert isinstance(layer, EncoderLayer)
        attention, feed_forward = layer.attention, layer.feed_forward
        projection = Map.of(attention.projection.weight, attention.projection.bias).after(layer.attention_norm)
        scale = np.ones_like(projection.bias)
        scale[: attention.heads * attention.width] = attention.width**-0.5
        projections.append(Map(projection.matrix * scale, projection.bias * scale))
        outputs.append(Map.of(attention.output.weight, attention.output.bias))
        inners.append(Map.of(feed_forward.inner.weight, feed_forward.inner.bias).after(layer.feed_forward_norm))
        outers.append(Map.of(feed_forward.outer.weight, feed_forward.outer.bias))
    convolution, norm = encoder.embedding.convolution, encoder.embedding.norm
    whitening = encoder.whitening.matrix @ encoder.metric.weight.t()
    linear = np.zeros((0, encoder.config.d_model), dtype=np.float32)
    if encoder.linear is not None:
        linear = Map.of(_by_time(encoder.linear.convolution)).matrix
    return EncoderWeights(
        *Map.of(_by_time(convolution), convolution.bias),
        array_of(norm.weight),
        array_of(norm.bias),
        *_stacked(projections),
        array_of(encoder.position_bias.flip(2)),
        *_stacked(outputs),
        *_stacked(inners),
        *_stacked(outers),
        array_of(encoder.norm.weight),
        array_of(encoder.norm.bias),
        linear,
        array_of(whitening),
        array_of(-encoder.whitening.mean @ whitening),
    )


def _by_time(convolution: nn.Conv1d) -> Tensor:
    """A convolution as the map of a window, bars outermost: ``[outputs, width * n_features]``."""
    return convolution.weight.transpose(1, 2).flatten(1)


def _stacked(maps: list[Map]) -> Map:
    """Maps of one shape, those of the layers."""
    matrices, biases = zip(*maps, strict=True)
    return Map(np.stack(matrices), np.stack(biases))
