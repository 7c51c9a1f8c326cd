"""A round of trials of one length, and cooldowns, which are a round at several lengths.

- ``policy.py``: which trials advance, and the outcomes of both kinds of study.
- ``best_step.py``: the diagnosis of best steps: was the length right?
- ``decay_spread.py``: how far apart schedules end that differ in their decay alone.
- ``best_setting.py``: the interval of the best figure, and the edges that the best trial lies at.
- ``words.py``: the sentences of the outcomes.

A new finding is a frozen dataclass in a module of its own, a field of
:class:`~budgetflow.playbook.common.outcomes.RoundOutcome`, and a sentence in ``words.py``.
"""
