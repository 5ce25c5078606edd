"""A second process that works with a copy of a bank while the first one decides.

Most of what a replay asks of its memory needs nothing but what is held and when each may be seen, so that it can be done
before its time. A copy of the process keeps its bank up to date from what it is told of changes, and does the work that it
is asked for. What it answers is what the first process would have found out when it asked, to the last bit; who asks in
vain does the work himself.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import select
import signal
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, Final

from memory_store.following import Changes, changes_of, follow
from memory_store.records import BoolArray

if TYPE_CHECKING:
    from memory_store.holdings import Holdings

_MOST_AT_ONCE: Final = 4
"""Tasks under way: with some waiting behind the one that is worked on nobody waits for the other to be told."""
_SURELY_TAKEN: Final = 1 << 16
"""Bytes that the system takes off a writer whether the other reads or not."""
_OWN_LOAD: Final = 0.5
"""Cores of the load average that must be free; the first process itself is part of the load."""


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
        held: what the bank holds.
        work: what to do with a task, which must be one that can be pickled, as its answer. It is called in the copy of this
            process, where whatever it refers to is a copy too.
    """

    def __init__(self, held: Holdings, work: Callable[[Any], Any]) -> None:
        self._held = held
        self._written: list[int] = []
        self._changed: list[int] = []
        self._asked = 0
        self._answered = 0
        self._answers: dict[int, Any] = {}
        context = multiprocessing.get_context("fork")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_help, args=(held, work, theirs, self._connection), daemon=True)
        self._process.start()
        theirs.close()
        self._has_come = _has_come(self._connection)

    def written(self, *slots: int) -> None:
        """The entries of some slots are other ones, or gone."""
        self._written += slots

    def changed(self, *slots: int) -> None:
        """More is known of the entries of some slots."""
        self._changed += slots

    def begin(self, task: Any, *, patient: bool) -> Promise | None:
        """Have a task done; ``None`` where there is too much to do already.

        Args:
            task: what to do, by the memory as it is now.
            patient: it may be put off for tasks that are not, also those that come while it is done, and is done in turn
                with others that are. The memory is then as it is when the work on it begins.
        """
        try:
            while self._asked > self._answered and self._has_come():
                self._receive()
            if self._asked - self._answered >= _MOST_AT_ONCE:
                return None
            changes = changes_of(self._held, self._written, self._changed)
            told = pickle.dumps((changes, patient, task), pickle.HIGHEST_PROTOCOL)
            if len(told) > _SURELY_TAKEN:  # two that write at once, and read later, would wait for each other
                while self._asked > self._answered:
                    self._receive()
            self._connection.send_bytes(told)
        except (EOFError, OSError):
            return None
        self._written.clear()
        self._changed.clear()
        self._asked += 1
        return Promise(self, self._asked)

    def has_answered(self, number: int) -> bool:
        """Whether asking for an answer takes no waiting, because it is there or the other process is gone."""
        try:
            while number not in self._answers and self._has_come():
                self._receive()
        except (EOFError, OSError):
            return True
        return number in self._answers

    def answer(self, number: int) -> Any | None:
        """An answer, once; ``None`` where the other process is gone."""
        try:
            while number not in self._answers:
                self._receive()
        except (EOFError, OSError):
            return None
        return self._answers.pop(number)

    def _receive(self) -> None:
        """Wait for the next answer."""
        number, answer = self._connection.recv()
        self._answers[number] = answer
        self._answered += 1

    def close(self) -> None:
        """Let the other process end."""
        self._connection.close()
        self._process.join()
        self._process.close()


class Promise:
    """A task that a helper was given.

    Args:
        helper: who has it.
        number: of the task.
    """

    def __init__(self, helper: Helper, number: int) -> None:
        self._helper, self._number = helper, number

    @property
    def is_kept(self) -> bool:
        """Whether ``result`` takes no waiting."""
        return self._helper.has_answered(self._number)

    def result(self) -> Any | None:
        """The answer, to be asked for once; ``None`` where the other process is gone."""
        return self._helper.answer(self._number)


class _Worker:
    """The second process, seen from inside.

    Args:
        held: its copy of what the bank holds.
        work: see ``Helper``.
        connection: to the first process.
    """

    def __init__(self, held: Holdings, work: Callable[[Any], Any], connection: Connection) -> None:
        self._held = held
        self._work = work
        self._connection = connection
        self._has_come = _has_come(connection)
        self._asked = 0
        self._patient: deque[tuple[int, Any]] = deque()
        self._put_off: tuple[Changes, bool, Any] | None = None
        """What was read and cannot be taken in before the task under way is done."""
        held.finder.pause = self._pause

    def run(self) -> None:
        """Work until the pipe is closed."""
        while True:
            while self._put_off is not None or not self._patient or self._has_come():
                told, self._put_off = self._put_off or self._read(), None
                self._take_in(*told)
            number, task = self._patient.popleft()
            self._answer(number, task)

    def _pause(self, hidden: BoolArray) -> None:
        """Do what cannot wait, in the middle of a search.

        Args:
            hidden: ``[size]``, True where the search does not look, so that others may write there.
        """
        while self._put_off is None and self._has_come():
            told = self._read()
            written = told[0].written
            if hidden[written[written < len(hidden)]].all():
                self._take_in(*told)
            else:
                self._put_off = told

    def _read(self) -> tuple[Changes, bool, Any]:
        told: tuple[Changes, bool, Any] = pickle.loads(self._connection.recv_bytes())
        return told

    def _take_in(self, changes: Changes, patient: bool, task: Any) -> None:
        follow(self._held, changes)
        self._asked += 1
        if patient:
            self._patient.append((self._asked, task))
        else:
            self._answer(self._asked, task)

    def _answer(self, number: int, task: Any) -> None:
        self._connection.send_bytes(pickle.dumps((number, self._work(task)), pickle.HIGHEST_PROTOCOL))


def _has_come(connection: Connection) -> Callable[[], bool]:
    """Whether there is something to read, or nothing will ever be: what ``Connection.poll`` tells, in a tenth of the time."""
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return lambda: connection.closed or bool(poll.poll(0))


def _help(held: Holdings, work: Callable[[Any], Any], connection: Connection, theirs: Connection) -> None:
    """What the second process does until the first one closes the pipe or is no more."""
    theirs.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.disable()
    with suppress(EOFError, OSError):
        _Worker(held, work, connection).run()
