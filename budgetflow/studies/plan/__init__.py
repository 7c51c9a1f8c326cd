"""studies/plan."""
