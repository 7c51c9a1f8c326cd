"""Data that configs name: see :mod:`budgetflow.engine.data.diabetes`."""

from budgetflow.engine.data.diabetes import diabetes

__all__ = ["diabetes"]
