"""The group of all commands, and the one place where errors become a sentence and an exit code."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from typing import Final

import click

from bot.cli.common import console
from bot.errors import ExitCode, RecallError

# Where each command lives: modules are loaded when asked for, so that `recall --help` answers at once.
COMMANDS: Final = {
    "fetch": "bot.cli.data:fetch",
    "data": "bot.cli.data:data",
    "train": "bot.cli.training:train",
    "models": "bot.cli.training:models",
    "backtest": "bot.cli.backtest:backtest",
    "paper": "bot.cli.paper:paper",
    "sandbox": "bot.cli.sandbox:sandbox",
    "status": "bot.cli.runs:status",
    "runs": "bot.cli.runs:runs",
    "positions": "bot.cli.runs:positions",
    "halt": "bot.cli.runs:halt",
    "resume": "bot.cli.runs:resume",
    "flatten": "bot.cli.runs:flatten",
    "why": "bot.cli.runs:why",
    "audit": "bot.cli.checks:audit",
    "probe": "bot.cli.checks:probe",
    "config": "bot.cli.settings:config",
}


class LazyGroup(click.Group):
    """A group that imports a command only when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of a user's way: get data, train, test, trade, look after it."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Examples: 'recall paper' trades on a simulated venue at once; "
    "'recall fetch --symbols BTCUSDT --interval 60' gets real candles; "
    "'recall COMMAND --help' shows the options of a command.",
)
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
    except click.exceptions.Abort:
        return ExitCode.INTERRUPTED
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except click.ClickException as problem:
        problem.show()
        return ExitCode.USAGE
    except RecallError as problem:
        return _say(str(problem), problem.exit_code)
    except ValueError as problem:
        # The floors below the bot speak in ValueErrors of one sentence.
        return _say(str(problem), ExitCode.USAGE)
    except BrokenPipeError:
        return ExitCode.DONE
    except OSError as problem:
        where = f" {problem.filename}" if problem.filename else ""
        return _say(
            f"the system refused{where}: {problem.strerror or problem}; check the path, its rights and the disk",
            ExitCode.USAGE,
        )
    except Exception as problem:
        return _say(
            f"an internal error happened: {type(problem).__name__}: {problem}; set RECALL_DEBUG=1 to see where, and "
            "please report it",
            ExitCode.INTERNAL,
        )
    return result if isinstance(result, int) else ExitCode.DONE


def _say(message: str, code: int) -> int:
    if os.environ.get("RECALL_DEBUG"):
        traceback.print_exc()
    console.print("error:", style="bold red", end=" ")
    console.print(message, soft_wrap=True, markup=False, emoji=False)
    return code
