"""The learning-rate sweep: in how many steps the fastest constant learning rate fits.

- ``race.py``: the race of one seed: which trials advance, which learning rates are added.
- ``policy.py``: the races of all seeds, and the outcome.
- ``facts.py``: what the races show when they are over.
- ``regime.py``: the kind of workload, read off a curve that did not reach a fit.
- ``words.py``: the sentences of the outcome.

To say more of a race, add a fact to ``facts.py`` and a sentence on it to ``words.py``.
"""
