"""The benchmark harness: selection, turns, refusals, and results that are merged rather than replaced."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.harness import Benchmark, BenchmarkError, Measurement, median_ratio, merge, run, select, take_turns


def constant(name: str, value: float) -> Benchmark:
    def measure(seed: int) -> Mapping[str, Measurement]:
        return {name: Measurement(value, "bars/s", f"with seed {seed}")}

    return Benchmark((name,), 5, measure)


def refusing(name: str) -> Benchmark:
    def measure(seed: int) -> Mapping[str, Measurement]:
        raise BenchmarkError("the naive loop is too slow")

    return Benchmark((name,), 5, measure)


def silent() -> Console:
    return Console(quiet=True)


def test_every_entry_says_what_was_measured_on_which_code_by_which_command(tmp_path: Path) -> None:
    path = tmp_path / "latest.json"
    assert run([constant("speed", 12.5)], silent(), path) == 0
    (entry,) = json.loads(path.read_text()).values()
    assert set(entry) == {"value", "unit", "note", "commit", "command", "seed"}
    assert entry["value"] == 12.5
    assert entry["unit"] == "bars/s"
    assert entry["command"] == "python -m benchmarks speed"
    assert entry["seed"] == 5
    assert entry["note"].startswith("with seed 5; ")


def test_results_are_merged_so_that_one_name_can_be_measured_alone(tmp_path: Path) -> None:
    path = tmp_path / "latest.json"
    run([constant("first", 1.0), constant("second", 2.0)], silent(), path)
    run([constant("second", 3.0)], silent(), path)
    values = {name: entry["value"] for name, entry in json.loads(path.read_text()).items()}
    assert values == {"first": 1.0, "second": 3.0}
    assert [each.name for each in tmp_path.iterdir()] == ["latest.json"]


def test_a_damaged_results_file_is_left_as_it_is_and_named(tmp_path: Path) -> None:
    path = tmp_path / "latest.json"
    path.write_text("{half")
    with pytest.raises(BenchmarkError, match=r"latest\.json is not valid JSON"):
        merge(path, {"name": {"value": 1.0}})
    assert path.read_text() == "{half"


def test_a_number_that_json_cannot_hold_never_reaches_the_file(tmp_path: Path) -> None:
    path = tmp_path / "latest.json"
    merge(path, {"good": {"value": 1.0}})
    with pytest.raises(ValueError, match="JSON"):
        merge(path, {"bad": {"value": float("nan")}})
    assert list(json.loads(path.read_text())) == ["good"]


def test_a_benchmark_that_refuses_leaves_the_others_and_fails_the_run(tmp_path: Path) -> None:
    path = tmp_path / "latest.json"
    assert run([refusing("ratio"), constant("speed", 1.0)], silent(), path) == 1
    assert list(json.loads(path.read_text())) == ["speed"]


def test_names_select_the_benchmark_that_measures_them_and_no_name_selects_all() -> None:
    registry = [constant("first", 1.0), constant("second", 2.0)]
    assert select([], registry) == registry
    assert select(["second"], registry) == registry[1:]
    with pytest.raises(BenchmarkError, match="'third' is unknown; there are first, second"):
        select(["third"], registry)


def test_contestants_take_turns_and_the_first_round_does_not_count() -> None:
    order: list[str] = []

    def contestant(name: str) -> float:
        order.append(name)
        return float(len(order))

    times = take_turns({"a": lambda: contestant("a"), "b": lambda: contestant("b")}, repetitions=2)
    assert order == ["a", "b"] * 3
    assert times == {"a": [3.0, 5.0], "b": [4.0, 6.0]}


def test_a_contestant_that_keeps_no_time_is_timed_from_outside() -> None:
    def spin() -> None:
        end = time.perf_counter() + 0.002
        while time.perf_counter() < end:
            pass

    assert min(take_turns({"spin": spin}, repetitions=2)["spin"]) >= 0.002


def test_ratios_are_taken_within_a_turn_so_that_a_slow_spell_cancels() -> None:
    assert median_ratio([2.0, 20.0, 2.2], [1.0, 10.0, 1.0]) == 2.0
