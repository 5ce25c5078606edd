"""Walks and sweeps on a real cluster of worker processes, one of which is killed: the numbers of one process."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.backtest.sweep.test_sweep import FAST, MARKET, SLOW, SPAN, tried
from tests.runs import make_candles, recall, start_recall

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A scheduler and three workers, each a process of its own."""
    distributed = pytest.importorskip("distributed", reason="no Dask here: pip install 'recall-bot[cluster]'")
    with distributed.LocalCluster(
        n_workers=3, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1"
    ) as running:
        yield running


def start(cluster: Any, folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """A command on the cluster, in a process of its own."""
    return start_recall(folder, *arguments, "--cluster", cluster.scheduler_address)


def kill_a_worker(cluster: Any, process: subprocess.Popen[bytes], folder: Path, pattern: str, count: int) -> int:
    """Kill a worker once so many results are there; returns its process id."""
    from distributed import Client

    deadline = time.monotonic() + 240
    while len(list(folder.glob(pattern))) < count:
        assert process.poll() is None and time.monotonic() < deadline, (folder / "output.log").read_text()
        time.sleep(0.02)
    with Client(cluster.scheduler_address) as client:
        busy = {address for address, tasks in client.processing().items() if tasks}
        workers = client.run(os.getpid)
    victim = next((pid for address, pid in workers.items() if address in busy), next(iter(workers.values())))
    os.kill(victim, signal.SIGKILL)
    return int(victim)


def homes(root: Path) -> tuple[Path, Path]:
    """Two data folders with the same candles."""
    here, there = root / "here", root / "there"
    for folder in (here, there):
        folder.mkdir()
        make_candles(folder, ("BTCUSDT",), 24 * 140)
    return here, there


def test_a_sweep_on_a_cluster_that_loses_a_worker_has_the_numbers_of_one_machine(
    cluster: Any, tmp_path: Path, postgres_url: str
) -> None:
    here, there = homes(tmp_path)
    options = ("sweep", *MARKET, *SPAN, *FAST, *SLOW, "--trials", "9", "--workers", "3", "--sampler", "random")
    process = start(cluster, there, *options, "--storage", postgres_url)
    kill_a_worker(cluster, process, there, "walk-forward/*/*.msgpack", 4)
    assert process.wait(timeout=300) == 0, (there / "output.log").read_text()
    on_cluster = recall(there, *options, "--storage", postgres_url)
    local = recall(here, *options)
    assert tried(on_cluster) == tried(local) and len(tried(local)) == 9
    for name in ("chosen", "reality_check", "choice", "trials_counted"):
        assert on_cluster[name] == local[name], name
    assert on_cluster["walk"]["arms"] == local["walk"]["arms"]


def test_a_walk_on_a_cluster_that_loses_a_worker_has_the_numbers_of_one_machine(cluster: Any, tmp_path: Path) -> None:
    here, there = homes(tmp_path)
    options = ("walk-forward", "--symbols", "BTCUSDT", "--interval", "60", *SPAN, "--strategy", "similarity",
               "--memory-size", "1500", "--set", "signal.confidence_threshold=0.52")  # fmt: skip
    process = start(cluster, there, *options)
    kill_a_worker(cluster, process, there, "walk-forward/*/*.msgpack", 2)
    assert process.wait(timeout=300) == 0, (there / "output.log").read_text()
    on_cluster, local = recall(there, *options), recall(here, *options)
    assert on_cluster["arms"] == local["arms"]
    assert on_cluster["significance"] == local["significance"]


def test_a_cluster_that_is_not_there_is_told_in_one_sentence(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    make_candles(tmp_path, ("BTCUSDT",), 24 * 140)
    recall(tmp_path, "walk-forward", *MARKET, *SPAN, "--cluster", "tcp://127.0.0.1:1", expect=2)
