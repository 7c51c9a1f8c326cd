"""Data sets as random-access sources, and batches as a pure function of (seed, step)."""
