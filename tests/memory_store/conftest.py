"""Databases that the memory must work on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from memory_store.storage import memory_metadata


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sa.Engine]:
    """An empty database with the memory's tables, of both kinds in turn."""
    local = f"sqlite:///{tmp_path / 'memory.sqlite'}"
    url = local if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    engine = sa.create_engine(url)
    memory_metadata.create_all(engine)
    yield engine
    memory_metadata.drop_all(engine)
    engine.dispose()
