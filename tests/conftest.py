"""Fixtures that several parts of the suite share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bot.threads import use_one_thread

use_one_thread()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real candles: ``RECALL_TEST_DATA``, or ``shared/data`` beside the checkout; tests skip without it."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("RECALL_TEST_DATA", beside))
    if not (folder / "bybit_linear_BTCUSDT_1h.parquet").is_file():
        pytest.skip("no real candles here: set RECALL_TEST_DATA to a folder with bybit_linear_BTCUSDT_1h.parquet")
    return folder
