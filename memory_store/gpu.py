"""Many searches at once on a GPU, where FAISS has been built for one and finds one.

FAISS proposes in float32; what it proposes is scored again by ``rescore``, and it is shown for every query that nothing it
left out can be among the nearest. So answers are those of any other index, to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from memory_store.index import Candidates, rescore
from memory_store.records import BoolArray, IntArray, KeyArray, ScoreArray
from memory_store.shortlist import floor_below

Nearest = Callable[..., tuple[KeyArray, IntArray]]
"""Takes queries, keys, how many are wanted and ``metric``, and gives scores and places, ``[n, wanted]``, best first."""

_DRIVER: Final = Path("/dev/nvidiactl")
"""There where an NVIDIA driver is: FAISS need not be loaded to find out that there is none."""
_WORTHWHILE: Final = 2**25
"""Products of a query and a key below which bringing the keys to the GPU takes longer than it saves."""
_SPARE: Final = 32
"""Neighbours beyond those wanted, so that it can be seen how far behind the rest is."""
_MOST: Final = 2048
"""FAISS gives no more from a GPU (https://github.com/facebookresearch/faiss/wiki/Faiss-on-the-GPU)."""


@cache
def gpu_nearest() -> Nearest | None:
    """FAISS's brute-force search on a GPU; ``None`` where it reports none."""
    if not _DRIVER.exists():
        return None
    import faiss

    if faiss.get_num_gpus() == 0:
        return None
    on_gpu: Any = faiss.knn_gpu  # takes arrays as well as the tensors that its declarations name
    return partial(on_gpu, faiss.StandardGpuResources())


def is_worthwhile(keys: int, queries: int, k: int) -> bool:
    """Whether a GPU is faster, where there is one."""
    return keys * queries >= _WORTHWHILE and k + _SPARE <= _MOST


def candidates_by(
    nearest: Nearest, keys: KeyArray, hidden: BoolArray, queries: KeyArray, k: int, margin: ScoreArray
) -> Candidates | None:
    """For every query, slots among which its ``k`` nearest are; ``None`` where the scores given are further off than float32.

    Args:
        nearest: finds them.
        keys: ``[size, d]``.
        hidden: ``[size]``, True where a slot must not be found.
        queries: ``[n, d]``.
        k: neighbours wanted.
        margin: ``[n]`` from ``scan_margin``: twice what a float32 product may be off.
    """
    import faiss

    shown = np.flatnonzero(~hidden)
    wanted = min(k + _SPARE, len(shown))
    if not wanted:
        nothing = np.empty(0, dtype=np.int64)
        return Candidates(nothing, nothing, np.ones(len(queries), dtype=np.bool_))
    given: Any
    given, places = nearest(queries, keys[shown], wanted, metric=faiss.METRIC_INNER_PRODUCT)
    rows = np.repeat(np.arange(len(queries)), wanted)
    slots = shown[places.ravel()]
    exact = rescore(keys[slots], queries[rows]).reshape(given.shape)
    if (np.abs(exact - given) > 0.5 * margin[:, None]).any():
        return None
    floor = floor_below(given[:, min(k, wanted) - 1], margin)
    complete = (given[:, -1] < floor) | (wanted == len(shown))
    near = ((given >= floor[:, None]) & complete[:, None]).ravel()
    return Candidates(rows[near], slots[near], complete)
