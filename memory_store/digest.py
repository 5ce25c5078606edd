"""One number for the whole content of a bank."""

from __future__ import annotations

import hashlib

import numpy as np

from memory_store.recollections import Recollections, in_order
from memory_store.ring import Ring


def content_digest(ring: Ring, names: list[str], recollections: Recollections, encoder_version: str) -> str:
    """SHA-256 over all entries in the order of their ids, and all that waits for outcomes, in hexadecimal.

    Independent of where entries lie, of how their symbols are numbered, and of the machine's byte order.
    """
    slots = ring.slots_in_order()
    numbers = ring.symbols[slots]
    used = sorted({names[number] for number in np.unique(numbers).tolist()})
    place = {name: position for position, name in enumerate(used)}
    places = np.array([place.get(name, -1) for name in names] or [-1], dtype=np.int32)
    digest = hashlib.sha256(repr((encoder_version, ring.config.dimension, ring.config.horizons, used)).encode())
    digest.update(places[numbers].astype("<i4").tobytes())
    for times in (ring.ids, ring.bar_times, ring.usable_from, ring.last_hits, ring.credits):
        digest.update(times[slots].astype("<i8").tobytes())
    for labels in (ring.regimes, ring.hits):
        digest.update(labels[slots].astype("<i4").tobytes())
    for values in (ring.keys, ring.novelties):
        digest.update(values[slots].astype("<f4").tobytes())
    digest.update(ring.outcomes[slots].astype("<f8").tobytes())
    for waiting in in_order(recollections.waiting):
        recollection = waiting.recollection
        digest.update(repr((recollection.asker_id, recollection.as_of, len(recollection.ids))).encode())
        digest.update(recollection.ids.astype("<i8").tobytes())
        digest.update(np.concatenate((recollection.weights, waiting.outcomes)).astype("<f8").tobytes())
    return digest.hexdigest()
