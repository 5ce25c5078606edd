"""Trained once, used by many tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from strategies.memory_transformer.bundle import Bundle, load_bundle, save_bundle
from strategies.memory_transformer.training import TrainedModel
from tests.strategies.memory_transformer.tiny import tiny_training


@pytest.fixture(scope="session")
def trained() -> TrainedModel:
    return tiny_training()


@pytest.fixture(scope="session")
def bundle(trained: TrainedModel, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    root: Path = tmp_path_factory.mktemp("models")
    return load_bundle(root / save_bundle(root, trained))
