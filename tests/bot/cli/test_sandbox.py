"""``recall sandbox`` takes orders: what it prints is enough for a client, and bad arguments are one sentence."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from pybit.unified_trading import HTTP

from bot.errors import ExitCode
from tests.bot.cli.terminal import interrupt, recall, start


def test_a_client_trades_with_what_the_command_prints(tmp_path: Path) -> None:
    """In real time, with a balance, a key and a fault plan of its own."""
    (tmp_path / "plan.toml").write_text('[[fault]]\ndo = "answer"\non = "GET /v5/account/info"\ncode = 10016\n')
    wanted = ("--now", "--key", "k", "--secret", "s", "--balance", "500", "--faults", "plan.toml")
    with start(tmp_path, "sandbox", "--synthetic", "3", "--port", "0", "--json", *wanted) as process:
        assert process.stdout is not None
        places: dict[str, Any] = json.loads("".join(iter(process.stdout.readline, "}\n")) + "}")
        session = HTTP(testnet=False, api_key="k", api_secret="s")
        session.endpoint = places["rest_url"]
        balance = session.get_wallet_balance(accountType="UNIFIED")["result"]["list"][0]["totalWalletBalance"]
        with pytest.raises(Exception, match="Server error"):
            session.get_account_info()
        assert interrupt(process).code == 0
    assert balance == "500"
    assert places["private_url"].endswith("/v5/private")
    assert places["trade_url"].endswith("/v5/trade")


def test_with_now_the_market_has_the_time_of_this_machine_whatever_the_interval(tmp_path: Path) -> None:
    """Not that of the next candle's open, which may be an hour away."""
    with start(
        tmp_path, "sandbox", "--synthetic", "3", "--interval", "60", "--port", "0", "--json", "--now"
    ) as process:
        assert process.stdout is not None
        places: dict[str, Any] = json.loads("".join(iter(process.stdout.readline, "}\n")) + "}")
        session = HTTP(testnet=False)
        session.endpoint = places["rest_url"]
        sent = time.time()
        told = int(session.get_server_time()["time"]) / 1000
        assert sent - 1.0 < told < time.time() + 1.0
        newest = session.get_kline(category="linear", symbol="BTCUSDT", interval="60", limit=1)["result"]["list"][0]
        assert int(newest[0]) / 1000 <= told < int(newest[0]) / 1000 + 3600
        interrupt(process)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--balance", "much"), "--balance was 'much'; it must be a number of USDT"),
        (("--balance", "-1"), "--balance was -1; it must be 0 or more"),
        (("--now", "--stepped"), "--now goes with --synthetic"),
        (("--now", "--start", "2024-01-01"), "--now goes with --synthetic"),
        (("--faults", "bad.toml"), "fault plan bad.toml: fault 1: do must be one of"),
        (("--faults", "broken.toml"), "fault plan broken.toml:"),
        (("--tls", "folder/there.pem"), "--tls folder/there.pem cannot be written"),
    ],
)
def test_bad_arguments_are_told_in_one_sentence(arguments: tuple[str, ...], text: str, tmp_path: Path) -> None:
    """With the exit code of bad usage."""
    if "--tls" in arguments:
        pytest.importorskip("trustme", reason="trustme is not installed: pip install 'recall-bot[tls]'")
    (tmp_path / "folder").write_text("in the way")
    (tmp_path / "bad.toml").write_text('[[fault]]\ndo = "explode"\n')
    (tmp_path / "broken.toml").write_text("seed = \n")
    outcome = recall(tmp_path, "sandbox", "--synthetic", "3", "--port", "0", *arguments)
    assert outcome.code == ExitCode.USAGE
    assert text in outcome.error
