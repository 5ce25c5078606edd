"""Many queries at once through the approximate index: what bulk search for training and research can count on."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from benchmarks.banks import EMBARGO_MS, NEIGHBOURS, PRIMARY, RunningBank
from benchmarks.keys import Keys
from memory_store.approximate import ApproximateIndex
from memory_store.index import rescore, scan_margin
from memory_store.retrieval import ranked
from memory_store.ring import NEVER
from memory_store.vectors import UNIT_LENGTH


class BatchSearch:
    """The approximate index over a copy of what a full bank holds, with the bank's rule of visibility."""

    def __init__(self, running: RunningBank) -> None:
        state = running.bank.state()
        self._keys = state.keys
        self._ids = state.ids
        settled = state.settled_times[:, PRIMARY]
        self._hidden = (settled == NEVER) | (settled > running.now - EMBARGO_MS)
        self._visible = len(self._hidden) - int(np.count_nonzero(self._hidden))
        self._index = ApproximateIndex.trained(self._keys, np.arange(len(self._keys)), unit=True)

    def search(self, queries: Keys) -> npt.NDArray[np.int64]:
        """Ids of the nearest of every query, ``[n, k]``: candidates in bulk, each scored by the one exact routine."""
        lengths = np.full(len(queries), UNIT_LENGTH)
        margin = scan_margin(queries.shape[1], UNIT_LENGTH, lengths)
        found = self._index.candidates(self._hidden, None, queries, NEIGHBOURS, margin, self._visible)
        scores = rescore(self._keys[found.slots], queries[found.rows])
        ids, _ = ranked(found.rows, self._ids[found.slots], scores, (len(queries), NEIGHBOURS))
        return ids
