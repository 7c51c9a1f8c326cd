"""Data that configs name: see :mod:`budgetflow.engine.data.digits`."""

from budgetflow.engine.data.digits import Digits

__all__ = ["Digits"]
