"""The plain numbers against NautilusTrader, on bars that open where the one before closed.

It fills a market order at the close that it was decided on; ours meets the next open. Where both are one price, so are the
fills. It runs in an environment of its own: ``RECALL_NAUTILUS`` names the interpreter, else the test skips.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from strategies.bars import BarSeries
from tests.backtest.test_independent_engine import CASH, CENT, continuous, ours
from tests.bot.scenes import walk

PEER = Path(__file__).with_name("nautilus_peer.py")
NAUTILUS = os.environ.get("RECALL_NAUTILUS", "")


def theirs(series: BarSeries, fee: str) -> Any:
    given = {name: getattr(series, name).tolist() for name in ("close_time", "open", "high", "low", "close")}
    told = subprocess.run(
        [NAUTILUS, str(PEER)],
        input=json.dumps({"cash": CASH, "fee": fee, **given}),
        capture_output=True,
        text=True,
        check=True,
        timeout=240,
    )
    return json.loads(told.stdout.strip().splitlines()[-1])


@pytest.mark.slow
@pytest.mark.skipif(
    not NAUTILUS,
    reason="set RECALL_NAUTILUS to the python of an environment with nautilus_trader==1.221",
)
@pytest.mark.parametrize("fee", ["0", "0.00055"])
def test_a_cross_fills_and_is_worth_to_the_cent_what_it_is_in_nautilus_trader(fee: str) -> None:
    series = continuous(walk(3_000, 1, volatility=0.004))
    result, peer = ours(series, fee, False), theirs(series, fee)
    mine = [(fill.time, fill.side, fill.quantity, fill.price, fill.fee) for fill in result.executions]
    assert len(mine) >= 25
    assert [(when, side) for when, side, *_ in mine] == [(when, side) for when, side, *_ in peer["fills"]]
    amounts = np.array([[float(each) for each in fill[2:]] for fill in mine])
    assert np.abs(amounts - np.array([fill[2:] for fill in peer["fills"]])).max() < CENT
    assert np.abs(result.equity - np.array(peer["equity"])).max() < CENT
