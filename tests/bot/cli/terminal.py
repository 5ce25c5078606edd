"""The command line as a user meets it: what it says on both streams, and its exit code."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bot.cli.app import run

PROJECT = Path(__file__).parents[3]
SHORT = ("--interval", "15", "--set", "sandbox.history_bars=400")
"""A synthetic market that is ready in a moment."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command left."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """Standard output as the one JSON document that it has to be."""
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """The one sentence of a command that failed."""
        lines = self.err.strip().splitlines()
        assert lines and lines[-1].startswith("error: "), self.err
        assert "Traceback" not in self.err + self.out, self.err
        return lines[-1].removeprefix("error: ")


def recall(folder: Path, *arguments: str) -> Outcome:
    """Run a command in this process, in a working directory of its own."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run(list(arguments))
    return Outcome(code, out.getvalue(), err.getvalue())


def ask(folder: Path, *arguments: str) -> Any:
    """The JSON document of a command that has to succeed."""
    outcome = recall(folder, *arguments, "--json")
    assert outcome.code == 0, outcome.err
    return outcome.document


def start(folder: Path, *arguments: str, variables: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """Start a command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", "from bot.cli import main; main()", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(PROJECT), **(variables or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_process(folder: Path, *arguments: str, variables: dict[str, str] | None = None) -> Outcome:
    """Run a command in a process of its own."""
    process = start(folder, *arguments, variables=variables)
    out, err = process.communicate(timeout=120)
    return Outcome(process.returncode, out, err)


def interrupt(process: subprocess.Popen[str], *, number: int = signal.SIGINT) -> Outcome:
    """Press Ctrl-C and wait for the end."""
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    return Outcome(process.returncode, out, err)
