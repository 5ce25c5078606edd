"""From the configuration to a training: the shape of the model, and how it is trained."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from bot.config import Config
from memory_store.policy import Scope

if TYPE_CHECKING:
    from strategies.memory_transformer.config import ModelConfig
    from strategies.memory_transformer.training import TrainingConfig


def model_config(config: Config) -> ModelConfig:
    """Shape of the model that the configuration asks for.

    Raises:
        ModelConfigError: two of its values contradict each other.
    """
    # Imported here, as below, because torch takes seconds to load and most commands do without.
    from strategies.features import FEATURE_NAMES
    from strategies.memory_transformer.config import ModelConfig, OutputType

    architecture = config.model.model_dump(exclude={"id", "output_type", "whitening", "in_sample"})
    return ModelConfig(
        n_features=len(FEATURE_NAMES),
        **architecture,
        output_type=OutputType(config.model.output_type),
        n_neighbors=config.memory.n_neighbors,
        # A memory of one moment never has a visible one: the same net and parameters, and nothing to remember.
        memory_size=config.memory.memory_size if config.memory.enabled else 1,
        scope=Scope.SAME if config.memory.scope is Scope.SAME else Scope.ALL,
        horizons=config.memory.horizons,
        primary=config.primary_index,
        embargo=config.memory.embargo,
    )


def training_config(config: Config, *, threads: int) -> TrainingConfig:
    """How the configuration wants models trained.

    Args:
        config: see ``training``, ``model.whitening`` and ``costs.taker_fee``.
        threads: of torch.
    """
    from strategies.memory_transformer.training import TrainingConfig

    settings = config.training
    return replace(
        TrainingConfig(),
        epochs=settings.epochs,
        read_epochs=settings.read_epochs,
        linear_start=settings.linear_start,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        validation_fraction=settings.validation_fraction,
        key_loss=settings.key_loss,
        key_pace=settings.key_pace,
        averaging=settings.averaging,
        mirrored=settings.mirrored,
        precision=settings.precision,
        device=settings.device,
        memory_dropout=settings.memory_dropout,
        patience=settings.patience,
        seed=settings.seed,
        whitening=config.model.shrinkage,
        cost=float(config.costs.taker_fee),
        threads=threads,
    )
