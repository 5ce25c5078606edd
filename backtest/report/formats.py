"""Numbers as a page writes them: a true minus sign, and a dash where there is nothing."""

from __future__ import annotations

from backtest.report.terminal import UNDEFINED


def percent(value: float | None, digits: int, *, signed: bool = False) -> str:
    """A fraction as a percentage."""
    return UNDEFINED if value is None else f"{_written(100.0 * value, digits, signed)} %"


def number(value: float | None, digits: int, *, signed: bool = False) -> str:
    """A number with so many digits after the point."""
    return UNDEFINED if value is None else _written(value, digits, signed)


def money(value: float, *, signed: bool = False) -> str:
    """An amount in quote units, to the hundredth below a hundred thousand."""
    return _written(value, 2 if abs(value) < 100_000.0 else 0, signed)


def _written(value: float, digits: int, signed: bool) -> str:
    text = f"{value:{'+' if signed else ''},.{digits}f}"
    # What rounds to zero has no side.
    if not text.strip("+-0.,"):
        text = text.lstrip("+-")
    return text.replace("-", "\N{MINUS SIGN}")
