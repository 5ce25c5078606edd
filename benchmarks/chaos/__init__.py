"""The live run under every fault that the sandbox can play: one rehearsal, what must hold after it, and a campaign of many."""
