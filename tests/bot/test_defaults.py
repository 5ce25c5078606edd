"""A default lives in one place: what the configuration says is what the parts say by themselves."""

from __future__ import annotations

from dataclasses import fields

from bot.execution.fills import Costs, FillRules
from bot.risk import RiskLimits
from bot.settings import (
    CostsSection,
    FillsSection,
    MemorySection,
    ModelSection,
    RiskSection,
    SignalSection,
    TrainingSection,
)
from strategies.features import FEATURE_NAMES
from strategies.memory_rules import MemoryRules
from strategies.memory_transformer.config import ModelConfig
from strategies.memory_transformer.settings import MemoryTransformerSettings
from strategies.memory_transformer.training import TrainingConfig
from strategies.similarity import SimilaritySettings


def shared_defaults(section: object, part: object) -> dict[str, tuple[object, object]]:
    """Values of all names that a section of the configuration and a part both have."""
    names = [name for name in type(section).model_fields if hasattr(part, name)]
    return {name: (getattr(section, name), getattr(part, name)) for name in names}


def test_every_default_of_the_configuration_is_the_default_of_the_part_that_it_configures():
    memory, signal = MemorySection(), SignalSection()
    model = ModelConfig(n_features=len(FEATURE_NAMES))
    pairs = {
        "model": shared_defaults(ModelSection(), model),
        "training": shared_defaults(TrainingSection(), TrainingConfig()),
        "memory of the model": shared_defaults(memory, model) | {"primary": (memory.primary, model.primary_horizon)},
        "similarity": shared_defaults(memory, SimilaritySettings()) | shared_defaults(signal, SimilaritySettings()),
        "rules of the memory": shared_defaults(memory, MemoryRules()),
        "temperature": {"vote": (signal.read_temperature, SimilaritySettings().temperature)},
        "memory_transformer": shared_defaults(signal, MemoryTransformerSettings()),
        "risk": shared_defaults(RiskSection(), RiskLimits()),
        "costs": shared_defaults(CostsSection(), Costs()),
        "fills": shared_defaults(FillsSection(), FillRules()),
    }
    # The capacity is the user's choice: the similarity strategy by itself is content with less.
    pairs["similarity"].pop("memory_size")
    different = {
        f"{part}: {name}": values
        for part, names in pairs.items()
        for name, values in names.items()
        if values[0] != values[1]
    }
    assert not different
    assert all(len(names) > 0 for names in pairs.values())
    assert len(pairs["rules of the memory"]) == len(fields(MemoryRules))
