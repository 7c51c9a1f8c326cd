"""Models that configs name: see :mod:`budgetflow.engine.models.mlp`."""

from budgetflow.engine.models.mlp import MLP

__all__ = ["MLP"]
