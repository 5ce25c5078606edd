"""The private side of Bybit: what it says, what to do about it, and how orders are sent once."""
