"""All that computes a state, and nothing else: what the key of trained states covers.

- ``schedules``, ``decays``: learning rates as data. A decay is an entry of one table.
- ``models/``, ``tasks``, ``metrics``, ``optimizers``: what a trial is made of.
- ``data/``: splits as random-access sources; a batch is a function of (seed, step).
- ``training/``: the compiled program of a trial, and advancing it to a step.
- ``checkpoints``: plain Orbax folders.

A file that is added here becomes part of that key, so that nothing is reused that was computed
without it. Left out are the models, tasks, data sets and augmentation that a config can name: these
count where a config names them (:mod:`budgetflow.base.source_code`). Whether a study needs a state,
when it is saved and what it costs is decided elsewhere, in ``studies/``.
"""
