"""What the sandbox refuses, with Bybit's own codes and texts (https://bybit-exchange.github.io/docs/v5/error).

Where the documentation and recorded replies give a text, it is that text; the others say in Bybit's manner what is wrong.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final

SERVER_TIMEOUT: Final = 10000
PARAMETER_ERROR: Final = 10001
TIMESTAMP: Final = 10002
UNKNOWN_KEY: Final = 10003
BAD_SIGNATURE: Final = 10004
NO_PERMISSION: Final = 10005
TOO_MANY_VISITS: Final = 10006
UNMATCHED_IP: Final = 10010
SERVER_ERROR: Final = 10016
ROUTE_NOT_FOUND: Final = 10017
UNKNOWN_OPERATION: Final = 10404
REPEATED_AUTHENTICATION: Final = 20001
REPEATED_REQUEST_ID: Final = 20006
KEY_EXPIRED: Final = 33004
NOT_MODIFIED: Final = 34040
ORDER_GONE: Final = 110001
NOT_ENOUGH_MARGIN: Final = 110007
TOO_MANY_CONDITIONALS: Final = 110009
LEVERAGE_TOO_HIGH: Final = 110013
REDUCE_ONLY: Final = 110017
TOO_MANY_ORDERS: Final = 110020
MODE_HAS_POSITION: Final = 110024
MODE_NOT_MODIFIED: Final = 110025
MARGIN_NOT_MODIFIED: Final = 110026
MODE_HAS_ORDERS: Final = 110028
LEVERAGE_NOT_MODIFIED: Final = 110043
BELOW_FILLED: Final = 110064
DUPLICATE_LINK_ID: Final = 110072
NOT_RISING: Final = 110092
NOT_FALLING: Final = 110093
BELOW_NOTIONAL: Final = 110094
SPOT_PARAMETER: Final = 170130
SPOT_BALANCE: Final = 170131
SPOT_BELOW_NOTIONAL: Final = 170140
SPOT_DUPLICATE_LINK_ID: Final = 170141
SPOT_FILTER: Final = 170201
SPOT_NO_TRIGGER: Final = 170202
SPOT_ORDER_GONE: Final = 170213
SPOT_TOO_MANY_ORDERS: Final = 170810

# Texts by code, where one code has one text.
TEXTS: Final = {
    SERVER_TIMEOUT: "Server Timeout",
    UNKNOWN_KEY: "API key is invalid.",
    NO_PERMISSION: "Permission denied, please check your API key permissions.",
    TOO_MANY_VISITS: "Too many visits!",
    UNMATCHED_IP: "Unmatched IP, please check your API key's bound IP addresses.",
    SERVER_ERROR: "Server error.",
    KEY_EXPIRED: "Your api key has expired.",
    NOT_MODIFIED: "not modified",
    NOT_ENOUGH_MARGIN: "ab not enough for new order",
    TOO_MANY_CONDITIONALS: "The number of stop orders exceeds maximum limit allowed",
    TOO_MANY_ORDERS: "Not allowed to have more than 500 active orders",
    MODE_HAS_POSITION: "You have an existing position, so the position mode cannot be switched",
    MODE_NOT_MODIFIED: "Position mode is not modified",
    MARGIN_NOT_MODIFIED: "Cross/isolated margin mode is not modified",
    MODE_HAS_ORDERS: "You have existing open orders, so the position mode cannot be switched",
    LEVERAGE_NOT_MODIFIED: "leverage not modified",
    BELOW_FILLED: "Order amount to be amended must be greater than the filled amount",
    DUPLICATE_LINK_ID: "OrderLinkedID is duplicate",
    SPOT_PARAMETER: "Data sent for paramter '' is not valid.",
    SPOT_BALANCE: "Insufficient balance.",
    SPOT_BELOW_NOTIONAL: "Order value exceeded lower limit",
    SPOT_DUPLICATE_LINK_ID: "Duplicate clientOrderId",
    SPOT_FILTER: "Invalid orderFilter parameter",
    SPOT_NO_TRIGGER: "Please enter the TP/SL price.",
    SPOT_ORDER_GONE: "Order does not exist.",
    SPOT_TOO_MANY_ORDERS: "Cannot exceed maximum of 500 conditional, TP/SL and active orders.",
}


class VenueRefusal(Exception):
    """A request that the venue answers with a return code other than 0.

    Args:
        code: the return code.
        message: what is told with it; by default the text of ``TEXTS``.
        status: of the HTTP reply.
    """

    def __init__(self, code: int, message: str = "", *, status: int = 200) -> None:
        self.code = code
        self.message = message or TEXTS.get(code, "Server error.")
        self.status = status
        self.headers: dict[str, str] = {}
        """What the reply tells besides, such as what is left of a rate limit."""
        super().__init__(f"{code} {self.message}")


def bad_parameter(message: str) -> VenueRefusal:
    """Code 10001 with its text."""
    return VenueRefusal(PARAMETER_ERROR, message)


def scaled(price: Decimal) -> str:
    """A price as some of Bybit's texts give it: an integer of ten-thousandths."""
    return str(int(price * 10_000))
