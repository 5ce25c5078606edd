"""Errors that reach a user: each is one sentence that names what is wrong, where, and the fix; and the exit codes."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What the process tells its caller."""

    DONE = 0
    CHECK_FAILED = 1
    USAGE = 2
    VENUE = 3
    INTERNAL = 4
    INTERRUPTED = 130


class RecallError(Exception):
    """Base of all errors whose message is meant for a user."""

    exit_code: ExitCode = ExitCode.INTERNAL


class CheckFailed(RecallError):
    """A check ran to its end and found something, such as decisions that differ."""

    exit_code = ExitCode.CHECK_FAILED


class UsageError(RecallError):
    """Bad usage, configuration or data: the user can mend it."""

    exit_code = ExitCode.USAGE


class NothingLeftToPlay(UsageError):
    """A sandbox was asked to play a span in which no bar is left."""


class VenueError(RecallError):
    """The venue refused, or could not be reached."""

    exit_code = ExitCode.VENUE


class StorageError(RecallError):
    """The journal could not be written or read."""

    exit_code = ExitCode.USAGE
