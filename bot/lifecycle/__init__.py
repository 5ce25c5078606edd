"""The life of a model while a run goes on: trained anew, judged, given a memory of its own, swapped in, rolled back."""
