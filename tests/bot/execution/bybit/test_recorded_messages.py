"""Messages as Bybit recorded or documented them, through everything that reads the venue: none makes a reader raise."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args

from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.server import ServerConnection, serve

from bot.doctor.account import key_checks, margin_check
from bot.errors import VenueError
from bot.execution.bybit.client import Credentials, order_parameters
from bot.execution.bybit.codes import known_codes
from bot.execution.bybit.decode import (
    ExecutionType,
    VenueExecution,
    VenueOrder,
    VenueOrderStatus,
    VenuePosition,
    VenueWallet,
    decode_executions,
    decode_orders,
    decode_positions,
    decode_wallets,
)
from bot.execution.bybit.rest_session import rows_of
from bot.execution.bybit.trade_stream import TradeStream
from bot.execution.instruments import Category
from bot.market.backoff import Backoff
from bot.market.bybit_decode import decode_funding, decode_instrument, decode_klines, next_cursor
from bot.market.bybit_private_stream import PrivateEvent, PrivateStream
from bot.market.bybit_stream import KlineStream
from bot.market.wire import Malformed, decode_frame
from bot.orders import Order, OrderType, Side, TimeInForce, TriggerDirection
from strategies.bars import Calendar

NOW = datetime(2026, 1, 1, tzinfo=UTC)
AT_ONCE = Backoff(first_s=0.01, base_s=0.01, limit_s=0.02)


def messages(wire: Path) -> Iterator[tuple[str, Any]]:
    """All that parse, with the name of their file."""
    for path in sorted((wire / "docs").glob("*.json")):
        text = path.read_text()
        try:
            yield path.name, json.loads(text)
        except ValueError:
            # Some pages show several messages, or leave something out by dots.
            yield path.name, text
    for path in sorted((wire / "errors").glob("*.jsonl")):
        for line in path.read_text().splitlines():
            yield path.name, json.loads(line)["body"]
    for path in sorted((wire / "capture").glob("*.jsonl*")):
        content = path.read_bytes()
        for line in (gzip.decompress(content) if path.suffix == ".gz" else content).splitlines():
            message = json.loads(line)
            yield path.name, message.get("msg", message) if isinstance(message, dict) else message
    for path in sorted((wire / "capture").glob("*.json")):
        yield path.name, json.loads(path.read_text())


def text_of(message: Any) -> str:
    return message if isinstance(message, str) else json.dumps(message)


def example(wire: Path, name: str) -> Any:
    return json.loads((wire / "docs" / f"{name}.json").read_text())


def test_no_reader_of_frames_or_replies_raises_for_any_of_them(wire: Path) -> None:
    count = 0
    for name, message in messages(wire):
        count += 1
        frame = decode_frame(text_of(message))
        if isinstance(message, dict) and "topic" in message:
            assert not isinstance(frame, Malformed), name
        reply = message if isinstance(message, dict) else {}
        for decode in (decode_orders, decode_executions, decode_positions, decode_wallets):
            decode(rows_of(reply))
            decode(reply.get("data"))
        next_cursor(reply)
        for row in rows_of(reply):
            for category in get_args(Category):
                try:
                    decode_instrument(str(row.get("symbol")), row, "here", category)
                except VenueError as said:
                    assert "here" in str(said) or "symbol" in str(said)
        information = reply.get("result")
        key_checks(
            information if isinstance(information, dict) else {},
            NOW,
            allow_withdrawal=False,
        )
    assert count > 500


def test_all_of_them_in_a_row_kill_none_of_the_three_streams(wire: Path) -> None:
    texts = [text_of(message) for _, message in messages(wire)]

    async def public(socket: ServerConnection) -> None:
        await socket.recv()
        await socket.send('{"success":true,"ret_msg":"","op":"subscribe"}')
        for text in texts:
            await socket.send(text)
        await socket.wait_closed()

    async def private(socket: ServerConnection) -> None:
        for operation in ("auth", "subscribe"):
            await socket.recv()
            await socket.send(json.dumps({"success": True, "ret_msg": "", "op": operation}))
        for text in texts:
            await socket.send(text)
        await socket.send('{"topic":"order","data":[{"orderId":"last","symbol":"X"}]}')
        await socket.wait_closed()

    async def trade(socket: ServerConnection) -> None:
        await socket.recv()
        await socket.send('{"retCode":0,"retMsg":"OK","op":"auth"}')
        for text in texts:
            await socket.send(text)
        await socket.wait_closed()

    async def play() -> Any:
        async with (
            serve(public, "127.0.0.1", 0) as a,
            serve(private, "127.0.0.1", 0) as b,
            serve(trade, "127.0.0.1", 0) as c,
        ):
            urls = [f"ws://127.0.0.1:{one.sockets[0].getsockname()[1]}" for one in (a, b, c)]
            klines = KlineStream(urls[0], ["BTCUSDT"], "60", backoff=AT_ONCE)
            account = PrivateStream(urls[1], "key", "secret", backoff=AT_ONCE)
            entry = TradeStream(urls[2], Credentials("key", "secret"), lambda: 0, backoff=AT_ONCE)
            heard: list[PrivateEvent] = []
            async with klines, account, entry, asyncio.timeout(20):
                async for event in account:
                    heard.append(event)
                    if isinstance(event, VenueOrder) and event.order_id == "last":
                        break
                await asyncio.sleep(0.05)
                return heard, [klines.connections, account.connections, entry.connections]

    heard, connections = asyncio.run(play())
    assert connections == [1, 1, 1]
    kinds = {type(event) for event in heard}
    assert kinds >= {VenueOrder, VenueExecution, VenuePosition, VenueWallet}


def test_documented_pushes_and_lists_mean_what_they_say(wire: Path) -> None:
    (order,) = decode_orders(example(wire, "websocket__private__order__01__Stream-Example")["data"])[:1]
    assert order.order_id
    assert order.status is not VenueOrderStatus.UNKNOWN
    (execution,) = decode_executions(example(wire, "websocket__private__execution__01__Stream-Example")["data"])[:1]
    assert (execution.kind, execution.quantity > 0) == (ExecutionType.TRADE, True)
    assert decode_positions(example(wire, "websocket__private__position__01__Stream-Example")["data"])
    (wallet,) = decode_wallets(example(wire, "websocket__private__wallet__01__Stream-Example")["data"])
    assert wallet.coins
    assert decode_orders(rows_of(example(wire, "order__open-order__01__Response-Example")))
    assert decode_executions(rows_of(example(wire, "order__execution__01__Response-Example")))
    assert decode_positions(rows_of(example(wire, "position__position__01__Response-Example")))
    assert decode_wallets(rows_of(example(wire, "account__wallet-balance__01__Response-Example")))
    klines = rows_of_lists(example(wire, "market__kline__01__Response-Example"))
    assert decode_klines(klines, "BTCUSD", "1", Calendar.CONTINUOUS, 2**50, "here")
    assert decode_funding(rows_of(example(wire, "market__history-fund-rate__01__Response-Example")), "ETHPERP", "here")
    mode = example(wire, "account__account-info__01__Response-Example")["result"]["marginMode"]
    assert margin_check(mode).good
    told = key_checks(
        example(wire, "user__apikey-info__01__Response-Example")["result"],
        NOW,
        allow_withdrawal=False,
    )
    assert [(check.name, check.good) for check in told] == [
        ("key may trade", False),
        ("key may not withdraw", True),
        ("key expires", True),
    ], "that key is read-only"


def rows_of_lists(reply: Any) -> list[Any]:
    rows: list[Any] = reply["result"]["list"]
    return rows


def test_every_recorded_return_code_has_an_answer_of_its_own(wire: Path) -> None:
    bodies = [json.loads(line)["body"] for line in (wire / "errors" / "errors.jsonl").read_text().splitlines()]
    codes = {body["retCode"] for body in bodies if isinstance(body, dict) and "retCode" in body}
    assert len(codes) > 20
    assert codes <= known_codes()


AMOUNTS = st.builds(lambda digits, places: Decimal(digits).scaleb(-places), st.integers(1, 10**12), st.integers(-6, 12))


@given(AMOUNTS, AMOUNTS, AMOUNTS, AMOUNTS, st.sampled_from(list(OrderType)), st.booleans())
def test_every_number_of_an_order_is_a_plain_text_that_says_exactly_what_was_meant(
    quantity: Decimal, price: Decimal, stop: Decimal, target: Decimal, kind: OrderType, reduce_only: bool
) -> None:
    order = Order(
        "id",
        "BTCUSDT",
        Side.BUY,
        quantity,
        0,
        0,
        kind,
        price if kind is OrderType.LIMIT else None,
        reduce_only,
        stop,
        target,
        TimeInForce.GTC,
        price,
        TriggerDirection.RISE,
        False,
    )
    parameters = order_parameters(order, "linear")
    meant = {"qty": quantity, "stopLoss": stop, "takeProfit": target, "triggerPrice": price}
    if kind is OrderType.LIMIT:
        meant["price"] = price
    for name, number in meant.items():
        text = parameters[name]
        assert isinstance(text, str)
        assert set(text) <= set("0123456789.")
        assert Decimal(text) == number
    # What is counted and not measured: an index of the position, a direction.
    assert {name for name, value in parameters.items() if type(value) is int} == {"positionIdx", "triggerDirection"}
    assert not any(isinstance(value, float) for value in parameters.values())
