"""A causal nearest-neighbour memory for streams: vectors in, neighbours out. It knows no markets and no torch."""

from memory_store.ahead import Outlook
from memory_store.bank import MemoryBank
from memory_store.records import (
    BankChanges,
    BankConfig,
    Entry,
    MemoryBankError,
    Metric,
    Proposal,
    SearchResult,
    Settlement,
)

__all__ = [
    "BankChanges",
    "BankConfig",
    "Entry",
    "MemoryBank",
    "MemoryBankError",
    "Metric",
    "Outlook",
    "Proposal",
    "SearchResult",
    "Settlement",
]
