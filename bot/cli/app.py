"""The group of all commands, and the one place where errors become a sentence and an exit code."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Mapping
from typing import Final, NamedTuple

import click

from bot.errors import ExitCode, RecallError


class Entry(NamedTuple):
    """A command that has not been loaded."""

    module: str
    attribute: str
    summary: str
    """What ``recall --help`` says about it: the first sentence of the command's own help."""


# Modules are loaded when their command is used, so that `recall --help` answers at once.
SECTIONS: Final[Mapping[str, Mapping[str, Entry]]] = {
    "Candles": {
        "fetch": Entry(
            "data",
            "fetch",
            "Download candles, funding rates or margin tiers, or import candles or rates from a file at PATH.",
        ),
        "data": Entry("data", "data", "List and check stored candles."),
    },
    "Models": {
        "train": Entry("training", "train", "Train a memory transformer on stored candles and print its id."),
        "evaluate": Entry("evaluate", "evaluate", "Compare forecasts with baselines and controls, walking forward."),
        "models": Entry("models", "models", "List, show, promote and roll back trained models."),
    },
    "Memory": {
        "memory": Entry("memory", "memory", "Ask the memory, fill it and look after it."),
    },
    "Trading": {
        "backtest": Entry(
            "backtest",
            "backtest",
            "Replay stored candles through the very code that trades, and say whether the result can be told from luck.",
        ),
        "walk-forward": Entry(
            "walk_forward",
            "walk_forward",
            "Train, encode, warm and trade window by window, and judge all of it as one account.",
        ),
        "sweep": Entry(
            "sweep",
            "sweep",
            "Try settings by walking forward, and say what is left of the best once all trials are counted.",
        ),
        "live": Entry(
            "live", "live", "Trade an account: orders go to the venue, and the venue says what became of them."
        ),
        "paper": Entry("paper", "paper", "Trade on paper: real or simulated candles, simulated fills."),
        "doctor": Entry("doctor", "doctor", "Look at key, clock, account, symbols and stored data before trading."),
        "sandbox": Entry("sandbox", "sandbox", "Run a local venue that speaks Bybit's v5 protocol."),
    },
    "A run": {
        "runs": Entry("runs", "runs", "List runs and walks, newest first."),
        "status": Entry("runs", "status", "Show how a run stands: account, halts, last bar."),
        "positions": Entry("runs", "positions", "Show the open positions of a run and what protects them."),
        "report": Entry(
            "report", "report", "Write one HTML page about RUN: result, trades, memory, and what may be wrong."
        ),
        "compare": Entry(
            "report", "compare", "Hold runs or walks against the first of them: figures, verdicts, and differences."
        ),
        "why": Entry("why", "why", "Explain one DECISION: what was seen, remembered and ruled."),
        "halt": Entry("runs", "halt", "Open nothing from now on; manage what is open."),
        "resume": Entry("runs", "resume", "Trade again: take away every halt."),
        "flatten": Entry("runs", "flatten", "Close every position at the next bar and halt."),
    },
    "Proofs": {
        "audit": Entry("checks", "audit", "Replay RUN from its journal and report every field that differs."),
        "probe": Entry("checks", "probe", "Look for lookahead: change the future and see that the past stays."),
    },
    "Configuration": {
        "config": Entry("settings", "config", "Check and show the configuration."),
    },
}
COMMANDS: Final = {name: entry for section in SECTIONS.values() for name, entry in section.items()}


class LazyGroup(click.Group):
    """A group that imports a command only when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of a user's way: get candles, train, test, trade, look after it."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        command = getattr(importlib.import_module(f"bot.cli.{entry.module}"), entry.attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands by section, without loading any."""
        widest = max(len(name) for name in COMMANDS)
        for section, entries in SECTIONS.items():
            with formatter.section(section):
                rows = [(name.ljust(widest), entry.summary) for name, entry in entries.items()]
                formatter.write_dl(rows)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the first steps."""
        steps = (
            ("recall paper", "trade on a simulated venue at once"),
            ("recall fetch --symbols BTCUSDT --interval 60", "get real candles"),
            ("recall backtest --strategy sma_cross", "replay them"),
            ("recall COMMAND --help", "the options of a command, with examples"),
        )
        with formatter.section("First steps"):
            formatter.write_dl(steps, col_max=50)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="recall-bot", prog_name="recall")
def recall() -> None:
    """Recall: a trading bot for Bybit that remembers."""


def main() -> None:
    """Run the command line and exit with the code that the command contract promises."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command; returns its exit code. Never shows a traceback unless ``RECALL_DEBUG`` is set."""
    try:
        result = recall.main(args=arguments, prog_name="recall", standalone_mode=False)
    except (click.exceptions.Abort, KeyboardInterrupt):
        return _say("interrupted", ExitCode.INTERRUPTED, label="stopped:")
    except click.exceptions.NoArgsIsHelpError as problem:
        click.echo(problem.format_message(), err=True)
        return ExitCode.USAGE
    except click.ClickException as problem:
        return _say(_usage_sentence(problem), ExitCode.USAGE)
    except RecallError as problem:
        return _say(str(problem), problem.exit_code)
    except SystemExit:
        # How click and rich end a process whose reader has gone away, as `recall runs | head -1` does: no failure of ours.
        return ExitCode.DONE
    except OSError as problem:
        where = f" {problem.filename}" if problem.filename else ""
        reason = problem.strerror or problem
        return _say(f"the system refused{where}: {reason}; check the path, its rights and the disk", ExitCode.USAGE)
    except Exception as problem:
        return _say_unexpected(problem)
    return result if isinstance(result, int) else ExitCode.DONE


def _usage_sentence(problem: click.ClickException) -> str:
    """Click's complaint, and where the help is."""
    context = getattr(problem, "ctx", None)
    command = "recall" if context is None else context.command_path
    return f"{problem.format_message().rstrip('.')}; see {command} --help"


def _say_unexpected(problem: Exception) -> int:
    # Imported here because they load numpy, and `recall --help` does without.
    from memory_store import MemoryBankError
    from strategies.errors import StrategyError

    if isinstance(problem, MemoryBankError | StrategyError):
        # The floors below the bot know no exit codes: their own errors are sentences about settings and data.
        return _say(str(problem), ExitCode.USAGE)
    return _say(
        f"an internal error happened: {type(problem).__name__}: {problem}; set RECALL_DEBUG=1 to see where, and please "
        "report it",
        ExitCode.INTERNAL,
    )


def _say(message: str, code: int, *, label: str = "error:") -> int:
    # Imported here because rich takes longer to load than the help takes to show.
    from bot.cli.terminal import console

    if os.environ.get("RECALL_DEBUG"):
        traceback.print_exc()
    console.print(label, style="bold red", end=" ")
    console.print(" ".join(message.split()), soft_wrap=True, markup=False, emoji=False)
    return code
