"""results/terminal."""
