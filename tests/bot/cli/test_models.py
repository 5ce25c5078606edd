"""``recall models``: what ``latest`` means, and how to change it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from strategies.memory_transformer.promotion import PROMOTION_FILE
from tests.bot.cli.terminal import recall as typed
from tests.models import MARKET, TINY, TRADES, train_tiny
from tests.runs import make_candles, recall, span


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Three models, oldest first."""
    data_dir = tmp_path_factory.mktemp("models")
    make_candles(data_dir, ("BTCUSDT",), 1_200)
    return data_dir, [train_tiny(data_dir, end) for end in (900, 950, 1_000)]


@pytest.fixture
def folder(trained: tuple[Path, list[str]], tmp_path: Path) -> tuple[Path, list[str]]:
    shutil.copytree(trained[0], tmp_path / "copy")
    return tmp_path / "copy", trained[1]


def latest(data_dir: Path) -> str:
    """The model that a backtest trades with."""
    arguments = (*MARKET, *TINY, *TRADES, *span(1_150, 1_160), "--no-plot")
    return str(recall(data_dir, "backtest", *arguments)["model_id"])


def marks(data_dir: Path) -> list[tuple[str, bool, bool]]:
    return [(row["model_id"], row["latest"], row["promoted"]) for row in recall(data_dir, "models", "list")]


def test_latest_is_the_newest_until_another_is_promoted_and_rollback_goes_back(folder: tuple[Path, list[str]]):
    data_dir, (first, second, third) = folder
    assert marks(data_dir) == [(third, True, False), (second, False, False), (first, False, False)]
    told = recall(data_dir, "models", "promote", first)
    assert (told["before"], told["run_id"]) == (third, None)
    assert latest(data_dir) == first == recall(data_dir, "models", "show", "latest")["model_id"]
    assert marks(data_dir) == [(third, False, False), (second, False, False), (first, True, True)]
    newest = train_tiny(data_dir, 1_050)
    assert latest(data_dir) == first, "a newer model does not win over one that was promoted"
    assert recall(data_dir, "models", "promote", second)["before"] == first
    assert recall(data_dir, "models", "rollback")["model_id"] == first == latest(data_dir)
    assert newest in {model_id for model_id, _, _ in marks(data_dir)}


def test_promoting_a_model_twice_changes_nothing(folder: tuple[Path, list[str]]):
    data_dir, (first, _, third) = folder
    for _ in range(2):
        assert recall(data_dir, "models", "promote", first)["before"] == third
    assert recall(data_dir, "models", "rollback")["model_id"] == third


def test_what_cannot_be_promoted_or_rolled_back_ends_in_one_sentence(folder: tuple[Path, list[str]]):
    data_dir, (first, *_) = folder
    where = ("--set", f"storage.data_dir={data_dir}")
    assert "there is no model 'mt-nope'" in typed(data_dir, "models", "promote", "mt-nope", *where).error
    assert "no model came before the one in force" in typed(data_dir, "models", "rollback", *where).error
    recall(data_dir, "models", "promote", first)
    shutil.rmtree(data_dir / "models" / first)
    trade = ("backtest", *MARKET, *TINY, *TRADES, *span(1_150, 1_160), "--no-plot", *where)
    assert f"model {first}, promoted for interval 60, is not in" in typed(data_dir, *trade).error
    (data_dir / "models" / PROMOTION_FILE).write_text("{")
    said = typed(data_dir, *trade).error
    assert "promoted.json is damaged; delete it, and latest means the newest model" in said


def test_people_see_which_model_latest_means(folder: tuple[Path, list[str]]):
    data_dir, (first, _, third) = folder
    where = ("--set", f"storage.data_dir={data_dir}")
    line = next(line for line in typed(data_dir, "models", "list", *where).out.splitlines() if third in line)
    assert line.rstrip().endswith("newest")
    said = typed(data_dir, "models", "promote", first, *where)
    assert said.code == 0 and f"latest means {first} for interval 60 in the real market" in said.err
    line = next(line for line in typed(data_dir, "models", "list", *where).out.splitlines() if first in line)
    assert line.rstrip().endswith("promoted")
