"""Budgets: from a budget and the length of a production run to rounds.

- ``budget``: a budget in steps, examples, FLOPs or hours, converted to steps.
- ``planner``: the lengths of the rounds, and how many trials each has.
- ``words``: what a plan buys, and why a budget buys none.

Another unit is an entry of ``budget.UNITS`` with its cost in ``StepCost``, and a field
``budget_<unit>`` of the config.
"""
