"""What the options of a sweep mean."""

from __future__ import annotations

import pytest

from backtest.sweep.space import Choices, Range, grid_of, parse_parameter, with_values
from bot.config import load_config
from bot.errors import UsageError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("signal.exits=forecast,memory", Choices("signal.exits", ("forecast", "memory"))),
        ("strategy.parameters.fast=5,10", Choices("strategy.parameters.fast", (5, 10))),
        ("strategy.parameters.fast=5:30", Range("strategy.parameters.fast", 5, 30, True, False)),
        ("signal.entry_threshold=0.1:0.5", Range("signal.entry_threshold", 0.1, 0.5, False, False)),
        ("training.learning_rate=1e-4:1e-2:log", Range("training.learning_rate", 1e-4, 1e-2, False, True)),
    ],
)
def test_lists_are_choices_and_bounds_are_ranges(text: str, expected: object) -> None:
    assert parse_parameter(text) == expected


@pytest.mark.parametrize("text", ["fast=1", "a.b", "a.b=", "a.b=5:1", "a.b=x:y", "a.b=0:1:log", "a.b=1:2:linear"])
def test_what_is_neither_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match=r"write section\.key="):
        parse_parameter(text)


def test_a_grid_is_every_combination_and_has_no_ranges() -> None:
    choices = [Choices("risk.stop_loss", (0.01, 0.02)), Choices("signal.abstain", (True, False))]
    assert len(grid_of(choices)) == 4
    with pytest.raises(UsageError, match=r"risk\.no_trade_band is a range"):
        grid_of([*choices, Range("risk.no_trade_band", 0.1, 0.2, False, False)])


def test_values_reach_the_key_that_they_are_for_and_are_checked_there() -> None:
    config = load_config(None, overrides=(), environment={})
    changed = with_values(config, {"risk.stop_loss": 0.03, "strategy.parameters.fast": 7})
    assert changed.risk.stop_loss == 0.03 and changed.strategy.parameters == {"fast": 7}
    with pytest.raises(UsageError, match=r"risk\.stop_loss"):
        with_values(config, {"risk.stop_loss": 3.0})
    with pytest.raises(UsageError, match=r"risk\.stop_los"):
        with_values(config, {"risk.stop_los": 0.1})
