"""What must be well before real money is traded: each check says what it found and, where it is not well, the fix."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from bot.assembly import Home, build_strategy, find_model, needs_model
from bot.config import Config
from bot.errors import RecallError, VenueError
from bot.execution.bybit.client import BybitAccount
from bot.execution.bybit.clock import ALARMING_OFFSET_MS
from bot.execution.bybit.decode import VenuePosition, VenueWallet, time_of
from bot.execution.instruments import Instrument
from bot.market.bybit_rest import BybitRest
from strategies.errors import StrategyError

EXPIRY_WARNING: Final = timedelta(days=7)
LEAST_FREE_BYTES: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    good: bool
    found: str
    fix: str = ""
    """What to do; empty where it is well."""

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


async def examine(config: Config, home: Home, rest: BybitRest, account: BybitAccount, now: datetime) -> list[Check]:
    """Look at everything that can be looked at without changing anything.

    Where the venue does not answer one question, that check fails with its words, and the others go on.

    Args:
        config: the settings.
        home: the market's folders.
        rest: the venue's public data.
        account: the account.
        now: the present.
    """
    checks = [*stored_checks(config, home)]
    try:
        checks.append(clock_check(await account.synchronise()))
    except VenueError as problem:
        # Nothing else will answer either.
        return [*checks, Check("clock", False, str(problem), "check venue.name, venue.sandbox_url and the network")]
    try:
        checks += key_checks(await account.key_information(), now, allow_withdrawal=config.live.allow_withdrawal_key)
        checks.append(balance_check(await account.wallet()))
    except VenueError as problem:
        checks.append(Check("key", False, str(problem), "put in a key of this venue that may trade contracts"))
        return checks + [await _symbol_check(rest, symbol) for symbol in config.market.symbols]
    for symbol in config.market.symbols:
        known = await _symbol_check(rest, symbol)
        checks.append(known)
        if known.good:
            try:
                checks += position_checks(symbol, await account.position_rows(symbol), config.risk.max_leverage)
            except VenueError as problem:
                checks.append(Check(f"position of {symbol}", False, str(problem), "try again later"))
    return checks


def clock_check(offset_ms: int) -> Check:
    """How far the venue's clock is ahead of this machine's."""
    good = abs(offset_ms) <= ALARMING_OFFSET_MS
    fix = "set this machine's clock and keep it so, for example with chrony or systemd-timesyncd"
    return Check("clock", good, f"the venue's is {offset_ms:+,} ms from this machine's", "" if good else fix)


def key_checks(information: Mapping[str, Any], now: datetime, *, allow_withdrawal: bool) -> list[Check]:
    """What the key may do, and until when: https://bybit-exchange.github.io/docs/v5/user/apikey-info."""
    permissions = information.get("permissions")
    rights = permissions if isinstance(permissions, Mapping) else {}
    contract = rights.get("ContractTrade") or ()
    may_trade = information.get("readOnly") in (0, "0") and {"Order", "Position"} <= set(contract)
    may_withdraw = "Withdraw" in (rights.get("Wallet") or ())
    checks = [
        Check(
            "key may trade",
            may_trade,
            "yes" if may_trade else "no",
            "" if may_trade else "give the key the rights Orders and Positions of Unified Trading, and read-write",
        ),
        Check(
            "key may not withdraw",
            allow_withdrawal or not may_withdraw,
            "it may withdraw" if may_withdraw else "it may not",
            "make a key without the right to withdraw" if may_withdraw and not allow_withdrawal else "",
        ),
    ]
    until = _expiry(information.get("expiredAt"))
    lasts = until is None or until - now > EXPIRY_WARNING
    found = "never" if until is None else f"{until:%Y-%m-%d}"
    checks.append(
        Check("key expires", lasts, found, "" if lasts else "bind the key to this machine's IP address, or renew it")
    )
    return checks


def balance_check(wallet: VenueWallet) -> Check:
    """Whether there is anything to trade with."""
    held = wallet.coins.get("USDT")
    good = held is not None and held > 0
    return Check("balance", good, f"{held or 0:f} USDT", "" if good else "transfer USDT to the unified account")


