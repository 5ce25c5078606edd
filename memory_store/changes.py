"""What happens to a bank, kept for the transaction that makes it durable."""

from __future__ import annotations

from memory_store.records import BankChanges, BankConfig, Entry, KeyArray, Recollection, Settlement


class ChangeLog:
    """What happened since it was last taken; nothing, where nobody is going to take it.

    Args:
        config: of the bank.
        encoder_version: of the bank.
        recording: whether to keep anything.
    """

    __slots__ = ("_appended", "_encoder_version", "_evicted", "_noted", "_nothing", "_settlements", "recording")

    def __init__(self, config: BankConfig, encoder_version: str, *, recording: bool) -> None:
        self.recording = recording
        self._encoder_version = encoder_version
        self._nothing = (None,) * len(config.horizons)
        self._forget()

    def append(self, entry_id: int, symbol: str, bar_time: int, key: KeyArray, regime: int, novelty: float) -> None:
        """An entry was appended, with this key ``[dimension]`` and this novelty, both as the bank keeps them."""
        if self.recording:
            key = key.copy()
            key.flags.writeable = False
            nothing = self._nothing
            self._appended.append(
                Entry(entry_id, symbol, bar_time, key, regime, self._encoder_version, nothing, nothing, novelty)
            )

    def settle(self, entry_id: int, horizon: int, outcome: float, settled_time: int) -> None:
        """An outcome became known."""
        if self.recording:
            self._settlements.append(Settlement(entry_id, horizon, outcome, settled_time))

    def evict(self, entry_id: int) -> None:
        """An entry left."""
        if self.recording:
            self._evicted.append(entry_id)

    def note(self, recollection: Recollection | None) -> None:
        """A decision remembered this, or nothing."""
        if self.recording and recollection is not None:
            self._noted.append(recollection)

    def stop(self) -> None:
        """Keep nothing from now on."""
        self.recording = False
        self._forget()

    def take(self) -> BankChanges:
        """What is kept, once."""
        changes = BankChanges(tuple(self._appended), tuple(self._settlements), tuple(self._evicted), tuple(self._noted))
        self._forget()
        return changes

    def _forget(self) -> None:
        self._appended: list[Entry] = []
        self._settlements: list[Settlement] = []
        self._evicted: list[int] = []
        self._noted: list[Recollection] = []
