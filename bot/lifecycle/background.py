"""The bot's end of its background process: starts it, listens to it, and opens the memory that it wrote."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, NamedTuple

import msgspec

from bot.errors import RecallError
from bot.journal import Journal, StoredRun
from bot.lifecycle.job import Job, Message, Outcome, Progress
from bot.lifecycle.preparation import Successor
from bot.session import Session
from memory_store import MemoryBankError

COMMAND: Final = (sys.executable, "-m", "bot.lifecycle.worker")


class Finished(NamedTuple):
    """A job that has ended."""

    job: Job
    outcome: Outcome
    successor: Successor | None
    """Ready to take over, where the outcome prepared one."""


class Background:
    """One job at a time. Used from one thread, except for the thread of its own that waits for the process.

    Args:
        session: of the run.
        journal: where the run is.
        run: the run.
    """

    def __init__(self, session: Session, journal: Journal, run: StoredRun) -> None:
        self._session = session
        self._journal = journal
        self._run = run
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="lifecycle")
        self._process: subprocess.Popen[bytes] | None = None
        self._future: Future[Finished] | None = None
        self._abandoned = False
        self.progress: Progress | None = None
        """Where the job stands; ``None`` where there is none."""

    @property
    def is_busy(self) -> bool:
        """Whether a job is under way, or has ended and was not collected."""
        return self._future is not None

    def start(self, job: Job) -> None:
        """Begin a job; there must be none."""
        assert self._future is None, "one job at a time"
        self.progress = Progress("starting")
        self._process = subprocess.Popen(
            COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self._future = self._thread.submit(self._follow, job, self._process)

    def collect(self) -> Finished | None:
        """The job that has ended, once; ``None`` while it is under way, or where it was abandoned."""
        if self._future is None or not self._future.done():
            return None
        future, self._future, self._process, self.progress = self._future, None, None, None
        abandoned, self._abandoned = self._abandoned, False
        return None if abandoned else future.result()

    def abandon(self) -> None:
        """End the job under way without an outcome, because something else is more urgent."""
        assert self._process is not None, "there is no job to abandon"
        self._abandoned = True
        self._process.kill()

    def close(self) -> None:
        """End the process, whatever it is doing."""
        if self._process is not None:
            self._process.kill()
        self._thread.shutdown()

    def _follow(self, job: Job, process: subprocess.Popen[bytes]) -> Finished:
        outcome = converse(job, process, self._note)
        if outcome.prepared is None:
            return Finished(job, outcome, None)
        self._note(Progress("opening"))
        try:
            return Finished(job, outcome, Successor(self._session, self._journal, self._run, outcome.prepared))
        except (RecallError, MemoryBankError) as problem:
            return Finished(job, Outcome(retraining=outcome.retraining, problem=str(problem)), None)

    def _note(self, progress: Progress) -> None:
        self.progress = progress


def converse(job: Job, process: subprocess.Popen[bytes], note: Callable[[Progress], None]) -> Outcome:
    """Give a process its job and listen until it has told the outcome, or has ended; its standard input stays open meanwhile.

    Args:
        job: what to do.
        process: with pipes for standard input and output.
        note: told where the work stands.
    """
    assert process.stdin is not None and process.stdout is not None
    outcome: Outcome | None = None
    with process:
        try:
            process.stdin.write(msgspec.json.encode(job) + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            pass
        for line in process.stdout:
            try:
                message = msgspec.json.decode(line, type=Message)
            except msgspec.DecodeError:  # it was killed in the middle of a word
                break
            if isinstance(message, Outcome):
                outcome = message
                break
            note(message)
    return outcome or Outcome(problem=f"the background process ended with code {process.returncode}")
