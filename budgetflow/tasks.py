"""The tasks that configs name: see :mod:`budgetflow.engine.tasks`."""

from budgetflow.engine.tasks import Classification, LanguageModeling, Regression

__all__ = ["Classification", "LanguageModeling", "Regression"]
