"""The one place that decides how many threads the numeric libraries use.

torch, FAISS and BLAS each bring a thread pool, and pools that spin against each other on a small machine cost more than
they give: a daemon decides on one thread. The pools read the environment when their library is loaded, so this module
imports none of them and must be called before they are. Training raises torch's own number by itself.
"""

from __future__ import annotations

import os
from typing import Final

_POOLS: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def use_one_thread() -> None:
    """Let every numeric library work on one thread, unless the environment says otherwise."""
    for name in _POOLS:
        os.environ.setdefault(name, "1")
