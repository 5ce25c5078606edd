"""One number for the whole content of a bank."""

from __future__ import annotations

import hashlib

import numpy as np

from memory_store.ring import Ring


def content_digest(ring: Ring, names: list[str], encoder_version: str) -> str:
    """SHA-256 over all entries in the order of their ids, in hexadecimal.

    Independent of where entries lie, of how their symbols are numbered, and of the machine's byte order.
    """
    slots = ring.slots_in_order()
    numbers = ring.symbols[slots]
    used = sorted({names[number] for number in np.unique(numbers).tolist()})
    place = {name: position for position, name in enumerate(used)}
    places = np.array([place.get(name, -1) for name in names] or [-1], dtype=np.int32)
    digest = hashlib.sha256(repr((encoder_version, ring.config.dimension, ring.config.horizons, used)).encode())
    digest.update(places[numbers].astype("<i4").tobytes())
    for column in (ring.ids, ring.bar_times, ring.usable_from):
        digest.update(column[slots].astype("<i8").tobytes())
    digest.update(ring.regimes[slots].astype("<i4").tobytes())
    digest.update(ring.keys[slots].astype("<f4").tobytes())
    digest.update(ring.outcomes[slots].astype("<f8").tobytes())
    return digest.hexdigest()
