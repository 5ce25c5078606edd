"""The model's configuration: what it accepts, what it says about it, and that JSON keeps it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from strategies.memory_transformer.config import ModelConfig, ModelConfigError, model_warnings
from tests.strategies.memory_transformer.tiny import TINY


def test_a_configuration_survives_json():
    config = replace(TINY, output_type="direction", temperature=0.1)
    assert ModelConfig.from_dict(json.loads(json.dumps(config.as_dict()))) == config


def test_the_defaults_are_inside_the_recommended_ranges():
    assert model_warnings(ModelConfig(n_features=17)) == ()


def test_the_temperature_of_the_specification_is_accepted_with_a_warning():
    warnings = model_warnings(ModelConfig(n_features=17, temperature=0.5))
    assert len(warnings) == 1
    assert "model.temperature = 0.5" in warnings[0]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"n_heads": 3}, "n_heads"),
        ({"attention_window": 129}, "attention_window"),
        ({"horizons": (4, 4)}, "horizons"),
        ({"horizons": ()}, "horizons"),
        ({"primary": 3}, "primary"),
        ({"temperature": 0.0}, "temperature"),
        ({"dropout": 1.0}, "dropout"),
        ({"n_neighbors": 0}, "n_neighbors"),
        ({"embargo": -1}, "embargo"),
        ({"shrinkage": 0.0}, "shrinkage"),
        ({"shrinkage": float("nan")}, "shrinkage"),
        ({"flat_threshold": 0.0}, "flat_threshold"),
    ],
)
def test_a_value_that_cannot_work_is_refused_by_name(change, named):
    with pytest.raises(ModelConfigError, match=rf"model\.{named}"):
        replace(TINY, **change)


def test_unknown_and_missing_keys_are_refused():
    with pytest.raises(ModelConfigError, match="input_dim"):
        ModelConfig.from_dict({"n_features": 3, "input_dim": 6})
    with pytest.raises(ModelConfigError, match="n_features"):
        ModelConfig.from_dict({})
    with pytest.raises(ModelConfigError, match="sideways"):
        ModelConfig.from_dict({"n_features": 3, "output_type": "sideways"})
