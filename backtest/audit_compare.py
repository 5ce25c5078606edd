"""Comparing what a journal holds with what a replay gives: rows of tables and the documents in them, field by field."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Final

import msgspec

from bot.orders import Decision
from strategies.bars import format_time

RowKey = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """One field that the replay computed differently."""

    where: str
    """Which row: a decision, a fill, an order, a trade, a memory entry, the equity of a time, the state."""
    field: str
    recorded: Any
    replayed: Any


class Findings:
    """Mixin of reports: differences are counted, and the first ones kept."""

    differences: list[Difference]
    differing: int

    def note(self, found: Iterable[Difference], *, keep: int = 200) -> None:
        """Count differences and keep the first ones."""
        for difference in found:
            self.differing += 1
            if len(self.differences) < keep:
                self.differences.append(difference)


@dataclass(frozen=True, slots=True)
class Form:
    """How rows of one table are told apart and named."""

    name: str
    """What one row is called: the field of a difference where the row is missing or was never due."""
    where: Callable[[Mapping[Any, Any]], str]
    """Names a row for people."""
    key: tuple[str, ...] = ()
    """Columns that tell rows of a run apart."""
    document: str = "payload"
    """What the paths of the fields of its column ``payload`` begin with."""
    later: frozenset[str] = frozenset()
    """Columns that journals of earlier formats leave empty: compared where they are recorded."""
    label: str = "{column}"
    """How a column is named in a difference; may name other columns."""


class DecisionRow(msgspec.Struct, frozen=True):
    """A row of ``decisions``."""

    number: int
    sequence: int
    symbol: str
    bar_open_time: int
    target_exposure: float | None
    verdicts: str
    payload: bytes


class OrderRow(msgspec.Struct, frozen=True):
    """A row of ``orders``."""

    client_order_id: str
    decision_number: int
    symbol: str
    side: str
    quantity: str
    status: str
    decided_at: int
    payload: bytes
    reason: str | None = None


class TradeRow(msgspec.Struct, frozen=True):
    """A row of ``trades``."""

    number: int
    symbol: str
    closed_at: int
    profit: str
    payload: bytes


class EquityRow(msgspec.Struct, frozen=True):
    """A row of ``equity``."""

    time: int
    equity: float


class StateRow(msgspec.Struct, frozen=True):
    """A row of ``states``."""

    sequence: int
    trades: int
    payload: bytes


class BankRow(msgspec.Struct, frozen=True):
    """A row of ``memory_banks``."""

    name: str
    encoder_version: str
    capacity: int
    dimension: int
    horizons: str
    primary_horizon: int
    embargo_ms: int
    metric: str
    eviction: str
    half_life_ms: int
    outcome_scale: float
    index_kind: str
    sealed: int


class EntryRow(msgspec.Struct, frozen=True, gc=False):
    """A row of ``memory_entries``."""

    entry_id: int
    symbol: str
    bar_time: int
    key: bytes
    regime: int
    encoder_version: str
    written_time: int
    evicted_time: int | None = None
    novelty: float = 0.0


class SettlementRow(msgspec.Struct, frozen=True, gc=False):
    """A row of ``memory_settlements``."""

    entry_id: int
    horizon: int
    outcome: float
    settled_time: int


class RecollectionRow(msgspec.Struct, frozen=True, gc=False):
    """A row of ``memory_recollections``."""

    asker_id: int
    as_of: int
    ids: bytes
    weights: bytes


def moment(time: Any) -> str:
    """A time for people, or what stands in its place."""
    try:
        return format_time(time)
    except (TypeError, ValueError, OverflowError, OSError):
        return str(time)


DECISION: Final = Form(
    "decision",
    lambda row: f"decision {row['number']} ({row['symbol']} {moment(row['bar_open_time'])})",
    ("number",),
    document="",
)
ORDER: Final = Form(
    "order",
    lambda row: f"order {row['client_order_id']} ({row['symbol']})",
    ("client_order_id",),
    later=frozenset({"reason"}),
)
TRADE: Final = Form("trade", lambda row: f"trade {row['number']} ({row['symbol']})", ("number",))
EQUITY: Final = Form("equity", lambda row: f"equity at {moment(row['time'])}", ("time",))
STATE: Final = Form("state", lambda _row: "state after the last step", document="")
BANK: Final = Form("bank", lambda _row: "memory bank")
ENTRY: Final = Form(
    "entry",
    lambda row: f"memory entry {row['entry_id']} ({row['symbol']} {moment(row['bar_time'])})",
    ("entry_id",),
)
RECOLLECTION: Final = Form("recollection", lambda row: f"memory of entry {row['asker_id']}", ("asker_id",))
SETTLEMENT: Final = Form(
    "settlement",
    lambda row: f"memory entry {row['entry_id']}",
    ("entry_id", "horizon"),
    label="{column}s[{horizon}]",
)


def table_differences(
    form: Form, recorded: Iterable[Mapping[Any, Any]], replayed: Mapping[RowKey, msgspec.Struct]
) -> Iterator[Difference]:
    """Every field in which the rows of a table differ.

    Args:
        form: of the table.
        recorded: its rows of one run.
        replayed: the rows that it should have, by their keys.
    """
    seen: set[RowKey] = set()
    for row in recorded:
        key = tuple([row[column] for column in form.key])
        seen.add(key)
        yield from row_differences(form, row, replayed.get(key))
    for key, missing in replayed.items():
        if key not in seen:
            yield from row_differences(form, None, missing)


def row_differences(
    form: Form, recorded: Mapping[Any, Any] | None, replayed: msgspec.Struct | None
) -> Iterator[Difference]:
    """Every field in which a row differs from what it should be, or that it is missing, or should be."""
    if recorded is None or replayed is None:
        known = msgspec.structs.asdict(replayed) if replayed is not None else recorded
        assert known is not None
        field = form.label.format_map({**known, "column": form.name})
        old, new = ("missing", "there") if recorded is None else ("there", "missing")
        yield Difference(form.where(known), field, old, new)
        return
    for column in replayed.__struct_fields__:
        old, new = recorded[column], getattr(replayed, column)
        if old is None and column in form.later:
            continue
        if column == "payload":
            yield from document_differences(form.where(msgspec.structs.asdict(replayed)), form.document, old, new)
        elif not _same(old, new):
            known = msgspec.structs.asdict(replayed)
            field = form.label.format_map({**known, "column": column})
            yield Difference(form.where(known), field, _shown(old), _shown(new))


def document_differences(where: str, path: str, recorded: Any, replayed: bytes) -> Iterator[Difference]:
    """Every field in which a recorded JSON text differs from what it should be, by its path below ``path``."""
    text = str(recorded).encode()
    if text == replayed:
        return
    try:
        document = msgspec.json.decode(text)
    except msgspec.DecodeError as problem:
        yield Difference(where, path or "payload", f"no JSON: {problem}", "JSON")
        return
    yield from _tree_differences(where, path, document, msgspec.json.decode(replayed))


def field_differences(where: str, old: Decision, new: Decision) -> Iterator[Difference]:
    """Every field in which two decisions differ, by its path."""
    yield from _tree_differences(where, "", msgspec.to_builtins(old), msgspec.to_builtins(new))


def _tree_differences(where: str, path: str, old: Any, new: Any) -> Iterator[Difference]:
    """Paths of all leaves in which two trees of plain values differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in {**old, **new}:
            below = f"{path}.{name}" if path else name
            yield from _tree_differences(where, below, old.get(name), new.get(name))
    elif isinstance(old, list | tuple) and isinstance(new, list | tuple):
        for index, (left, right) in enumerate(zip_longest(old, new)):
            yield from _tree_differences(where, f"{path}[{index}]", left, right)
    elif not _same(old, new):
        yield Difference(where, path, old, new)


def _same(old: Any, new: Any) -> bool:
    """Whether two leaves are equal; ``true`` is not 1."""
    return bool(_written(old) == _written(new)) and isinstance(old, bool) == isinstance(new, bool)


def _written(value: Any) -> Any:
    """A leaf as the journal writes it: JSON has no word for what is not a finite number and says null."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _shown(value: Any) -> Any:
    return "other bits" if isinstance(value, bytes) else value