def position_checks(symbol: str, rows: Sequence[VenuePosition], most_leverage: float) -> list[Check]:
    """Position mode, leverage, and what is held already."""
    one_way = all(row.index == 0 for row in rows) and len(rows) == 1
    checks = [
        Check(
            f"position mode of {symbol}",
            one_way,
            "one-way" if one_way else "hedge",
            "" if one_way else "switch the position mode to one-way at Bybit, with no open orders and positions",
        )
    ]
    if not one_way:
        return checks
    (row,) = rows
    enough = row.leverage is None or float(row.leverage) >= most_leverage
    checks.append(
        Check(
            f"leverage of {symbol}",
            enough,
            "not told" if row.leverage is None else f"{row.leverage:f}",
            "" if enough else f"set the leverage to {most_leverage:g} or more, or lower risk.max_leverage",
        )
    )
    naked = bool(row.quantity) and row.stop_loss is None
    held = f"{row.quantity:f}" + (f", stop {row.stop_loss:f}" if row.stop_loss is not None else "")
    checks.append(
        Check(
            f"position of {symbol}", not naked, held, "give the open position a stop loss, or close it" if naked else ""
        )
    )
    return checks


def stored_checks(config: Config, home: Home) -> list[Check]:
    """What lies on this machine: disk, candles, model."""
    config.storage.data_dir.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(config.storage.data_dir).free
    roomy = free >= LEAST_FREE_BYTES
    checks = [
        Check("disk", roomy, f"{free / 1e9:.1f} GB free", "" if roomy else "free some space, or move storage.data_dir")
    ]
    if needs_model(config):
        checks += _model_checks(config, home)
    try:
        strategy, _ = build_strategy(config, config.market.symbols, config.market.interval, home.models)
        needed = strategy.required_bars
    except RecallError:
        needed = 1
    for symbol in config.market.symbols:
        stored = home.candles.describe(symbol, config.market.interval)
        bars = 0 if stored is None else len(home.candles.load(symbol, config.market.interval))
        fix = f"recall fetch --symbols {symbol} --interval {config.market.interval}"
        good = bars >= needed
        checks.append(Check(f"candles of {symbol}", good, f"{bars:,} stored, {needed:,} needed", "" if good else fix))
    return checks


def _model_checks(config: Config, home: Home) -> list[Check]:
    """Whether there is a model, and whether what positions follow has shown skill."""
    # Imported here so that strategies without a model never load it.
    from strategies.memory_transformer.catalogue import knows_direction, list_models

    fix = f"recall train --symbols {','.join(config.market.symbols)} --interval {config.market.interval}"
    try:
        path = find_model(home.models, config.model.id, config.market.interval)
    except (RecallError, StrategyError) as problem:
        return [Check("model", False, str(problem), fix)]
    if path is None:
        return [Check("model", False, "none", fix)]
    skilled = any(knows_direction(each.description) for each in list_models(home.models) if each.path == path)
    tolerated = config.signal.unproven == "trade"
    found = "has shown skill on validation" if skilled else "has shown no skill on validation"
    if not skilled:
        found += ", and is traded all the same" if tolerated else ": a live run stays flat"
    remedy = "train another model, or trade this one by name: --set signal.unproven=trade"
    return [
        Check("model", True, path.name),
        Check("direction", skilled or tolerated, found, "" if skilled or tolerated else remedy),
    ]


async def _symbol_check(rest: BybitRest, symbol: str) -> Check:
    name = f"symbol {symbol}"
    try:
        found = (await rest.instruments([symbol]))[symbol]
    except VenueError as problem:
        return Check(name, False, str(problem), "take it out of market.symbols, or mend its name")
    return Check(name, True, _filters(found))


def _filters(instrument: Instrument) -> str:
    return (
        f"tick {instrument.tick_size:f}, lot {instrument.lot_size:f}, least {instrument.minimum_notional:f} USDT, "
        f"leverage up to {instrument.maximum_leverage:f}"
    )


def _expiry(value: object) -> datetime | None:
    """When a key expires; ``None`` where it does not, or the venue does not say."""
    text = value if isinstance(value, str) else ""
    if text.isdecimal():
        milliseconds = time_of(text)
        return datetime.fromtimestamp(milliseconds / 1000, UTC) if milliseconds else None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return moment if moment.year > 1970 else None
