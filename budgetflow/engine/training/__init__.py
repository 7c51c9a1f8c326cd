"""One trial: its compiled program, its state, and advancing it to a step. JAX lives here."""
