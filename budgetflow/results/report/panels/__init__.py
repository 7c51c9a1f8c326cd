"""results/report/panels."""
