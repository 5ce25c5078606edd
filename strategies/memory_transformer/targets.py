"""What the heads are trained towards: outcomes and volatilities of all horizons, in units of what was to be expected."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from strategies.memory_transformer.config import ModelConfig
from strategies.memory_transformer.dataset import TARGET_LIMIT, Floats, Moments
from strategies.memory_transformer.distribution import SMALLEST_RATIO


class Targets(NamedTuple):
    """Of some moments. Everything is in units of ``sigma_t * sqrt(h)``, the volatility that was to be expected."""

    primary: Tensor
    """``[n]`` return over the primary horizon."""
    volatility: Tensor
    """``[n]`` that unit for the primary horizon, a log return."""
    returns: Tensor
    """``[n, horizons]``; 0 where not known."""
    log_realised: Tensor
    """``[n, horizons]`` logarithm of realised volatility; 0 where not known."""
    known: Tensor
    """``[n, horizons]`` bool."""

    def of(self, rows: Tensor) -> Targets:
        """Those of some rows ``[m]``, in their order."""
        return Targets(*(column[rows] for column in self))

    def mirrored(self, sign: Tensor) -> Targets:
        """The same in a market that goes the other way where ``sign`` ``[n]`` is -1."""
        return self._replace(primary=self.primary * sign, returns=self.returns * sign.unsqueeze(1))

    def to(self, device: torch.device) -> Targets:
        """The same on another device."""
        return Targets(*(column.to(device) for column in self))


def units(volatility: Floats, config: ModelConfig) -> Floats:
    """What is to be expected over every horizon, ``[..., horizons]`` log returns: ``sigma_t * sqrt(h)``.

    Args:
        volatility: ``[...]`` that of the primary horizon.
        config: of the model.
    """
    horizons = np.array(config.horizons, dtype=np.float64)
    return volatility[..., None] * np.sqrt(horizons / config.primary_horizon)


def targets_of(moments: Moments, config: ModelConfig) -> Targets:
    """Targets of all moments of a span, in the order of the table."""
    unit = units(moments.volatility, config)
    known = ~np.isnan(moments.outcomes)
    returns = np.clip(np.where(known, moments.outcomes, 0.0) / unit, -TARGET_LIMIT, TARGET_LIMIT)
    ratio = np.clip(np.where(known, moments.realised, 1.0) / unit, SMALLEST_RATIO, TARGET_LIMIT)
    return Targets(
        torch.from_numpy(moments.target),
        torch.from_numpy(moments.volatility.astype(np.float32)),
        torch.from_numpy(returns.astype(np.float32)),
        torch.from_numpy(np.where(known, np.log(ratio), 0.0).astype(np.float32)),
        torch.from_numpy(known),
    )
