"""One proper loss per head, and their sum."""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from strategies.memory_transformer.config import ModelConfig, OutputType
from strategies.memory_transformer.distribution import pinball_losses, volatility_losses
from strategies.memory_transformer.model import Forecast
from strategies.memory_transformer.targets import Targets

RISK_AVERSION: Final = 1.0
"""Price of variance in the portfolio head's utility, in units of the target's own volatility."""

_LARGEST_LOG: Final = 3.0
"""Forecasts of more or less volatility than this count as this much where samples are weighed."""


def forecast_loss(
    forecast: Forecast,
    targets: Targets,
    config: ModelConfig,
    *,
    cost: float,
    distribution_weight: float = 1.0,
    precision: float = 0.0,
) -> Tensor:
    """Mean of :func:`forecast_losses` over a batch, weighted by :func:`precision_weights`."""
    losses = forecast_losses(forecast, targets, config, cost=cost, distribution_weight=distribution_weight)
    return losses.mean() if precision == 0.0 else (precision_weights(forecast, config, precision) * losses).sum()


def precision_weights(forecast: Forecast, config: ModelConfig, precision: float) -> Tensor:
    """Shares of the bars in a mean, ``[n]``: a power of one over the volatility forecast for the primary horizon.

    No gradient goes through them, so that nothing is gained by forecasting more than will be.
    """
    expected = forecast.distribution.log_volatility[:, config.primary].detach()
    return torch.softmax(-precision * expected.clamp(-_LARGEST_LOG, _LARGEST_LOG), dim=0)


def forecast_losses(
    forecast: Forecast, targets: Targets, config: ModelConfig, *, cost: float, distribution_weight: float = 1.0
) -> Tensor:
    """Loss of every bar, ``[n]``: that of the head, and of the distribution over the horizons that are known.

    Args:
        forecast: of the bars.
        targets: of the same bars.
        config: of the model.
        cost: see :func:`head_losses`.
        distribution_weight: of the distribution's part; that of the head has weight 1.
    """
    if config.output_type is OutputType.PATH:
        head = path_losses(forecast.prediction, targets, config)
    else:
        head = head_losses(
            forecast.prediction,
            targets.primary,
            targets.volatility,
            config.output_type,
            flat=config.flat_threshold,
            cost=cost,
        )
    if distribution_weight == 0.0:
        return head
    quantiles, log_volatility = forecast.distribution
    both = pinball_losses(quantiles, targets.returns) + volatility_losses(log_volatility, targets.log_realised)
    return head + distribution_weight * _mean_of_known(both, targets)


def path_losses(prediction: Tensor, targets: Targets, config: ModelConfig) -> Tensor:
    """Mean squared error over the known horizons, ``[n]``, all in the one unit of the primary horizon's volatility.

    Args:
        prediction: ``[n, horizons]`` of the path head, every horizon in its own unit.
        targets: of the same bars.
        config: of the model.
    """
    unit = prediction.new_tensor(config.horizons) / config.primary_horizon  # square of the ratio of the units
    return _mean_of_known((prediction - targets.returns).square() * unit, targets)


def _mean_of_known(losses: Tensor, targets: Targets) -> Tensor:
    """Mean over the horizons of every bar that are known; 0 where none is."""
    known = targets.known.to(losses.dtype)
    return (losses * known).sum(dim=1) / known.sum(dim=1).clamp(min=1.0)


def head_loss(
    prediction: Tensor, target: Tensor, volatility: Tensor, output_type: OutputType, *, flat: float, cost: float
) -> Tensor:
    """Mean of :func:`head_losses` over a batch."""
    return head_losses(prediction, target, volatility, output_type, flat=flat, cost=cost).mean()


def head_losses(
    prediction: Tensor, target: Tensor, volatility: Tensor, output_type: OutputType, *, flat: float, cost: float
) -> Tensor:
    """Loss of the head for every bar, ``[n]``.

    - Regression: Huber loss, quadratic within one volatility.
    - Direction: cross-entropy over down, flat, up.
    - Path: squared error of the primary horizon; :func:`path_losses` takes all.
    - Portfolio: negative mean-variance utility net of costs. Every bar opens a position ``p`` and closes it one horizon
      later: ``p z - a/2 (p z)^2 - 2 |p| c / sigma``, in units of the target's volatility.

    Args:
        prediction: ``[n, output_width]`` from the model; of a path, ``[n, 1]``, its primary horizon.
        target: ``[n]`` outcomes in units of their volatility.
        volatility: ``[n]`` that volatility, as a log return.
        output_type: of the head.
        flat: targets smaller than this are flat.
        cost: of one trade as a share of its value.
    """
    if output_type is OutputType.REGRESSION:
        return F.huber_loss(prediction[:, 0], target, reduction="none")
    if output_type is OutputType.PATH:
        return F.mse_loss(prediction[:, 0], target, reduction="none")
    if output_type is OutputType.DIRECTION:
        return F.cross_entropy(prediction, direction_classes(target, flat), reduction="none")
    position = prediction[:, 0]
    gain = position * target
    return 0.5 * RISK_AVERSION * gain.square() + 2.0 * cost * position.abs() / volatility - gain


def direction_classes(target: Tensor, flat: float) -> Tensor:
    """``[n]`` int64: 0 down, 1 flat, 2 up."""
    return 1 + (target > flat).long() - (target < -flat).long()


def signed_view(prediction: Tensor, config: ModelConfig) -> Tensor:
    """One signed number per bar, ``[n]``, from a head's output ``[n, output_width]``.

    The scaled return of the regression head or, of the path head, that over the primary horizon; the probability of up minus
    that of down of the direction head; or the position of the portfolio head.
    """
    if config.output_type is OutputType.DIRECTION:
        probabilities = torch.softmax(prediction, dim=1)
        return probabilities[:, 2] - probabilities[:, 0]
    return prediction[:, config.primary if config.output_type is OutputType.PATH else 0]
