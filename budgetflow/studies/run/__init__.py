"""studies/run."""
