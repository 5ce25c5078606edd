"""Compiled code: loaded when it is needed, compiled once, and that is said."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def said_by(program: str, **environment: str) -> list[str]:
    """Lines that a new process prints."""
    whole = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    done = subprocess.run([sys.executable, "-c", program], env=whole, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_a_memory_that_is_not_asked_loads_no_compiler():
    program = "import sys, memory_store; print('numba' in sys.modules)"
    assert said_by(program) == ["False"]


def test_that_something_is_compiled_is_told_once_and_not_again_by_who_finds_it_kept(tmp_path):
    program = """
import numpy as np
from memory_store.index import rescore
from memory_store.machine_code import tell_of_compiling
from memory_store.moments import cluster_moments
tell_of_compiling(lambda: print("compiling"))
print(rescore(np.ones((2, 3), np.float32), np.ones(3, np.float32)).tolist())
print(cluster_moments(np.array([[0, 9, 1]]), np.ones((1, 3), bool), 5).tolist())
"""
    numbers = ["[3.0, 3.0]", "[[0, 1, 0]]"]
    kept = {"NUMBA_CACHE_DIR": str(tmp_path)}
    assert said_by(program, **kept) == ["compiling", *numbers]
    assert said_by(program, **kept) == numbers


def test_two_threads_may_need_it_at_once(tmp_path):
    """What was compiled while its file was half loaded would fail for ever."""
    program = """
import threading, time
import numpy as np
from memory_store import machine_code
from memory_store.ranking import Best, add_pairs
from memory_store.machine_code import fixed

made, half_loaded, calls = machine_code._dispatcher, threading.Event(), []
def slowly(function, arithmetic):
    calls.append(function.__name__)
    if len(calls) == 3:
        half_loaded.set()
        time.sleep(0.5)
    return made(function, arithmetic)
machine_code._dispatcher = slowly

def ask():
    best = Best.none(1, 2)
    keys, slots = fixed(np.eye(3, dtype=np.float32)), fixed(np.arange(3))
    add_pairs(keys, slots, fixed(keys[:1]), fixed(np.zeros(3, np.int64)), slots, best)
    answers.append(best.ids.tolist())

answers = []
other = threading.Thread(target=ask)
other.start()
half_loaded.wait()
ask()
other.join()
print(calls[1], answers)
"""
    assert said_by(program, NUMBA_CACHE_DIR=str(tmp_path)) == ["add_pairs [[[0, 1]], [[0, 1]]]"]
