"""The notebooks of examples/ run from top to bottom, on data that the project makes itself."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

PROJECT = Path(__file__).parents[2]
NAMES = (
    "01_data_preparation",
    "02_memory_bank",
    "03_model_training",
    "04_historical_similarity",
    "05_backtesting",
)
"""The specification's five."""
FAST = ("01_data_preparation",)
REDUCED_BARS = "1500"


def read(name: str) -> nbformat.NotebookNode:
    return nbformat.read(PROJECT / "examples" / f"{name}.ipynb", as_version=4)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in FAST else [pytest.mark.slow]) for name in NAMES]
)
def test_a_notebook_runs_from_top_to_bottom(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a reduced size, without stored candles."""
    monkeypatch.setenv("RECALL_EXAMPLE_BARS", REDUCED_BARS)
    monkeypatch.setenv("RECALL_STORAGE__DATA_DIR", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    notebook = read(name)
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(PROJECT / "examples")}})
    client.execute()
    said = [output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any(f"{int(REDUCED_BARS):,} bars of a synthetic market" in text for text in said)


@pytest.mark.parametrize("name", NAMES)
def test_a_stored_notebook_shows_its_plots_and_stays_small(name: str) -> None:
    """So that it can be read where it is not run; and nothing in it tells of the machine that ran it."""
    path = PROJECT / "examples" / f"{name}.ipynb"
    text = path.read_text(encoding="utf-8")
    assert path.stat().st_size < 256_000
    assert "image/png" in text
    outputs = [output for cell in read(name).cells for output in cell.get("outputs", [])]
    assert all(output["output_type"] in ("stream", "display_data", "execute_result") for output in outputs)
    words = re.sub(r'"image/png": "[^"]*"', "", text)
    assert not re.search(r"/(home|root|tmp|work|Users)/", words)


def test_the_folder_holds_these_notebooks_and_no_others() -> None:
    """And README.md and the documents name the folder."""
    assert sorted(path.stem for path in (PROJECT / "examples").glob("*.ipynb")) == sorted(NAMES)


def test_stored_candles_are_taken_where_there_are_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """Of the folder that the settings name."""
    from examples.market import candles
    from tests.runs import make_candles

    make_candles(tmp_path, ("BTCUSDT",), 300)
    monkeypatch.setenv("RECALL_STORAGE__DATA_DIR", str(tmp_path))
    monkeypatch.delenv("RECALL_EXAMPLE_BARS", raising=False)
    found = candles(bars=200)["BTCUSDT"]
    assert len(found) == 200 and found.first_ordinal == 100
    assert "the last 200 of 300 stored bars" in capsys.readouterr().out
    assert len(candles(bars=400)["BTCUSDT"]) == 400
    assert "synthetic" in capsys.readouterr().out
