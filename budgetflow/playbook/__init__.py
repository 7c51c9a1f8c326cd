"""The playbook's decisions: pure functions over measurements; no JAX, no files, no clock.

- ``sweep/``: the learning-rate sweep.
- ``rounds/``: a round, its best-step diagnosis, the decays it tried, cooldowns.
- ``derived/``: what carries over to a longer round, and whether it held.
- ``forecasts/``: what longer runs would give.
- ``comparison/``: what a change does to the number of steps.
- ``budget/``: from a budget to rounds.
- ``common/``: what several of these share.

A policy decides from the records of a study's trials: ``decide(…) -> Add | Advance | Conclude``.
An outcome is a frozen dataclass whose fields are what ``outcome.json`` holds. Sentences are made in
modules of their own, marked by ``CHANGES_NO_RESULT``: to word one anew changes no result. Why
something cannot be told is worded where that is found.
"""
