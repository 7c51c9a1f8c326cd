"""Models that configs name: see :mod:`budgetflow.engine.models.transformer`."""

from budgetflow.engine.models.transformer import Block, Transformer

__all__ = ["Block", "Transformer"]
