"""Many settings tried, and what is left of the best once it is known how many there were."""
