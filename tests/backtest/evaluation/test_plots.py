"""Pictures of an evaluation say which line is whose."""

from __future__ import annotations

from matplotlib.figure import Figure

from backtest.evaluation.plots import add_legend


def test_lines_that_lie_on_each_other_share_an_entry_of_the_colour_that_is_seen() -> None:
    axes = Figure().subplots()
    for name, colour, level in (("flat", "blue", 0.85), ("hold", "red", 0.85), ("model", "black", 0.8)):
        axes.plot([0, 1], [level, level], color=colour, label=name)
    axes.axhline(0.8, linestyle="--")
    add_legend(axes)
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["flat\nhold", "model"]
    assert [line.get_color() for line in legend.get_lines()] == ["red", "black"]
