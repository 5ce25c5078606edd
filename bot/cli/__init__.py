"""The command line: ``recall``. The roof of the house; it alone may import everything."""

from bot.cli.app import main

__all__ = ["main"]
