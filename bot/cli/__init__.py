"""The command line: ``recall``. The roof of the house; it alone may import everything."""

from bot.threads import use_one_thread

use_one_thread()

from bot.cli.app import main  # noqa: E402 - the numeric libraries read the environment when they are loaded

__all__ = ["main"]
