"""Data that configs name: see :mod:`budgetflow.engine.data.fashion_mnist`."""

from budgetflow.engine.data.fashion_mnist import LabelledImages, fashion_mnist

__all__ = ["LabelledImages", "fashion_mnist"]
