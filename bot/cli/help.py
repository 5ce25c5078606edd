"""Commands whose help ends with examples that can be pasted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click


class ExampleCommand(click.Command):
    """A command with examples.

    Args:
        examples: command lines, shown one per line as they are.
    """

    def __init__(self, *arguments: Any, examples: Sequence[str], **attributes: Any) -> None:
        super().__init__(*arguments, **attributes)
        self.examples = tuple(examples)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples."""
        write_examples(formatter, self.examples)


class ExampleGroup(click.Group):
    """A group with examples.

    Args:
        examples: command lines, shown one per line as they are.
    """

    def __init__(self, *arguments: Any, examples: Sequence[str], **attributes: Any) -> None:
        super().__init__(*arguments, **attributes)
        self.examples = tuple(examples)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples."""
        write_examples(formatter, self.examples)


def write_examples(formatter: click.HelpFormatter, examples: Sequence[str]) -> None:
    """Write command lines without wrapping them, so that they can be copied."""
    with formatter.section("Example" if len(examples) == 1 else "Examples"):
        for line in examples:
            formatter.write(f"{'':>{formatter.current_indent}}{line}\n")
