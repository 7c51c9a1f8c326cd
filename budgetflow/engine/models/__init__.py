"""Models as flax nnx modules.

A model, budgetflow's or your own, is built as ``Model(input_shape, num_outputs, *, rngs, ...)``
with the rest of ``config.model``, and called as ``model(inputs)`` on float inputs [batch, ...].
Keys of ``config.regularization`` that its ``__call__`` takes by name (``dropout_rate``) reach it as
traced numbers while training, with ``rngs`` if it takes that too; ``model.train()`` or
``model.eval()`` has been called before.
"""

from budgetflow.engine.models.conv import ConvNet
from budgetflow.engine.models.mlp import MLP
from budgetflow.engine.models.resnet import ResNet
from budgetflow.engine.models.transformer import Transformer

__all__ = ["MLP", "ConvNet", "ResNet", "Transformer"]
