"""Models that configs name: see :mod:`budgetflow.engine.models.dropout`."""

from budgetflow.engine.models.dropout import dropout

__all__ = ["dropout"]
