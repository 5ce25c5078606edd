"""Where each venue is reached: Bybit's environments, its regional sites, a sandbox elsewhere."""

from __future__ import annotations

from typing import Any

import pytest

from bot.cli.venues import account_at, connect, order_entry_at, private_stream_at
from bot.config import load_config
from bot.errors import UsageError

KEYS = {"RECALL_LIVE__API_KEY": "k", "RECALL_LIVE__API_SECRET": "s"}
EUROPE = ("venue.name=bybit", "venue.rest_url=https://api.bybit.eu/", "venue.stream_url=wss://stream.bybit.eu")


def addresses(*overrides: str) -> Any:
    config = load_config(overrides=[*overrides], environment=KEYS)
    connection, account = connect(config, None), account_at(config)
    connection.rest.close()
    account.close()
    entry = order_entry_at(config, account)
    trade = None if entry is None else entry.url
    return connection.rest.endpoint, connection.stream_url, account.endpoint, private_stream_at(config)[0], trade


@pytest.mark.parametrize(
    ("overrides", "public", "private"),
    [
        (("venue.name=bybit",), ("https://api.bybit.com", "wss://stream.bybit.com"), None),
        (("venue.name=testnet",), ("https://api-testnet.bybit.com", "wss://stream-testnet.bybit.com"), None),
        (EUROPE, ("https://api.bybit.eu", "wss://stream.bybit.eu"), None),
        (
            ("venue.name=sandbox", "venue.sandbox_url=http://127.0.0.1:8788/"),
            ("http://127.0.0.1:8788", "ws://127.0.0.1:8788"),
            None,
        ),
        (
            ("venue.name=demo",),
            ("https://api.bybit.com", "wss://stream.bybit.com"),
            ("https://api-demo.bybit.com", "wss://stream-demo.bybit.com"),
        ),
    ],
    ids=["mainnet", "testnet", "regional", "sandbox", "demo"],
)
def test_every_venue_is_reached_where_it_is(
    overrides: tuple[str, ...], public: tuple[str, str], private: tuple[str, str] | None
) -> None:
    rest, stream = public
    account, sockets = private or public
    trade = None if "venue.name=demo" in overrides else f"{sockets}/v5/trade"
    told = (rest, f"{stream}/v5/public/linear", account, f"{sockets}/v5/private", trade)
    assert addresses(*overrides) == told


def test_the_spot_market_has_a_public_stream_of_its_own_and_shares_the_others() -> None:
    contracts, coins = addresses("venue.name=bybit"), addresses("venue.name=bybit", "market.category=spot")
    assert coins[1] == "wss://stream.bybit.com/v5/public/spot"
    assert (coins[0], *coins[2:]) == (contracts[0], *contracts[2:])


def test_orders_go_over_rest_where_the_configuration_says_so() -> None:
    assert addresses("venue.name=bybit", "live.order_entry=rest")[-1] is None
    with pytest.raises(UsageError, match="order_entry"):
        addresses("live.order_entry=carrier pigeon")


def test_hosts_of_real_money_are_never_spoken_to_in_the_clear() -> None:
    for wrong in ("venue.rest_url=http://api.bybit.eu", "venue.stream_url=ws://stream.bybit.eu"):
        with pytest.raises(UsageError, match="begin with"):
            load_config(overrides=[wrong], environment={})
