"""Frames as the venue really sends them, and as nobody should."""

from __future__ import annotations

import json
import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.market.quality import bar_fault
from bot.market.wire import Acknowledgement, KlineFrame, Malformed, OtherFrame, Pong, decode_frame, number
from strategies.bars import HOUR_MS, Bar, Calendar

CANDLE = {
    "start": 0,
    "end": 59_999,
    "interval": "1",
    "open": "1",
    "close": "2",
    "high": "3",
    "low": "0.5",
    "volume": "7",
}


def kline(**changes: object) -> str:
    return json.dumps({"topic": "kline.1.BTCUSDT", "data": [{**CANDLE, **changes}], "ts": 60_100, "type": "snapshot"})


def test_every_recorded_message_decodes_to_what_it_is(wire):
    seen = set()
    for path in sorted((wire / "capture").glob("*.jsonl")):
        for line in path.read_text().splitlines():
            message = json.loads(line)
            text = json.dumps(message["msg"]) if "msg" in message else line
            frame = decode_frame(text)
            assert not isinstance(frame, Malformed), (path.name, frame)
            assert frame == decode_frame(text.encode())
            expected = KlineFrame if "kline" in path.name else Acknowledgement if "_ack" in path.name else OtherFrame
            assert isinstance(frame, expected), (path.name, frame)
            if isinstance(frame, KlineFrame):
                for candle in frame.candles:
                    values = (candle.open, candle.high, candle.low, candle.close, candle.volume)
                    bar = Bar(frame.symbol, candle.open_time, candle.close_time, *values)
                    fault = bar_fault(bar, frame.interval, Calendar.CONTINUOUS, frame.venue_time)
                    assert fault is None or not candle.confirmed, (path.name, fault)
                seen.add(any(candle.confirmed for candle in frame.candles))
    assert seen == {True, False}


def test_every_recorded_pong_and_acknowledgement_is_recognised(wire):
    for line in (wire / "errors" / "pongs_and_acks.jsonl").read_text().splitlines():
        sample = json.loads(line)
        frame = decode_frame(json.dumps(sample["body"]))
        if sample["kind"] == "pong":
            assert frame == Pong(), sample
        elif "success" in sample["body"]:
            assert isinstance(frame, Acknowledgement), sample
            assert frame.success
        else:
            assert isinstance(frame, OtherFrame), sample


def test_a_close_message_carries_the_closed_candle_and_the_new_one():
    closed = {**CANDLE, "confirm": True}
    opened = {**CANDLE, "start": 60_000, "end": 119_999, "volume": "0", "confirm": False}
    frame = decode_frame(json.dumps({"topic": "kline.1.BTCUSDT", "data": [closed, opened], "ts": 60_100}))
    assert isinstance(frame, KlineFrame)
    assert [(candle.open_time, candle.close_time, candle.confirmed) for candle in frame.candles] == [
        (0, 60_000, True),
        (60_000, 120_000, False),
    ]
    assert (frame.symbol, frame.interval, frame.venue_time) == ("BTCUSDT", "1", 60_100)


@pytest.mark.parametrize("value", ["", None, "abc", "1_000", "--1"])
def test_a_number_that_is_missing_or_unreadable_is_nan_and_costs_only_itself(value):
    frame = decode_frame(kline(open=value))
    assert isinstance(frame, KlineFrame)
    assert math.isnan(frame.candles[0].open)
    assert frame.candles[0].close == 2.0


def test_numbers_without_quotes_are_numbers_too():
    assert number(1.5) == 1.5
    assert number(3) == 3.0
    assert math.isnan(number(10**400))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "[]",
        "[" * 100_000,
        "{}",
        '"kline"',
        kline(start="0"),
        kline(start=-1),
        kline(end=2**60),
        kline(confirm="yes"),
        '{"topic":"kline.1.BTCUSDT","ts":1}',
        '{"topic":"kline.1.BTCUSDT","data":{}}',
        '{"topic":"kline.1","data":[]}',
        b"\xff\xfe",
    ],
)
def test_a_malformed_frame_comes_back_as_such_with_a_reason(text):
    frame = decode_frame(text)
    assert isinstance(frame, Malformed)
    assert frame.reason


@given(st.one_of(st.binary(max_size=200), st.text(max_size=200)))
def test_no_bytes_at_all_make_the_decoder_raise(data):
    decode_frame(data)


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)),
    max_leaves=6,
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "topic": st.one_of(st.sampled_from(["kline.1.BTCUSDT", "kline.", "kline.1.", "tickers.X"]), json_values),
            "op": st.one_of(st.sampled_from(["pong", "ping", "subscribe"]), json_values),
            "success": json_values,
            "ret_msg": json_values,
            "retMsg": json_values,
            "req_id": json_values,
            "ts": json_values,
            "data": st.one_of(
                json_values,
                st.lists(
                    st.fixed_dictionaries(
                        {"start": st.one_of(st.integers(), json_values), "end": st.one_of(st.integers(), json_values)},
                        optional=dict.fromkeys(("open", "high", "low", "close", "volume", "confirm"), json_values),
                    ),
                    max_size=3,
                ),
            ),
        },
    )
)
def test_no_well_formed_nonsense_makes_the_decoder_raise(message):
    frame = decode_frame(json.dumps(message))
    assert isinstance(frame, KlineFrame | Acknowledgement | Pong | OtherFrame | Malformed)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"open": math.nan}, "no number"),
        ({"close": math.inf}, "no number"),
        ({"low": 0.0}, "not positive"),
        ({"high": 1.0, "low": 2.0}, "below its low"),
        ({"volume": -1.0}, "volume"),
        ({"close_time": HOUR_MS - 1}, "closes at"),
        ({"open_time": 2**52, "close_time": 2**52 + HOUR_MS}, "before its close"),
    ],
)
def test_a_bar_that_cannot_be_believed_is_named_with_its_fault(changes, words):
    good = Bar("X", 0, HOUR_MS, 2.0, 3.0, 1.0, 2.0, 0.0)
    assert bar_fault(good, "60", Calendar.CONTINUOUS, HOUR_MS) is None
    fault = bar_fault(msgspec.structs.replace(good, **changes), "60", Calendar.CONTINUOUS, HOUR_MS)
    assert fault is not None
    assert words in fault
