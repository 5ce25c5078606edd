"""The private side of Bybit without a venue: codes, limits, the clock, messages in any order, reconciliation."""

from __future__ import annotations

import itertools
import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.execution.bybit.clock import PAST_BIAS_MS, ClockSample, VenueClock
from bot.execution.bybit.codes import Action, action_of, action_of_status, known_codes
from bot.execution.bybit.decode import (
    ExecutionType,
    VenueExecution,
    VenueOrder,
    VenueOrderStatus,
    decode_executions,
    decode_orders,
    decode_positions,
    decode_wallets,
)
from bot.execution.bybit.rate_limits import EndpointGroup, RateLimits
from bot.execution.bybit.reconciliation import JournalView, VenueView, corrected, reconcile
from bot.execution.bybit.tracking import TrackedOrder
from bot.orders import Side

Status = VenueOrderStatus


def told(status: Status, filled: str = "0", name: str = "mine", **changes: Any) -> VenueOrder:
    values = {
        "order_id": "o1",
        "client_order_id": name,
        "symbol": "BTCUSDT",
        "side": Side.BUY,
        "status": status,
        "quantity": Decimal(3),
        "filled": Decimal(filled),
        "average_price": None,
        "reason": "",
        "updated_at": 1,
    }
    return VenueOrder(**{**values, **changes})


def fill(number: int, quantity: str = "1", name: str = "mine", **changes: Any) -> VenueExecution:
    values = {
        "execution_id": f"e{number}",
        "order_id": "o1",
        "client_order_id": name,
        "symbol": "BTCUSDT",
        "kind": ExecutionType.TRADE,
        "side": Side.BUY,
        "quantity": Decimal(quantity),
        "price": Decimal(100),
        "fee": Decimal(0),
        "is_maker": False,
        "stop_type": "",
        "time": number,
        "sequence": number,
    }
    return VenueExecution(**{**values, **changes})


def after(messages: list[VenueOrder | VenueExecution]) -> TrackedOrder:
    order = TrackedOrder("mine", Decimal(3))
    for message in messages:
        order = order.heard(message) if isinstance(message, VenueOrder) else order.executed(message)
    return order


FILLED = [told(Status.NEW), fill(1), told(Status.PARTIALLY_FILLED, "1"), fill(2, "2"), told(Status.FILLED, "3")]
CUT_SHORT = [told(Status.NEW), fill(1), told(Status.CANCELLED, "1"), told(Status.PARTIALLY_FILLED, "1")]


@pytest.mark.parametrize(
    ("messages", "status", "filled"), [(FILLED, Status.FILLED, 3), (CUT_SHORT, Status.CANCELLED, 1)]
)
def test_the_same_messages_in_every_order_end_in_the_same_state(messages, status, filled):
    states = {after(list(order)) for order in itertools.permutations(messages)}
    assert len(states) == 1
    (state,) = states
    assert (state.status, state.filled, state.is_final) == (status, filled, True)


@given(st.lists(st.sampled_from(FILLED), max_size=20))
def test_messages_that_come_again_change_nothing(extra):
    assert after([*FILLED, *extra]) == after(FILLED)
    assert after([*extra, *FILLED]) == after(FILLED)


def test_a_second_filled_that_claims_a_cancellation_is_not_believed():
    assert after([*FILLED, told(Status.CANCELLED, "3")]).status is Status.FILLED


def test_an_order_is_not_over_while_a_fill_that_it_speaks_of_has_not_arrived():
    order = after([told(Status.CANCELLED, "1")])
    assert (order.is_final, order.missing) == (False, 1)
    assert order.executed(fill(1)).is_final


@pytest.mark.parametrize(
    ("code", "action"),
    [
        (0, Action.ACCEPT),
        (110043, Action.ACCEPT),
        (10006, Action.RETRY),
        (10002, Action.RESYNCHRONISE),
        (10000, Action.LOOK_UP),
        (10016, Action.LOOK_UP),
        (110072, Action.LOOK_UP),
        (10001, Action.REFUSE),
        (110094, Action.REFUSE),
        (110007, Action.STAND_DOWN),
        (10003, Action.STOP),
        (33004, Action.STOP),
    ],
)
def test_every_code_has_its_answer(code, action):
    assert action_of(code) is action


