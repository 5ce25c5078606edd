"""Rules of the memory: what they mean to a bank and to a search, and which are refused."""

from __future__ import annotations

import math

import pytest

from memory_store.policy import RegimeRule, Scope
from memory_store.records import BankConfig, Eviction, IndexKind, Metric
from strategies.bars import DAY_MS, HOUR_MS
from strategies.errors import SettingsError
from strategies.memory_rules import EXACT_UP_TO, IndexRule, MemoryRules

SHAPE = {"capacity": 100, "dimension": 8, "horizons": (1, 24), "primary": 1, "embargo_ms": 48 * HOUR_MS}


def test_the_default_rules_are_those_of_a_plain_memory():
    plain = BankConfig(**SHAPE, metric=Metric.COSINE)
    assert MemoryRules().bank_config(**SHAPE, outcome_scale=0.03) == plain
    assert MemoryRules().policy(temperature=0.07, cluster_ms=72 * HOUR_MS) is None


@pytest.mark.parametrize("eviction", [Eviction.IMPORTANCE, Eviction.RESERVOIR])
def test_importance_has_a_half_life_and_a_scale(eviction):
    rules = MemoryRules(eviction=eviction, eviction_half_life_days=0.5)
    config = rules.bank_config(**SHAPE, outcome_scale=0.03)
    assert (config.eviction, config.half_life_ms, config.outcome_scale) == (eviction, DAY_MS // 2, 0.03)
    assert not rules.keeps_latest
    with pytest.raises(SettingsError, match=f"eviction is {eviction.value}; with index approximate it must be fifo"):
        MemoryRules(eviction=eviction, index=IndexRule.APPROXIMATE)
    config = rules.bank_config(**{**SHAPE, "capacity": EXACT_UP_TO + 1}, outcome_scale=0.03)
    assert config.index is IndexKind.EXACT


@pytest.mark.parametrize(
    ("rule", "capacity", "kind"),
    [
        ("auto", EXACT_UP_TO, IndexKind.EXACT),
        ("auto", EXACT_UP_TO + 1, IndexKind.APPROXIMATE),
        ("exact", EXACT_UP_TO + 1, IndexKind.EXACT),
        ("approximate", 100, IndexKind.APPROXIMATE),
    ],
)
def test_a_memory_is_searched_exactly_up_to_a_size_unless_it_is_said_otherwise(rule, capacity, kind):
    config = MemoryRules(index=rule).bank_config(**{**SHAPE, "capacity": capacity}, outcome_scale=0.03)
    assert config.index is kind


def test_an_archive_is_passed_on_and_needs_the_oldest_to_make_room():
    assert MemoryRules(sealed_size=50).bank_config(**SHAPE, outcome_scale=0.03).holds == 150
    with pytest.raises(SettingsError, match="eviction is importance; with a sealed_size it must be fifo"):
        MemoryRules(eviction=Eviction.IMPORTANCE, sealed_size=50)


def test_a_policy_counts_its_penalties_in_the_temperature_of_the_vote():
    rules = MemoryRules(age_half_life_days=2.0, regimes=RegimeRule.PREFER, scope=Scope.OTHER, minimum_similarity=0.1)
    policy = rules.policy(temperature=0.02, cluster_ms=HOUR_MS)
    assert (policy.half_life_ms, policy.temperature, policy.cluster_ms) == (2 * DAY_MS, 0.02, HOUR_MS)
    assert (policy.regimes, policy.scope, policy.minimum_similarity) == (RegimeRule.PREFER, Scope.OTHER, 0.1)


@pytest.mark.parametrize(
    "change",
    [
        {"age_half_life_days": 90.0},
        {"scope": "same"},
        {"regimes": "same"},
        {"regimes": "prefer"},
        {"minimum_similarity": 0.0},
        {"one_per_moment": True},
    ],
)
def test_every_rule_of_a_search_makes_a_policy(change):
    assert MemoryRules(**change).policy(temperature=0.07, cluster_ms=HOUR_MS) is not None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("eviction", "oldest"),
        ("eviction_half_life_days", 0.0),
        ("eviction_half_life_days", math.nan),
        ("index", "fast"),
        ("age_half_life_days", -1.0),
        ("scope", "mine"),
        ("regimes", "bull"),
        ("regime_penalty", -0.1),
        ("minimum_similarity", -1.1),
        ("glitch_wick", math.inf),
    ],
)
def test_a_rule_out_of_range_is_named(name, value):
    with pytest.raises(SettingsError, match=f"^memory: {name} is .*; it must be "):
        MemoryRules(**{name: value})
