"""Learning-rate schedules as data: see :mod:`budgetflow.engine.schedules`."""

from budgetflow.engine.schedules import Schedule, common_prefix_steps

__all__ = ["Schedule", "common_prefix_steps"]
