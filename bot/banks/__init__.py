"""Memories that can be opened and asked: a run's, a standing bank, or one made on the spot from stored candles."""
