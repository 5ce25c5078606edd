"""How a websocket of Bybit's private side logs in: https://bybit-exchange.github.io/docs/v5/ws/connect#authentication."""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

LOGIN_LIFE_MS: Final = 10_000
"""How long a login is good for; pybit's 1 s fails where a handshake is slow or a clock is off."""


def login_request(key: str, secret: str, venue_ms: int) -> dict[str, object]:
    """The request that logs in.

    Args:
        key: of the account.
        secret: what the login is signed with.
        venue_ms: the venue's clock, milliseconds.
    """
    expires = venue_ms + LOGIN_LIFE_MS
    signature = hmac.new(secret.encode(), f"GET/realtime{expires}".encode(), hashlib.sha256).hexdigest()
    return {"op": "auth", "args": [key, expires, signature]}


def without_key(text: str, key: str) -> str:
    """The venue's words with a key taken out: where a signature is wrong they repeat what was signed."""
    return text.replace(key, "***") if key else text