def test_a_code_that_nobody_knows_is_looked_up_since_it_may_have_happened():
    assert 987654 not in known_codes()
    assert action_of(987654) is Action.LOOK_UP


def test_a_ban_of_the_address_is_never_asked_again_and_a_broken_gateway_is_looked_up():
    assert action_of_status(403) is Action.STAND_DOWN
    assert {action_of_status(status) for status in (429, 500, 502, 503)} == {Action.LOOK_UP}


def test_reads_never_take_what_is_kept_for_cancels():
    limits = RateLimits(now=0.0)
    while not limits.reserve(EndpointGroup.READ, 0.0):
        pass
    while not limits.reserve(EndpointGroup.CREATE, 0.0):
        pass
    assert limits.reserve(EndpointGroup.CANCEL, 0.0) == 0.0


@given(st.lists(st.tuples(st.sampled_from(list(EndpointGroup)), st.floats(0, 0.2)), max_size=300))
def test_no_group_ever_gets_more_than_its_limit_in_a_second(requests):
    limits, now, granted = RateLimits(now=0.0), 0.0, []
    for group, later in requests:
        now += later
        if not limits.reserve(group, now):
            granted.append((group, now))
    for group, begin in granted:
        within = [at for of, at in granted if of is group and begin < at <= begin + 1.0]
        # A full bucket and what drops into it within the second.
        assert len(within) <= 2 * {"read": 40, "fee_rate": 4}.get(str(group), 8)


def test_a_request_that_must_wait_is_told_for_how_long():
    limits = RateLimits(now=0.0)
    for _ in range(8):
        assert limits.reserve(EndpointGroup.CREATE, 0.0) == 0.0
    wait = limits.reserve(EndpointGroup.CREATE, 0.0)
    assert wait == pytest.approx(1 / 8)
    assert limits.reserve(EndpointGroup.CREATE, wait) == 0.0


@given(
    st.integers(-5_000, 5_000), st.lists(st.tuples(st.integers(0, 400), st.integers(0, 400)), min_size=1, max_size=9)
)
def test_a_timestamp_is_never_in_the_venues_future_however_the_line_delays(offset, delays):
    clock = VenueClock()
    for number, (out, back) in enumerate(delays):
        sent = 1_000_000 + number * 1000
        clock = clock.learned(ClockSample(sent, sent + out + back, sent + out + offset))
    assert clock.timestamp(2_000_000) < 2_000_000 + offset + 1000
    assert clock.timestamp(2_000_000) >= 2_000_000 + offset - 5000
    assert abs(clock.offset - offset) <= min((out + back + 1) // 2 for out, back in delays)


def test_a_clock_that_nobody_has_measured_is_believed():
    assert VenueClock().timestamp(1000) == 1000 - PAST_BIAS_MS


def test_empty_texts_and_unknown_words_are_tolerated():
    row = {"orderId": "o", "symbol": "X", "orderStatus": "Dreaming", "qty": "", "avgPrice": "", "side": ""}
    (order,) = decode_orders([row])
    assert (order.status, order.quantity, order.average_price, order.is_open) == (Status.UNKNOWN, 0, None, True)
    (flat,) = decode_positions([{"symbol": "X", "side": "", "size": "0", "liqPrice": ""}])
    assert flat.quantity == 0
    (wallet,) = decode_wallets([{"totalEquity": "10", "totalAvailableBalance": "", "coin": [{"coin": "USDT"}]}])
    assert (wallet.available, wallet.coins) == (None, {"USDT": 0})


def test_a_rebate_is_a_fee_below_nothing_and_funding_is_no_trade():
    rows = [{"execId": "e", "symbol": "X", "execFee": "-0.1", "execType": "Funding", "side": "Sell", "execQty": "2"}]
    (execution,) = decode_executions(rows)
    assert (execution.fee, execution.kind) == (Decimal("-0.1"), ExecutionType.FUNDING)
    assert after([fill(1, kind=ExecutionType.FUNDING)]).filled == 0


NAMES = ["orderId", "symbol", "side", "qty", "cumExecQty", "execId", "execQty", "size", "coin", "updatedTime", "seq"]
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.floats()
    | st.integers()
    | st.text()
    | st.sampled_from(["Buy", "1e999", "NaN", "-0"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES) | st.text(), inner, max_size=6),
    max_leaves=20,
)


