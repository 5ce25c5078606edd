"""The plain way to train a memory-augmented transformer: what the product's training is compared with.

Every sample is a window of its own. All its bars ask a flat FAISS index, the answers go into every layer behind a gate, and
after each step the last states of the batch are appended, for which the index is built anew. Nothing is slowed down on
purpose. It must never be used for anything else: samples retrieve themselves, and outcomes before they happen.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from benchmarks.naive import DIMENSION, NEIGHBOURS, WINDOW, EncoderLayer, Floats, RebuiltMemory, WindowModel

BATCH: Final = 64
_GRADIENT_LIMIT: Final = 1.0


class RetrievalLayer(EncoderLayer):
    """The layer of the plain design with its retrieval branch: what was found is mixed with what was attended."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Linear(DIMENSION, DIMENSION)
        self.output = nn.Linear(DIMENSION, DIMENSION)
        self.gate = nn.Linear(2 * DIMENSION, 1)
        self.after_memory = nn.LayerNorm(DIMENSION)

    def with_memory(self, x: Tensor, values: Tensor, scores: Tensor) -> Tensor:
        """States ``[batch, bars, dimension]`` with neighbours' values ``[batch, bars, k, dimension]`` and scores mixed in."""
        attended, _ = self.attention(x, x, x)
        x = self.after_attention(x + self.dropout(attended))
        found = self.output((torch.softmax(scores, dim=-1).unsqueeze(-1) * self.value(values)).sum(dim=2))
        gate = torch.sigmoid(self.gate(torch.cat((attended, found), dim=-1)))
        x = self.after_memory(x + self.dropout(gate * attended + (1.0 - gate) * found))
        return torch.as_tensor(self.after_feed_forward(x + self.feed_forward(x)))


class RetrievalModel(WindowModel):
    """The window model whose layers consult what was retrieved."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(RetrievalLayer() for _ in self.layers)

    def states(self, x: Tensor) -> Tensor:
        """States ``[batch, bars, dimension]`` without memory: what is asked with."""
        x = self.embedding_norm(self.embedding(x.transpose(1, 2)).transpose(1, 2)) + self.positions
        for layer in self.layers:
            x = layer(x)
        return x

    def forecast(self, x: Tensor, values: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Forecast ``[batch, 1]`` and last state ``[batch, dimension]`` with memory."""
        x = self.embedding_norm(self.embedding(x.transpose(1, 2)).transpose(1, 2)) + self.positions
        for layer in self.layers:
            assert isinstance(layer, RetrievalLayer)
            x = layer.with_memory(x, values, scores)
        last = x[:, -1, :]
        return self.head(last), last


class PlainTrainer:
    """Steps of the plain training, one batch each."""

    def __init__(self, memory: RebuiltMemory, seed: int) -> None:
        torch.manual_seed(seed)
        self.memory = memory
        self.model = RetrievalModel().train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3, weight_decay=0.01)

    def step(self, windows: Floats, returns: Floats) -> float:
        """Retrieve, learn and append from windows ``[batch, bars, features]`` and returns ``[batch]``; the loss."""
        x, y = torch.from_numpy(windows), torch.from_numpy(returns)
        with torch.no_grad():
            queries = self.model.states(x).reshape(-1, DIMENSION).numpy()
        scores, _, values = self.memory.search(queries)
        shape = (len(windows), WINDOW, NEIGHBOURS)
        forecast, last = self.model.forecast(
            x, torch.from_numpy(values).view(*shape, DIMENSION), torch.from_numpy(scores).view(shape)
        )
        loss = nn.functional.mse_loss(forecast.squeeze(1), y)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), _GRADIENT_LIMIT)
        self.optimizer.step()
        states = last.detach().numpy()
        self.memory.add(states, states, returns)
        return float(loss.detach())
