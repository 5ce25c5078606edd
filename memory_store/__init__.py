"""A causal nearest-neighbour memory for streams: vectors in, neighbours out. It knows no markets and no torch."""

from typing import TYPE_CHECKING, Any

from memory_store.ahead import Outlook, Terms
from memory_store.bank import MemoryBank
from memory_store.foresight import ComingProposal
from memory_store.policy import Asker, RegimeRule, RetrievalPolicy, Scope
from memory_store.pruning import PruneRule
from memory_store.records import (
    BankChanges,
    BankConfig,
    Entry,
    Eviction,
    IndexKind,
    MemoryBankError,
    Metric,
    Proposal,
    Recollection,
    SearchResult,
    Settlement,
)
from memory_store.restoration import BankState
from memory_store.search_results import SearchResults

if TYPE_CHECKING:
    from memory_store.schema import open_database
else:

    def __getattr__(name: str) -> Any:
        """Load what needs a database when it is asked for: SQLAlchemy takes long, and most memories are never stored."""
        if name == "open_database":
            from memory_store.schema import open_database

            return open_database
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "Asker",
    "BankChanges",
    "BankConfig",
    "BankState",
    "ComingProposal",
    "Entry",
    "Eviction",
    "IndexKind",
    "MemoryBank",
    "MemoryBankError",
    "Metric",
    "Outlook",
    "Proposal",
    "PruneRule",
    "Recollection",
    "RegimeRule",
    "RetrievalPolicy",
    "Scope",
    "SearchResult",
    "SearchResults",
    "Settlement",
    "Terms",
    "open_database",
]
