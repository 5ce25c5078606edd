"""What must be well before real money is traded: each check says what it found and, where it is not well, the fix."""

from __future__ import annotations

from bot.doctor.check import Check
from bot.doctor.examination import KEY_FIX, examine

__all__ = ["KEY_FIX", "Check", "examine"]
