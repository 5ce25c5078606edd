"""The background process of a bot: ``python -m bot.lifecycle.worker``.

It reads one job from standard input, works on it on one thread and with the least claim to the processor, and tells on
standard output how it gets on. Standard input stays open as long as the bot lives: when it ends, so does this process.
"""

from __future__ import annotations

import os
import sys
import threading

from bot.threads import use_one_thread

use_one_thread()

import msgspec  # noqa: E402 - the numeric libraries read the environment when they are loaded

from bot.lifecycle.job import Job, Message, Outcome  # noqa: E402
from bot.lifecycle.work import work  # noqa: E402

_LEAST_CLAIM = 19
_ORPHANED = 1


def main() -> None:
    """Do the one job."""
    os.nice(_LEAST_CLAIM)
    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=Job)
    threading.Thread(target=_end_with_the_bot, daemon=True).start()
    try:
        outcome = work(job, _tell)
    except Exception as problem:
        outcome = Outcome(problem=f"an internal error happened: {type(problem).__name__}: {problem}")
    _tell(outcome)


def _tell(message: Message) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(message) + b"\n")
    sys.stdout.buffer.flush()


def _end_with_the_bot() -> None:
    """Wait for the end of standard input, which the bot never writes to again."""
    sys.stdin.buffer.read()
    os._exit(_ORPHANED)


if __name__ == "__main__":
    main()
