"""What the first release computed and wrote, an engine that is told nothing computes and writes still.

Change a digest only on purpose: journals of earlier versions are audited against what they hold.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from backtest.replay import replay
from bot.execution.fills import Costs
from bot.orders import ExecutionKind
from bot.portfolio import ClosedTrade
from bot.risk import RiskLimits
from strategies.baselines import SmaCross
from tests.bot.scenes import A, B, engine_of, walk

DECISIONS = "e0b4f6cafa9c310454264030023080a24be3b3c65d73f84b2da2394342a41c95"
TRADES = "1323a8b084cdd60ea9144105015fc620113f1970d63f4ae35f16af8f4a47513e"
WRITTEN = {
    "decisions": "9a115d2407ded74b1f3974d37c00741dfae00c4aa4fd9c784bd484f5b9d8f859",
    "executions": "03aba0745bfb180b747966d6bf5730852a10b112c16dcda8415b27b7a459aeaf",
    "state": "b1e2983acfc50af193b8f803849c1b3c3c079fae7cac42cd885ed6b604d1dfd2",
}


def digest(value: Any) -> str:
    return hashlib.sha256(msgspec.json.encode(value)).hexdigest()


def test_a_run_of_the_first_release_comes_out_the_same_and_is_written_the_same() -> None:
    """4,691 fills of market orders, stops and targets over two symbols."""
    trades: list[ClosedTrade] = []
    limits = RiskLimits(stop_loss=0.01, take_profit=0.02)
    engine = engine_of(SmaCross(5, 20), A, B, limits=limits, costs=Costs(), trades=trades)
    result = replay(engine, {A: walk(4_000, 1), B: walk(4_000, 2, B)}, trades=trades, keep_all_decisions=True)
    assert (len(result.executions), len(trades)) == (4_691, 2_378)
    assert {fill.kind for fill in result.executions} == {
        ExecutionKind.MARKET,
        ExecutionKind.STOP_LOSS,
        ExecutionKind.TAKE_PROFIT,
    }
    assert (result.decisions_sha256, result.trades_sha256) == (DECISIONS, TRADES)
    written = {"decisions": result.decisions, "executions": result.executions, "state": engine.state()}
    assert {name: digest(value) for name, value in written.items()} == WRITTEN