@given(JSON)
def test_whatever_the_venue_sends_no_decoder_raises(value):
    value = json.loads(json.dumps(value))
    for decode in (decode_orders, decode_executions, decode_positions, decode_wallets):
        for row in decode(value):
            assert row == row
        decode([value])


QUANTITIES = st.sampled_from(["1", "2", "0.5"])
FILLS = st.lists(
    st.builds(
        lambda number, quantity, name, side: fill(number, quantity, name, order_id=name, side=side),
        st.integers(0, 9),
        QUANTITIES,
        st.sampled_from(["a", "b", "stranger"]),
        st.sampled_from(list(Side)),
    ),
    max_size=8,
    unique_by=lambda execution: execution.execution_id,
)
ORDERS = st.lists(
    st.builds(
        lambda name, status: told(status, name=name, order_id=name),
        st.sampled_from(["a", "b", "stranger"]),
        st.sampled_from(list(Status)),
    ),
    max_size=3,
    unique_by=lambda order: order.order_id,
)


def view(seen: list[VenueExecution], working: frozenset[str]) -> JournalView:
    held = sum((e.quantity * e.side.sign for e in seen if e.side is not None), Decimal(0))
    names = frozenset(execution.execution_id for execution in seen)
    return JournalView(working, frozenset({"a", "b"}), names, {"BTCUSDT": held})


@given(
    FILLS,
    ORDERS,
    st.sets(st.integers(0, 9)),
    st.frozensets(st.sampled_from(["a", "b"])),
    st.decimals("-3", "3", places=1),
)
def test_reconciliation_converges_in_one_pass_and_leaves_what_is_foreign(executions, orders, seen, working, held):
    ours = [e for e in executions if e.client_order_id != "stranger"]
    journal = view([e for e in ours if e.time in seen], working)
    venue = VenueView(tuple(orders), tuple(executions), {"BTCUSDT": held})
    found = reconcile(journal, venue)
    again = reconcile(corrected(journal, found), venue)
    assert (again.missed, again.ended) == ((), ())
    assert again.foreign_orders == found.foreign_orders
    assert again.foreign_positions == found.foreign_positions
    assert all(missed.execution in ours for missed in found.missed)
    assert found == reconcile(journal, VenueView(tuple(reversed(orders)), tuple(reversed(executions)), venue.positions))


@given(FILLS, st.sets(st.integers(0, 9)))
def test_fills_that_were_missed_explain_the_position(executions, seen):
    ours = [e for e in executions if e.client_order_id != "stranger"]
    whole = view(ours, frozenset())
    found = reconcile(
        view([e for e in ours if e.time in seen], frozenset()), VenueView((), tuple(ours), whole.positions)
    )
    assert {missed.execution.execution_id for missed in found.missed} == {
        e.execution_id for e in ours if e.time not in seen
    }
    assert not found.foreign_orders and not found.foreign_positions
    assert corrected(view([e for e in ours if e.time in seen], frozenset()), found) == whole


def test_an_order_or_a_position_of_somebody_else_is_a_reason_to_stand_down():
    journal = view([], frozenset())
    found = reconcile(
        journal, VenueView((told(Status.NEW, name="theirs", symbol="ETHUSDT"),), (), {"SOLUSDT": Decimal(1)})
    )
    assert [foreign.order.symbol for foreign in found.foreign_orders] == ["ETHUSDT"]
    assert [foreign.symbol for foreign in found.foreign_positions] == ["SOLUSDT"]
    assert reconcile(journal, VenueView((told(Status.CANCELLED, name="theirs"),), (), {})).is_equal
