"""What several parts of the playbook share.

- ``measurement.py``: the record of a trial, what selects steps and trials, and the decisions.
- ``outcomes.py``: the outcomes of all kinds of study, read from and written to ``outcome.json``.
- ``reasons.py``: the evidence of an outcome, as typed sentences.
- ``competing.py``: which trials compete for the best result.
- ``transfer.py``, ``shared_steps.py``: a schedule for a longer run; steps that trials share.
- ``seed_noise.py``, ``rank_correlation.py``: noise between seeds; whether a ranking held.
- ``words.py``, ``decision_words.py``: sentences for any kind of study.

An outcome of your own is a frozen dataclass that derives from
:class:`~budgetflow.playbook.common.outcomes.Outcome`; its import path becomes its kind.
"""
