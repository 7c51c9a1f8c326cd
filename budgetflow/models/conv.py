"""Models that configs name: see :mod:`budgetflow.engine.models.conv`."""

from budgetflow.engine.models.conv import ConvNet

__all__ = ["ConvNet"]
