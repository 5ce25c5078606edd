"""What has become of an order, whatever the order in which the venue's messages arrive. Pure.

A fill may come before the acknowledgement, an acknowledgement after the cancellation, a fill twice, a cancellation with
fills. So nothing is inferred from the order of arrival: fills are a set by ``execId``, quantities only grow, and of two
statuses the further one stays. The same messages in any order, any of them repeated, end in the same state.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Final

from bot.execution.bybit.decode import FINAL, ExecutionType, VenueExecution, VenueOrder, VenueOrderStatus
from bot.orders import ZERO

_PROGRESS: Final = {
    VenueOrderStatus.UNKNOWN: 0,
    VenueOrderStatus.UNTRIGGERED: 1,
    VenueOrderStatus.TRIGGERED: 2,
    VenueOrderStatus.NEW: 3,
    VenueOrderStatus.PARTIALLY_FILLED: 4,
    VenueOrderStatus.DEACTIVATED: 5,
    VenueOrderStatus.REJECTED: 6,
    VenueOrderStatus.CANCELLED: 7,
    VenueOrderStatus.PARTIALLY_FILLED_CANCELLED: 8,
    VenueOrderStatus.FILLED: 9,
}
"""A second Filled may say that it was cancelled, never the other way round: what was filled is filled."""


@dataclass(frozen=True, slots=True)
class TrackedOrder:
    """One order of ours, and all that the venue has said of it."""

    client_order_id: str
    quantity: Decimal
    order_id: str = ""
    status: VenueOrderStatus = VenueOrderStatus.UNKNOWN
    reported: Decimal = ZERO
    """Largest filled quantity that a message about the order named."""
    fills: frozenset[tuple[str, Decimal]] = field(default_factory=frozenset)
    """Pairs (execution id, quantity)."""

    @property
    def filled(self) -> Decimal:
        """Sum of the fills that have arrived."""
        return sum((quantity for _, quantity in self.fills), ZERO)

    @property
    def missing(self) -> Decimal:
        """Filled by the order's own account, but its fills have not arrived: they are to be fetched."""
        return max(ZERO, self.reported - self.filled)

    @property
    def is_final(self) -> bool:
        """Nothing more will happen to it, and all its fills are here."""
        ended = self.status in FINAL or self.filled >= self.quantity > 0
        return ended and not self.missing

    def heard(self, order: VenueOrder) -> TrackedOrder:
        """After a message about the order; one about another order changes nothing."""
        if order.client_order_id != self.client_order_id:
            return self
        further = _PROGRESS[order.status] > _PROGRESS[self.status]
        return replace(
            self,
            order_id=max(self.order_id, order.order_id),
            status=order.status if further else self.status,
            reported=max(self.reported, order.filled),
        )

    def executed(self, execution: VenueExecution) -> TrackedOrder:
        """After a fill; one that is known, or another order's, changes nothing."""
        mine = execution.client_order_id == self.client_order_id or (
            bool(self.order_id) and execution.order_id == self.order_id
        )
        known = any(execution.execution_id == name for name, _ in self.fills)
        if not mine or known or execution.kind is not ExecutionType.TRADE:
            return self
        return self.counted(execution.execution_id, execution.quantity)

    def counted(self, execution_id: str, quantity: Decimal) -> TrackedOrder:
        """After a fill of it that is new."""
        return replace(self, fills=self.fills | {(execution_id, quantity)})

    def named(self, order_id: str) -> TrackedOrder:
        """With the venue's id of it."""
        return replace(self, order_id=max(self.order_id, order_id))
