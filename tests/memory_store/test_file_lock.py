"""Locks that are files: one holder at a time, however many processes come and go."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
from pathlib import Path

import pytest

from memory_store.file_lock import held_lock, take_lock

TURNS = 300


def test_the_file_goes_with_its_holder_and_a_file_left_behind_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    path.touch()
    with held_lock(take_lock(path), path):
        with pytest.raises(BlockingIOError):
            take_lock(path)
        assert path.exists()
    assert not path.exists()


def test_a_lock_on_a_file_that_was_taken_away_meanwhile_is_none(tmp_path: Path) -> None:
    """Whoever opened the file before it went may lock it still, while another holds the next one."""
    path = tmp_path / "a.lock"
    first = take_lock(path)
    late = os.open(path, os.O_RDWR)
    with held_lock(first, path):
        pass
    with held_lock(take_lock(path), path):
        fcntl.flock(late, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with pytest.raises(BlockingIOError):
            take_lock(path)
    os.close(late)


def take_turns(path: Path, counter: Path) -> None:
    done = 0
    while done < TURNS:
        try:
            descriptor = take_lock(path)
        except BlockingIOError:
            continue
        with held_lock(descriptor, path):
            counter.write_text(str(int(counter.read_text()) + 1))
            done += 1


def test_processes_that_compete_never_hold_it_together(tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")
    context = multiprocessing.get_context("fork")
    competitors = [context.Process(target=take_turns, args=(tmp_path / "a.lock", counter)) for _ in range(3)]
    for competitor in competitors:
        competitor.start()
    for competitor in competitors:
        competitor.join()
        assert competitor.exitcode == 0
    assert counter.read_text() == str(3 * TURNS)
