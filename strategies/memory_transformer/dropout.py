"""Dropout with fewer random numbers than torch's, of which drawing a mask takes most of the time on a processor."""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_LEVELS: Final = 1 << 16
_DRAWN: Final = 4
"""Masks that one random number of 64 bits decides."""
_LOWEST: Final = -(1 << 63)


class Dropout(nn.Module):
    """As ``torch.nn.Dropout`` (Srivastava and others, "Dropout", 2014), with probabilities in steps of 2**-16.

    Args:
        probability: of a number to become zero; what stays is divided by the probability to stay.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, rows: Tensor) -> Tensor:
        """``[...]`` to ``[...]``: in evaluation mode the same."""
        if not self.training or self.probability == 0.0:
            return rows
        if rows.device.type != "cpu":
            return F.dropout(rows, self.probability)
        return rows * _kept(rows, self.probability)


def _kept(rows: Tensor, probability: float) -> Tensor:
    """Zeros, and one over the probability to stay, in the shape of ``rows``."""
    dropped = min(round(probability * _LEVELS), _LEVELS - 1)
    count = rows.numel()
    numbers = torch.empty(-(-count // _DRAWN), dtype=torch.int64).random_(_LOWEST, None)
    stays = numbers.view(torch.int16)[:count].view(rows.shape) >= dropped - _LEVELS // 2
    return stays.to(rows.dtype).mul_(_LEVELS / (_LEVELS - dropped))
