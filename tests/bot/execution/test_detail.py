"""Finer candles: the order of events inside a bar, by the same rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal

import msgspec
import pytest

from bot.execution.detail import finer_bars_of
from bot.execution.fills import PLAIN, FillModel, FillRules
from bot.orders import Execution, ExecutionKind, Order, Side
from strategies.bars import MINUTE_MS, Bar, BarSeries
from tests.bot.scenes import FREE, START, A, bar, instruments, order

BUY = Side.BUY
STOP, TARGET, MARKET = ExecutionKind.STOP_LOSS, ExecutionKind.TAKE_PROFIT, ExecutionKind.MARKET


def quarters(number: int, *closes: float) -> list[Bar]:
    """The hour of that number as bars of 15 minutes, each opening at the close before, the first at 100."""
    opens = [100.0, *closes[:-1]]
    step = 15 * MINUTE_MS
    start = bar(number).open_time
    return [
        Bar(A, start + i * step, start + (i + 1) * step, a, max(a, b), min(a, b), b, 1.0)
        for i, (a, b) in enumerate(zip(opens, closes, strict=True))
    ]


def hour(parts: Sequence[Bar]) -> Bar:
    return Bar(
        A,
        parts[0].open_time,
        parts[-1].close_time,
        parts[0].open,
        max(part.high for part in parts),
        min(part.low for part in parts),
        parts[-1].close,
        sum(part.volume for part in parts),
    )


def run(
    parts: Sequence[Bar], *orders: Order, rules: FillRules = PLAIN, finer: Sequence[Bar] | None = None
) -> list[Execution]:
    series = BarSeries.of(list(parts if finer is None else finer), "15")
    model = FillModel(FREE, instruments(A), rules, finer_bars=finer_bars_of({A: series}))
    for each in orders:
        model.submit(each)
    return model.on_bars([hour(parts)])


@pytest.mark.parametrize(
    ("closes", "kind"), [((106.0, 94.0, 100.0, 100.0), TARGET), ((94.0, 106.0, 100.0, 100.0), STOP)]
)
def test_stop_and_target_in_one_bar_are_decided_by_which_came_first(
    closes: tuple[float, ...], kind: ExecutionKind
) -> None:
    fills = run(quarters(0, *closes), order(BUY, "1", stop="95", target="105"))
    assert [fill.kind for fill in fills] == [MARKET, kind]
    assert fills[1].time == START


def test_within_the_same_finer_bar_the_worst_is_assumed_again() -> None:
    parts = quarters(0, 100.0, 100.0, 100.0, 100.0)
    parts[2] = msgspec.structs.replace(parts[2], high=106.0, low=94.0)
    fills = run(parts, order(BUY, "1", stop="95", target="105"))
    assert [fill.kind for fill in fills] == [MARKET, STOP]
    assert fills[1].time == parts[2].open_time


def test_a_limit_order_that_fills_early_in_a_bar_may_reach_its_target_late_in_it() -> None:
    fills = run(quarters(0, 94.0, 94.0, 106.0, 106.0), order(BUY, "1", limit="95", target="105"))
    assert [fill.kind for fill in fills] == [ExecutionKind.LIMIT, TARGET]


@pytest.mark.parametrize("broken", ["missing", "other market"])
def test_finer_candles_that_do_not_make_up_the_bar_are_not_believed(broken: str) -> None:
    parts = quarters(0, 106.0, 94.0, 100.0, 100.0)
    finer = (
        parts[:1] + parts[2:] if broken == "missing" else [msgspec.structs.replace(parts[0], high=107.0), *parts[1:]]
    )
    fills = run(parts, order(BUY, "1", stop="95", target="105"), finer=finer)
    assert [fill.kind for fill in fills] == [MARKET, STOP]


def test_a_delayed_order_still_waits_for_whole_bars() -> None:
    parts = quarters(0, 101.0, 102.0, 103.0, 104.0)
    assert run(parts, order(BUY, "1"), rules=replace(PLAIN, delay_bars=1)) == []


def test_an_order_that_the_volume_holds_back_goes_on_with_the_next_finer_bar() -> None:
    rules = replace(PLAIN, participation=0.5)
    fills = run(quarters(0, 101.0, 102.0, 103.0, 104.0), order(BUY, "1.2"), rules=rules)
    assert [(fill.quantity, fill.price) for fill in fills] == [
        (Decimal("0.5"), 100),
        (Decimal("0.5"), 101),
        (Decimal("0.2"), 102),
    ]
