"""The page of results: everything that the evaluation said, and nothing that it did not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.harness import BenchmarkError
from benchmarks.results import publish

FOLDS = ("2024-01-01 to 2025-01-01", "2025-01-01 to 2026-01-01")
SYMBOLS = ("AAAUSDT", "BBBUSDT")


def figure(value: float | None) -> dict[str, Any]:
    return {"value": value, "low": None, "high": None}


def result(forecaster: str, symbol: str, fold: str, explained: float) -> dict[str, Any]:
    names = ("volatility_r2", "coverage_80", "crps", "brier", "qlike")
    account = {"gross_return": 0.1, "net_return": -0.2, "sharpe_ratio": 0.1, "max_drawdown": -0.3, "turnover": 9.0}
    return {
        "forecaster": forecaster,
        "symbol": symbol,
        "fold": fold,
        "scores": {
            "rows": 10,
            "figures": {name: figure(explained) for name in names},
            "skill": {"estimate": 0.01, "standard_error": 0.02, "statistic": 0.5, "p_value": 0.6},
        },
        "trading": None if symbol == "all" else account,
    }


def document() -> dict[str, Any]:
    results = [
        result(name, symbol, fold, 0.25)
        for name in ("har", "model", "model: shuffled outcomes")
        for symbol in (*SYMBOLS, "all")
        for fold in (*FOLDS, "all")
    ]
    outcome = {"estimate": 1.0, "standard_error": 0.5, "statistic": 2.0, "p_value": 0.045}
    return {
        "symbols": list(SYMBOLS),
        "interval": "60",
        "horizon": 24,
        "folds": [{"name": name} for name in FOLDS],
        "results": results,
        "comparisons": [
            {
                "forecaster": "model",
                "rival": "har",
                "fold": "all",
                "test": "diebold_mariano",
                "what": "volatility",
                "outcome": outcome,
            }
        ],
        "goals": {
            "model": {
                "vol_r2_minus_har": 0.041,
                "vol_r2_minus_ridge": -0.002,
                "coverage_80_min": 0.795,
                "coverage_80_max": 0.803,
            }
        },
        "leaks": {"model": {"information_coefficient": 0.3, "z": 9.0}},
        "suspicions": [],
    }


def test_the_page_says_what_was_reached_and_what_was_missed(tmp_path: Path):
    source, figures, page = tmp_path / "evaluation.json", tmp_path / "latest.json", tmp_path / "results.md"
    source.write_text(json.dumps(document()))
    publish(source, figures=figures, page=page)
    text = page.read_text()
    assert "| `vol_r2_minus_har` | +0.041 | at least +0.03 | reached |" in text
    assert "| `vol_r2_minus_ridge` | -0.002 | at least 0 | missed |" in text
    assert "| har | +0.250 | +0.250 | +0.250 | +0.250 | +0.250 |" in text
    assert "+10% / -20%" in text
    assert "**LEAK**" in text
    merged = json.loads(figures.read_text())
    assert merged["vol_r2_minus_ridge"]["value"] == -0.002
    assert merged["coverage_80_max"]["command"] == "make evaluate"


@pytest.mark.parametrize("text", ["", "[]", '{"goals": {}}'])
def test_what_is_no_evaluation_is_refused(tmp_path: Path, text: str):
    source = tmp_path / "evaluation.json"
    source.write_text(text)
    with pytest.raises(BenchmarkError, match="is not what recall evaluate --json prints"):
        publish(source, figures=tmp_path / "latest.json", page=tmp_path / "results.md")
