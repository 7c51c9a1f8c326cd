"""The models that configs name: see :mod:`budgetflow.engine.models`."""

from budgetflow.engine.models import MLP, ConvNet, ResNet, Transformer

__all__ = ["MLP", "ConvNet", "ResNet", "Transformer"]
