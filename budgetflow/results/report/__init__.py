"""results/report."""
