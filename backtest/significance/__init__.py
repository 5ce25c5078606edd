"""Whether a result can be told from luck, and how much of it came from the memory."""
