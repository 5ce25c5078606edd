"""Progress bars as a person sees them: the bar stays whole in a narrow window, what is said beside it is cut."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from bot.cli import terminal

NOTE = "epoch 1/1 loss 1.2217 validation 1.2226 direction 47.3% (always one side would be right for 65.7%)"


@pytest.mark.parametrize("width", [60, 80, 120, 300])
def test_a_long_note_never_takes_the_place_of_the_bar(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    drawn = Console(file=shown, width=width, force_terminal=True, color_system=None)
    monkeypatch.setattr(terminal, "console", drawn)
    with terminal.progress_bar("training", 10, unit="steps") as update:
        update(3, 10, note=NOTE)
    lines = [line for line in shown.getvalue().replace("\r", "\n").splitlines() if "3/10" in line]
    assert lines
    for line in lines:
        text = line.partition("training")[2]
        assert text[:25].strip("━╸ ") == "", "24 columns of the bar, what is left of it blank"
        assert text[25:].strip().startswith("3/10 steps")
        assert len(text) + len("training") <= width
    assert (NOTE in shown.getvalue()) == (width == 300)
