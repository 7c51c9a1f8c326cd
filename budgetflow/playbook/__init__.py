"""The playbook's decisions: pure functions over measurements; no JAX, no files, no clock."""
