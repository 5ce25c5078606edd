"""How a run begins and ends."""

from __future__ import annotations

import os

from bot.cli.starting import enduring


def test_a_terminal_that_is_gone_before_anybody_says_so_is_written_to_without_an_error() -> None:
    ours, theirs = os.openpty()
    terminal = os.fdopen(theirs, "w")
    stream = enduring(terminal)
    assert stream is not terminal and stream.isatty()
    print("bar 1", file=stream, flush=True)
    assert os.read(ours, 100).strip() == b"bar 1"
    os.close(ours)
    print("bar 2", file=stream, flush=True)
    print("bar 3", file=stream, flush=True)
    assert not stream.isatty()


def test_what_is_no_terminal_is_left_as_it_is() -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as pipe:
        assert enduring(pipe) is pipe
    os.close(reading)
