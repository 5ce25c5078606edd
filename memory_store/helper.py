"""A second process that proposes neighbours while the first one decides.

A scan for many queries is half of what a search costs, and needs nothing but keys and when each may be seen. So a copy of the
process keeps both up to date from what it is told of changes, and works on proposals that are wanted later. What it answers is
what the bank itself would have answered when it was asked, to the last bit; who asks in vain does the work himself.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Final, NamedTuple

import numpy as np

from memory_store.finding import Finder
from memory_store.records import Eviction, IntArray, KeyArray, Proposal, ScoreArray
from memory_store.retrieval import propose
from memory_store.ring import Ring
from memory_store.visibility import Visibility

_MOST_AT_ONCE: Final = 2
"""Proposals under way: so many and their answers fit into what the system keeps for a pipe, so that nobody waits to write."""


_OWN_LOAD: Final = 0.5
"""Cores of the load average that must be free; the first process itself is part of the load."""


class Wanted(NamedTuple):
    """What ``propose`` takes beside the entries."""

    queries: KeyArray
    """``[n, d]``."""
    margin: ScoreArray
    """``[n]``."""
    as_of: int
    k: int
    skip_oldest: int
    next_id: int


class _Changes(NamedTuple):
    """Slots that differ from what the helper knows, ``[m]``, and what is in them."""

    written: IntArray
    """Those whose key is another."""
    slots: IntArray
    ids: IntArray
    keys: KeyArray
    visible_from: IntArray


def can_help() -> bool:
    """Whether a second process would have a core to itself, and can be had as a copy of this one.

    Not in a process that another one started: whoever works with many knows how many.
    """
    if sys.platform != "linux" or multiprocessing.parent_process() is not None:
        return False
    return len(os.sched_getaffinity(0)) > 1


def has_idle_core() -> bool:
    """Whether the last minute left a core to a second process: without one it only takes time from the first."""
    return os.getloadavg()[0] <= len(os.sched_getaffinity(0)) - _OWN_LOAD


class Helper:
    """The second process, seen from the first.

    Args:
        ring: the entries, of which the oldest make room: what is going to be overwritten can then be left out beforehand.
        finder: of the entries, exact and on no GPU.
    """

    def __init__(self, ring: Ring, finder: Finder) -> None:
        assert ring.config.eviction is Eviction.FIFO, "who leaves must be known beforehand"
        self._ring = ring
        self._written: list[int] = []
        self._changed: list[int] = []
        self._asked = 0
        self._answered = 0
        self._answers: dict[int, dict[str, Any]] = {}
        context = multiprocessing.get_context("fork")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_help, args=(ring, finder, theirs, self._connection), daemon=True)
        self._process.start()
        theirs.close()

    def written(self, slot: int) -> None:
        """The entry of a slot is another one, or gone."""
        self._written.append(slot)

    def changed(self, slot: int) -> None:
        """From when the entry of a slot may be seen is known."""
        self._changed.append(slot)

    def ask(self, wanted: Wanted) -> int | None:
        """Ask for a proposal; its number, ``None`` where there is too much to do already."""
        try:
            while self._asked > self._answered and self._connection.poll():
                self._receive()
        except (EOFError, OSError):
            return None
        if self._asked - self._answered >= _MOST_AT_ONCE:
            return None
        ring = self._ring
        written = np.unique(np.array(self._written, dtype=np.int64))
        slots = np.unique(np.array(self._written + self._changed, dtype=np.int64))
        changes = _Changes(written, slots, ring.ids[slots], ring.keys[slots], ring.visible_from[slots])
        try:
            self._connection.send((changes, wanted))
        except OSError:
            return None
        self._written.clear()
        self._changed.clear()
        self._asked += 1
        return self._asked

    def answer(self, number: int) -> Proposal | None:
        """The proposal that was asked for, once; ``None`` where the other process is gone."""
        try:
            while number not in self._answers:
                self._receive()
        except (EOFError, OSError):
            return None
        return Proposal(**self._answers.pop(number), owner=self._ring)

    def _receive(self) -> None:
        """Wait for the next answer."""
        self._answers[self._answered + 1] = self._connection.recv()
        self._answered += 1

    def close(self) -> None:
        """Let the other process end."""
        self._connection.close()
        self._process.join()
        self._process.close()


class PromisedProposal:
    """A proposal that may be in the making.

    Args:
        helper: who makes it; ``None`` where nobody does.
        wanted: what it is about.
        make: makes it here, now.
    """

    def __init__(self, helper: Helper | None, wanted: Wanted, make: Callable[[], Proposal]) -> None:
        self._helper, self._make = helper, make
        self._number = None if helper is None else helper.ask(wanted)

    def result(self) -> Proposal:
        """The proposal; to be asked for once."""
        if self._helper is not None and self._number is not None:
            made = self._helper.answer(self._number)
            if made is not None:
                return made
        return self._make()


def _help(ring: Ring, finder: Finder, connection: Connection, theirs: Connection) -> None:
    """What the second process does until the first one closes the pipe or is no more."""
    theirs.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.disable()
    while True:
        try:
            changes, wanted = connection.recv()
            _follow(ring, finder, changes, wanted.next_id)
            connection.send(_fields(propose(ring, finder, **wanted._asdict())))
        except (EOFError, OSError):
            return


def _follow(ring: Ring, finder: Finder, changes: _Changes, next_id: int) -> None:
    """Take in what has changed."""
    ring.ids[changes.slots] = changes.ids
    ring.keys[changes.slots] = changes.keys
    ring.visible_from[changes.slots] = changes.visible_from
    ring.visibility = Visibility(ring.visible_from)
    for slot in changes.written.tolist():
        finder.written(slot, next_id)


def _fields(proposal: Proposal) -> dict[str, Any]:
    """All but the ring, which is another one here."""
    return {name: getattr(proposal, name) for name in proposal.__slots__ if name != "owner"}
