"""The sandbox's messages have the shape of the venue's own, to the field and its order."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtest.sandbox import protocol
from bot.execution.instruments import Instrument
from strategies.bars import HOUR_MS, Bar

BAR = Bar("BTCUSDT", 0, HOUR_MS, 65119.9, 65119.9, 65114.2, 65114.0, 3.712)
NEW = Bar("BTCUSDT", HOUR_MS, 2 * HOUR_MS, 65114.0, 65114.0, 65114.0, 65114.0, 9.0)


@pytest.fixture
def wire(real_data: Path) -> Path:
    """Folder of recorded messages beside the real candles."""
    folder = real_data.parent / "wire"
    if not folder.is_dir():
        pytest.skip("no recorded messages here: put a folder named wire beside the real candles")
    return folder


def shape(value: object) -> object:
    """Names in order and kinds of values, all the way down."""
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [shape(inner) for inner in value]
    return type(value).__name__


def test_a_close_message_is_shaped_like_a_recorded_one(wire):
    recorded = (wire / "capture" / "ws_linear_kline_confirm_true.jsonl").read_text().splitlines()[0]
    candles = [
        protocol.candle(BAR, "60", confirm=True, timestamp=HOUR_MS),
        protocol.candle(protocol.forming(NEW, HOUR_MS), "60", confirm=False, timestamp=HOUR_MS),
    ]
    made = json.loads(protocol.kline_push("BTCUSDT", "60", candles, HOUR_MS))
    assert json.dumps(shape(made)) == json.dumps(shape(json.loads(recorded)))
    closed, opened = made["data"]
    assert (closed["start"], closed["end"], closed["confirm"], closed["close"]) == (0, HOUR_MS - 1, True, "65114")
    assert (opened["open"], opened["close"], opened["volume"], opened["confirm"]) == ("65114", "65114", "0", False)


def test_acknowledgements_and_pongs_are_shaped_like_recorded_ones(wire):
    samples = [json.loads(line) for line in (wire / "errors" / "pongs_and_acks.jsonl").read_text().splitlines()]
    bodies = {(sample["channel"], sample["kind"]): sample["body"] for sample in samples}
    pong = json.loads(protocol.pong("c", ""))
    assert json.dumps(shape(pong)) == json.dumps(shape(bodies["linear/inverse public", "pong"]))
    answer = json.loads(protocol.acknowledgement("subscribe", "c", ""))
    assert json.dumps(shape(answer)) == json.dumps(shape(bodies["linear public", "subscribe-ack"]))


def test_an_instrument_has_the_fields_of_a_recorded_one(wire):
    path = wire / "capture" / "rest_instruments_info_linear_selected.json"
    rows = {row["symbol"]: row for row in json.loads(path.read_text())["result"]["list"]}
    recorded = rows["BTCUSDT"]
    made = protocol.instrument_row(Instrument("BTCUSDT"))
    assert shape(made) == {name: kind for name, kind in shape(recorded).items() if name != "symbolId"}


def test_rest_replies_have_the_common_envelope():
    assert list(protocol.reply({}, 5)) == list(protocol.error(10001, "no", 5))
    assert protocol.time_result(1688639403423) == {"timeSecond": "1688639403", "timeNano": "1688639403423000000"}
    assert protocol.kline_result("BTCUSDT", [BAR, NEW])["list"] == [
        ["3600000", "65114", "65114", "65114", "65114", "9", "586026"],
        ["0", "65119.9", "65119.9", "65114.2", "65114", "3.712", "241710.7157"],
    ]


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_is_written_without_exponent_and_reads_back_as_itself(value):
    text = protocol.number_text(value)
    assert "e" not in text.lower()
    assert float(text) == value


@pytest.mark.parametrize(
    ("arguments", "refusal"),
    [
        (["kline.60.BTCUSDT"], ""),
        (["kline.60.ETHUSDT", "kline.60.NOPE", "bad"], "Invalid symbol :[kline.60.NOPE]"),
        (["getOrderBook.1.BTCUSDT"], "error:handler not found,topic:getOrderBook.1.BTCUSDT"),
        (["kline.5.BTCUSDT"], "error:handler not found,topic:kline.5.BTCUSDT"),
        (["kline.60.HELD"], "error:already subscribed,topic:kline.60.HELD"),
    ],
)
def test_a_subscription_is_refused_whole_for_its_first_bad_topic(arguments, refusal):
    known = dict.fromkeys(["BTCUSDT", "ETHUSDT", "HELD"])
    assert protocol.first_bad_topic(arguments, ["60"], known, {"kline.60.HELD"}) == refusal
