"""Models that configs name: see :mod:`budgetflow.engine.models.resnet`."""

from budgetflow.engine.models.resnet import NormedConvolution, ResidualBlock, ResNet

__all__ = ["NormedConvolution", "ResNet", "ResidualBlock"]
