"""The learning-rate sweep: in how many steps the fastest constant learning rate fits.

- ``race.py``: the races of each seed: which trials advance, which learning rates are added.
- ``policy.py``: which race has the answer, and the outcome.
- ``regime.py``: the kind of workload, read off a curve that did not reach a fit.
- ``words.py``: the sentences of the outcome.

To say more of a race, add a sentence to ``words.py``, which sees the races and the outcome.
"""
