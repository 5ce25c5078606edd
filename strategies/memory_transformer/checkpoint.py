"""Where a training stands after an epoch, on disk, so that an interrupted one ends with the very weights of one that was not.

One safetensors file holds all tensors, with the rest as JSON in its header. There is no pickle.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import safetensors
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from strategies.bars import BarSeries
from strategies.memory_transformer.config import ModelConfig
from strategies.memory_transformer.training_config import TrainingConfig

_FORMAT: Final = 1
_HEADER: Final = "training"


class Checkpoint:
    """The file of one training, named by what it trains on and how; another training never reads it.

    Args:
        folder: made when it is first written to.
        series: bars of every symbol.
        config: shape of the model.
        training: how it is trained.
    """

    def __init__(
        self, folder: Path, series: Mapping[str, BarSeries], config: ModelConfig, training: TrainingConfig
    ) -> None:
        identity = {
            "format": _FORMAT,
            "torch": torch.__version__,
            "bars": {symbol: bars.digest() for symbol, bars in series.items()},
            "model": config.as_dict(),
            "training": asdict(training),
        }
        name = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
        self.path = folder / f"{name}.safetensors"

    def write(self, tensors: Mapping[str, Tensor], rest: Mapping[str, Any]) -> None:
        """Replace what is there, at once.

        Args:
            tensors: on the CPU.
            rest: JSON values; infinities and nan are kept.

        Raises:
            OSError: the disk refuses.
        """
        content = safetensors.torch.save(
            {name: value.contiguous() for name, value in tensors.items()}, {_HEADER: json.dumps(rest)}
        )
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{self.path.name}.", dir=self.path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(self.path)
        finally:
            Path(temporary).unlink(missing_ok=True)

    def read(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """What was written last; ``None`` where there is nothing, or nothing whole: then training begins anew."""
        try:
            content = self.path.read_bytes()
            with safetensors.safe_open(self.path, framework="pt") as file:
                header = file.metadata()
            return safetensors.torch.load(content), json.loads(header[_HEADER])
        except (OSError, SafetensorError, KeyError, ValueError, TypeError):
            return None

    def remove(self) -> None:
        """Forget it, when the training is done."""
        self.path.unlink(missing_ok=True)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What an optimiser has gathered, by name, on the CPU."""
    state: Mapping[int, Mapping[str, Tensor]] = optimizer.state_dict()["state"]
    return {
        f"{number}.{name}": value.detach().cpu().clone()
        for number, values in state.items()
        for name, value in values.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give back what :func:`optimizer_tensors` took."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, _, name = key.partition(".")
        state.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
