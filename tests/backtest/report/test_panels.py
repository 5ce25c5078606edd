"""The specification's picture of four panels."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from backtest.report.panels import plot_panels, round_values
from strategies.bars import DAY_MS, Calendar, FloatArray, IntArray
from tests.backtest.report.scenes import START, path_of


def draw(path: Path, times: IntArray, equity: FloatArray) -> None:
    plot_panels(path, times, equity, "sma_cross", initial_cash=1000.0, calendar=Calendar.CONTINUOUS)


def decoded_size(path: Path) -> tuple[int, int]:
    """Width and height of a PNG whose every chunk passes its checksum and whose pixels decompress in full."""
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, pixels, kinds = 8, b"", []
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        (checksum,) = struct.unpack(">I", data[at + 8 + length : at + 12 + length])
        assert zlib.crc32(kind + body) == checksum
        kinds.append(kind)
        if kind == b"IDAT":
            pixels += body
        at += 12 + length
    assert kinds[0] == b"IHDR"
    assert kinds[-1] == b"IEND"
    width, height = struct.unpack(">II", data[16:24])
    assert len(zlib.decompress(pixels)) == height * (width * 4 + 1)
    return width, height


def test_the_four_panels_are_a_valid_png(tmp_path: Path) -> None:
    times, equity = path_of(800)
    draw(tmp_path / "equity.png", times, equity)
    width, height = decoded_size(tmp_path / "equity.png")
    assert width > 1200
    assert height > 700


@pytest.mark.parametrize(
    "equity",
    [
        np.full(50, 1000.0),
        np.linspace(1000.0, 1e7, 50),
        np.linspace(1000.0, -200.0, 50),
        np.array([1000.0, 1000.0001]),
        np.linspace(1000.0, 1100.0, 1461),
    ],
    ids=["flat", "ten-thousandfold", "below zero", "two bars", "four years"],
)
def test_extreme_curves_are_drawn_without_a_warning(
    equity: FloatArray, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    times = START + DAY_MS * np.arange(1, len(equity) + 1, dtype=np.int64)
    draw(tmp_path / "equity.png", times, equity)
    decoded_size(tmp_path / "equity.png")
    assert not recwarn.list


def test_plotting_leaves_pyplot_alone(tmp_path: Path) -> None:
    """No import of pyplot, no change of the shared settings: safe in a thread, a server and a notebook."""
    program = (
        "import sys, numpy as np, matplotlib\n"
        "from pathlib import Path\n"
        "from backtest.report.panels import plot_panels\n"
        "from strategies.bars import Calendar\n"
        # Reading the key "backend" would itself choose one and import pyplot.
        "shared = lambda: {k: matplotlib.rcParams[k] for k in matplotlib.rcParams if k != 'backend'}\n"
        "before = shared()\n"
        f"times = {START} + 3600000 * np.arange(1, 101)\n"
        f"plot_panels(Path({str(tmp_path)!r}) / 'e.png', times, np.linspace(1e3, 2e3, 100), 'title', "
        "initial_cash=1000, calendar=Calendar.CONTINUOUS)\n"
        "assert 'matplotlib.pyplot' not in sys.modules, 'pyplot was imported'\n"
        "assert shared() == before, 'shared settings changed'\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True)
    decoded_size(tmp_path / "e.png")


def test_equal_runs_make_equal_files(tmp_path: Path) -> None:
    times, equity = path_of(300)
    for name in ("one.png", "two.png"):
        draw(tmp_path / name, times, equity)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_panels_of_one_bar_is_refused_in_one_sentence(tmp_path: Path) -> None:
    times, equity = path_of(1)
    with pytest.raises(ValueError, match="at least two bars"):
        draw(tmp_path / "equity.png", times, equity)


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0.53, 1.67, (0.7, 1.0, 1.5)),
        (5_300.0, 48_000.0, (7e3, 1e4, 1.5e4, 2e4, 3e4)),
        (0.9, 30.0, (1.0, 2.0, 5.0, 10.0, 20.0)),
        (0.02, 900.0, (0.1, 1.0, 10.0, 100.0)),
    ],
)
def test_a_logarithmic_axis_has_as_many_round_labels_as_there_is_room_for(
    low: float, high: float, labels: tuple[float, ...]
) -> None:
    found = round_values(low, high)
    assert all(low <= each <= high for each in found)
    assert found == pytest.approx(labels)
