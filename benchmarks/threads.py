"""A quiet process: one thread for every numeric library, because pools that fight over the cores measure only the fight."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import faiss
import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch and FAISS on one thread, and give them back what they had."""
    torch_threads, faiss_threads = torch.get_num_threads(), faiss.omp_get_max_threads()
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(torch_threads)
        faiss.omp_set_num_threads(faiss_threads)


@contextmanager
def frozen_objects() -> Iterator[None]:
    """Leave what exists now out of garbage collections, which between turns would take longer than the turns."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
