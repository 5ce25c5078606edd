"""Who trades a model whose direction has shown no skill: a replay by default, real money only by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bot.assembly import build_strategy, home_of, needs_skill
from bot.config import Config, load_config
from bot.doctor.check import Check
from bot.doctor.stored import stored_checks
from strategies.memory_transformer.bundle import load_bundle, save_bundle
from strategies.memory_transformer.evaluation import Comparison
from strategies.memory_transformer.strategy import MemoryTransformerStrategy
from strategies.memory_transformer.training import TrainedModel
from tests.strategies.memory_transformer.tiny import tiny_training

CLEAR, CHANCE = Comparison(0.03, 0.01, 9), Comparison(0.019, 0.01, 9)
WORSE, SHORT = Comparison(-0.03, 0.01, 9), Comparison(0.03, None, 4)


@pytest.fixture(scope="module")
def trained() -> TrainedModel:
    return tiny_training()


def settings(folder: Path, *overrides: str) -> Config:
    base = (
        f"storage.data_dir={folder}",
        "strategy.name=memory_transformer",
        "market.symbols=AAAUSDT",
        "market.interval=60",
    )
    return load_config(overrides=[*base, *overrides], environment={})


def saved(folder: Path, trained: TrainedModel, found: Comparison) -> str:
    """A model whose validation found this of its direction."""
    assert trained.report.validation is not None
    report = replace(trained.report, validation=replace(trained.report.validation, direction=found))
    return save_bundle(home_of(settings(folder)).models, replace(trained, report=report))


@pytest.mark.parametrize(
    ("overrides", "asked"),
    [
        ((), False),
        (("live.mode=live",), True),
        (("live.mode=live", "signal.unproven=trade"), False),
        (("signal.unproven=abstain",), True),
    ],
)
def test_skill_is_asked_for_where_money_is_real_unless_the_settings_say_otherwise(
    tmp_path: Path, trained: TrainedModel, overrides: tuple[str, ...], asked: bool
) -> None:
    saved(tmp_path, trained, CHANCE)
    config = settings(tmp_path, *overrides)
    assert needs_skill(config) is asked
    strategy, _ = build_strategy(config, ("AAAUSDT",), "60", home_of(config).models)
    assert isinstance(strategy, MemoryTransformerStrategy)
    assert strategy.settings.needs_skill is asked


@pytest.mark.parametrize(("found", "skilled"), [(CLEAR, True), (CHANCE, False), (WORSE, False), (SHORT, False)])
def test_a_bundle_keeps_whether_its_direction_beat_shuffled_outcomes_by_more_than_chance(
    tmp_path: Path, trained: TrainedModel, found: Comparison, skilled: bool
) -> None:
    model = saved(tmp_path, trained, found)
    bundle = load_bundle(home_of(settings(tmp_path)).models / model)
    assert bundle.knows_direction is skilled
    verdict = bundle.description["metrics"]["direction_verdict"]
    assert verdict.startswith(f"what positions follow has shown {'skill' if skilled else 'no skill'}")


def direction(folder: Path, *overrides: str) -> Check:
    config = settings(folder, *overrides)
    return next(check for check in stored_checks(config, home_of(config), None) if check.name == "direction")


def test_the_doctor_finds_a_model_without_skill_bad_where_money_is_real_and_names_the_fix(
    tmp_path: Path, trained: TrainedModel
) -> None:
    saved(tmp_path, trained, CHANCE)
    real = direction(tmp_path, "live.mode=live")
    assert not real.good and "stays flat" in real.found and "--set signal.unproven=trade" in real.fix
    assert direction(tmp_path).good and "stays flat" in direction(tmp_path).found
    assert direction(tmp_path, "live.mode=live", "signal.unproven=trade").good
    assert direction(tmp_path, "live.mode=live", "signal.unproven=abstain").good
    saved(tmp_path, trained, CLEAR)
    skilled = direction(tmp_path, "live.mode=live")
    assert skilled.good and skilled.found == "has shown skill on validation"
