"""Every head has a loss of its own, and can learn by heart."""

from __future__ import annotations

from dataclasses import replace
from math import log

import pytest
import torch

from strategies.memory_transformer.config import OutputType
from strategies.memory_transformer.distribution import Distribution
from strategies.memory_transformer.losses import (
    RISK_AVERSION,
    direction_classes,
    forecast_loss,
    forecast_losses,
    head_loss,
    path_losses,
    signed_view,
)
from strategies.memory_transformer.memory_read import Retrieved, fact_count
from strategies.memory_transformer.model import Forecast, MemoryTransformer
from strategies.memory_transformer.targets import Targets
from strategies.readout import QUANTILES
from tests.strategies.memory_transformer.tiny import TINY

FLAT, COST = 0.25, 0.0005


def learn_by_heart(output_type: OutputType, steps: int = 400) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Train a model on 64 samples with an empty memory; its predictions, the targets, and the last loss."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MemoryTransformer(replace(TINY, output_type=output_type, dropout=0.0, d_ff=128))
        hidden, target = torch.randn(64, TINY.d_model), torch.randn(64)
        target = torch.where(target.abs() < 0.05, 0.0, target)
    width = fact_count(len(TINY.horizons))
    nothing = Retrieved(torch.zeros(64, 1, TINY.d_model), torch.zeros(64, 1, width), torch.zeros(64, 1).bool())
    volatility = torch.full((64,), 0.05)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        prediction = model(hidden, hidden, nothing).prediction
        loss = head_loss(prediction, target, volatility, output_type, flat=FLAT, cost=COST)
        loss.backward()
        optimizer.step()
    return prediction.detach(), target, float(loss.detach())


def test_the_regression_head_learns_64_returns_by_heart():
    prediction, target, loss = learn_by_heart(OutputType.REGRESSION)
    assert loss < 0.01
    assert torch.corrcoef(torch.stack((prediction[:, 0], target)))[0, 1] > 0.99


def test_the_direction_head_learns_64_directions_by_heart():
    prediction, target, loss = learn_by_heart(OutputType.DIRECTION)
    assert loss < 0.05
    assert torch.equal(prediction.argmax(dim=1), direction_classes(target, FLAT))


def test_the_portfolio_head_comes_near_the_best_utility_on_64_samples():
    prediction, target, loss = learn_by_heart(OutputType.PORTFOLIO)
    assert (prediction.abs() <= 1.0).all()
    positions = torch.linspace(-1.0, 1.0, 401)
    gains = positions * target.unsqueeze(1)
    best = (gains - 0.5 * RISK_AVERSION * gains.square() - 2.0 * COST / 0.05 * positions.abs()).amax(dim=1).mean()
    assert -loss > 0.9 * float(best)


def test_a_perfect_regression_costs_nothing_and_the_shapes_do_not_broadcast():
    target = torch.randn(7)
    loss = head_loss(target.unsqueeze(1), target, torch.ones(7), OutputType.REGRESSION, flat=FLAT, cost=COST)
    assert float(loss) == 0.0


def path_targets(returns: torch.Tensor, known: torch.Tensor) -> Targets:
    """Targets whose returns are given over all horizons."""
    ones = torch.ones(len(returns))
    return Targets(returns[:, TINY.primary], ones, returns, torch.zeros_like(returns), known)


def test_the_error_of_a_path_is_that_of_its_returns_in_one_unit_over_the_horizons_that_are_known():
    config = replace(TINY, output_type=OutputType.PATH)
    returns = torch.tensor([[1.0, -1.0, 0.5], [0.0, 2.0, 9.0]])
    known = torch.tensor([[True, True, True], [True, True, False]])
    targets = path_targets(returns, known)
    assert path_losses(returns, targets, config).tolist() == [0.0, 0.0]
    # An hour's unit is the root of an eighth of that of eight hours, so that its squared error counts an eighth.
    worse = path_losses(returns + 1.0, targets, config)
    torch.testing.assert_close(worse, torch.tensor([(1 / 8 + 4 / 8 + 1.0) / 3, (1 / 8 + 4 / 8) / 2]))


def test_the_path_head_learns_64_paths_by_heart():
    config = replace(TINY, output_type=OutputType.PATH, dropout=0.0, d_ff=128)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MemoryTransformer(config)
        hidden, returns = torch.randn(64, TINY.d_model), torch.randn(64, 3)
    targets = path_targets(returns, torch.ones(64, 3, dtype=torch.bool))
    width = fact_count(len(TINY.horizons))
    nothing = Retrieved(torch.zeros(64, 1, TINY.d_model), torch.zeros(64, 1, width), torch.zeros(64, 1).bool())
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(400):
        optimizer.zero_grad()
        loss = forecast_loss(model(hidden, hidden, nothing), targets, config, cost=COST, distribution_weight=0.0)
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.02


def test_samples_count_by_how_surely_they_are_forecast_and_no_gradient_goes_through_that():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        count = len(TINY.horizons)
        log_volatility = torch.zeros(4, count)
        log_volatility[0] = -log(2.0)
        log_volatility.requires_grad_()
        quantiles = torch.randn(4, count, len(QUANTILES)).sort(dim=2).values
        prediction = torch.randn(4, 1, requires_grad=True)
        returns, known = torch.randn(4, count), torch.ones(4, count, dtype=torch.bool)
    targets = Targets(returns[:, TINY.primary], torch.ones(4), returns, torch.randn(4, count), known)
    forecast = Forecast(prediction, Distribution(quantiles, log_volatility), torch.zeros(4, 1), torch.zeros(4))
    each = forecast_losses(forecast, targets, TINY, cost=COST)
    assert forecast_loss(forecast, targets, TINY, cost=COST) == each.mean()
    weights = torch.tensor([4.0, 1.0, 1.0, 1.0]) / 7.0
    weighed = forecast_loss(forecast, targets, TINY, cost=COST, precision=2.0)
    torch.testing.assert_close(weighed, (weights * each).sum())
    given, expected = (
        torch.autograd.grad(loss, log_volatility, retain_graph=True) for loss in (weighed, (weights * each).sum())
    )
    torch.testing.assert_close(given, expected)


def test_directions_are_down_flat_and_up():
    classes = direction_classes(torch.tensor([-1.0, -0.25, 0.0, 0.25, 0.3]), 0.25)
    assert classes.tolist() == [0, 1, 1, 1, 2]


def test_trading_costs_push_the_best_position_towards_nothing():
    target, volatility = torch.tensor([0.02]), torch.tensor([0.02])
    utility = [
        -float(head_loss(torch.tensor([[p]]), target, volatility, OutputType.PORTFOLIO, flat=FLAT, cost=0.001))
        for p in (0.0, 0.5, 1.0)
    ]
    assert utility[0] == 0.0
    assert utility[0] > utility[1] > utility[2]


@pytest.mark.parametrize(
    ("output_type", "prediction", "expected"),
    [
        (OutputType.REGRESSION, [[0.3], [-0.2]], [0.3, -0.2]),
        (OutputType.PORTFOLIO, [[0.9], [-0.1]], [0.9, -0.1]),
        (OutputType.DIRECTION, [[0.0, 0.0, 50.0], [50.0, 0.0, 0.0]], [1.0, -1.0]),
        (OutputType.PATH, [[0.1, 0.2, 0.3], [0.4, 0.5, -0.6]], [0.3, -0.6]),
    ],
)
def test_every_head_can_be_read_as_one_signed_number(output_type, prediction, expected):
    torch.testing.assert_close(
        signed_view(torch.tensor(prediction), replace(TINY, output_type=output_type)), torch.tensor(expected)
    )
