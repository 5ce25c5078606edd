"""What to do about each of Bybit's return codes: https://bybit-exchange.github.io/docs/v5/error."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Action(StrEnum):
    """The answer to a return code."""

    ACCEPT = "accept"
    """It is as was asked for."""
    RETRY = "retry"
    """Nothing happened at the venue: send the same again, later."""
    RESYNCHRONISE = "resynchronise"
    """The clock is off: measure it anew, then send the same again."""
    LOOK_UP = "look_up"
    """It may or may not have happened: ask the venue what is there."""
    REFUSE = "refuse"
    """This request is refused for good; others may go on."""
    STAND_DOWN = "stand_down"
    """Open nothing until somebody or the next reconciliation finds it well."""
    STOP = "stop"
    """The key cannot trade: nothing will work until a person mends it."""


ACCEPTED: Final = 0
RESTARTING: Final = 10019
"""The websocket trade service takes nothing new on this connection; another connection leads to one that does."""
SERVER_TROUBLE: Final = (-1, 429, 10000, 10016)
"""The server gave up half-way; what it did meanwhile is unknown."""
REPEATED_READS: Final = frozenset({*SERVER_TROUBLE, 10006})
"""After these a request that changes nothing may simply be sent again."""

_CODES: Final[dict[Action, tuple[int, ...]]] = {
    Action.ACCEPT: (ACCEPTED, 110025, 110026, 110043),
    Action.RETRY: (
        *(10006, 10403, 10429, 20003),
        # A request id that the connection has seen; the next attempt has another.
        20006,
        RESTARTING,
    ),
    Action.RESYNCHRONISE: (10002,),
    Action.LOOK_UP: (
        *SERVER_TROUBLE,
        # There is an order of this id already: the first attempt arrived.
        *(10014, 110072, 170141),
        # The order is gone: filled, cancelled or never there.
        *(110001, 110008, 110010, 170142, 170143, 170190, 170213, 110064, 40004),
        # What is held is not what was thought.
        *(110017,),
    ),
    Action.REFUSE: (
        *(10001, 10017, 10404),
        # Out of the price band, or its trigger has been crossed.
        *(110003, 110120, 110121, 30208, 30209, 170193, 170194, 110092, 110093),
        # The trigger of a TP/SL order is absent, or too far away.
        *(170130, 170201, 170202, 170203, 170204),
        # Too small, too many.
        *(110094, 170140, 110009, 110020, 110061, 170810),
        # The mode or leverage cannot be changed now.
        *(110013, 110024, 110028, 110086, 110090),
    ),
    Action.STAND_DOWN: (
        # Not enough funds, or it would liquidate.
        *(110004, 110006, 110007, 110011, 110012, 110040, 110044, 110045, 110052, 170131),
        # The market is restricted, settling or delisted.
        *(110021, 110023, 110063, 110066, 110074, 110079, 30228),
    ),
    Action.STOP: (-2015, 10003, 10004, 10005, 10007, 10009, 10010, 10024, 10027, 10028, 33004),
}
_ACTIONS: Final = {code: action for action, codes in _CODES.items() for code in codes}


def action_of(code: int) -> Action:
    """What to do about a return code; one that is unknown may have happened, so that it is looked up."""
    return _ACTIONS.get(code, Action.LOOK_UP)


def known_codes() -> frozenset[int]:
    """All return codes with an action of their own."""
    return frozenset(_ACTIONS)


def action_of_status(status: int) -> Action:
    """What to do about an HTTP status other than 200.

    403 is a ban of the address or a region that is not served: asking again soon prolongs it, so it is never retried.
    """
    if status == 403:
        return Action.STAND_DOWN
    if status == 404:
        return Action.REFUSE
    return Action.LOOK_UP
