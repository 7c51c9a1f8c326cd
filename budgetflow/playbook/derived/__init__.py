"""Derived rounds: what carries over to a longer round, and whether the earlier choice holds there.

- ``transfer_tags``: how likely a hyperparameter's best value is to transfer, by the playbook.
- ``search_space``: what becomes of each hyperparameter, by tags and results.
- ``narrowing``, ``next_length``: a smaller range; lengths and fractions at the next length.
- ``trials``: the best setting, re-runs of others and new points, with their schedules.
- ``earlier_choice``: the verdict on the earlier round's choice.
- ``ideas``: the ledger of ideas.
- ``first_round``: what a short first round shows besides its ranking.
- ``words``, ``earlier_choice_words``, ``ideas_words``: sentences and tables.

Another rule for a hyperparameter is a tag in ``transfer_tags`` or an action in ``search_space``;
what becomes of it is then a field of ``CarriedField`` and a sentence in ``words``.
"""
