"""The page of figures says what was measured."""

from __future__ import annotations

import json

from benchmarks.harness import LATEST
from benchmarks.page import PAGE, render


def test_the_page_is_what_the_figures_say():
    """Nobody writes a figure by hand: the page is the rendering of the measurements, no more and no less."""
    assert PAGE.read_text(encoding="utf-8") == render(json.loads(LATEST.read_text(encoding="utf-8")))
