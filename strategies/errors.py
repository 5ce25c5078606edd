"""Errors of this floor: each message is one sentence that names what is wrong, where, and the fix."""

from __future__ import annotations


class StrategyError(ValueError):
    """Base of what the strategies refuse."""


class SettingsError(StrategyError):
    """A setting of a strategy lies outside of what it can mean."""


class ShapeError(StrategyError):
    """An array does not have the shape that its contract states."""
