"""What a task of your own measures: see :mod:`budgetflow.engine.metrics`."""

from budgetflow.engine.metrics import Metric, as_metric

__all__ = ["Metric", "as_metric"]
