"""What a training frees stays with the process while it trains, and goes back afterwards."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import pytest
import torch

from strategies.memory_transformer.allocation import kept_memory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the setting is glibc's")

PAGE = resource.getpagesize()
BLOCKS, NUMBERS = 8, 2 << 20


def step() -> None:
    """Tensors of 8 MiB, all written to, all freed."""
    del [torch.zeros(NUMBERS) for _ in range(BLOCKS)][:]


def faults_of_a_step() -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    step()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def test_a_step_that_asks_for_the_memory_of_the_last_one_gets_it_with_few_page_faults():
    pages = BLOCKS * NUMBERS * 4 // PAGE
    with kept_memory():
        step()
        assert faults_of_a_step() < 0.25 * pages


def test_afterwards_the_memory_is_given_back():
    with kept_memory():
        step()
        during = resident()
    assert resident() < during - BLOCKS * NUMBERS * 4 // 2
