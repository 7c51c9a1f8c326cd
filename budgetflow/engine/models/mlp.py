"""A multilayer perceptron."""

import itertools
import math

import jax
from flax import nnx

from budgetflow.engine.models.dropout import dropout


class MLP(nnx.Module):
    """Flattens its inputs and applies dense layers with ReLU between them.

    Args:
        input_shape: shape of one example.
        num_outputs: size of the output, such as the number of classes.
        hidden_sizes: width of each hidden layer.
        rngs: random number generators for the initialisation.
    """

    scale_uint8 = True  # pixels

    def __init__(
        self,
        input_shape: tuple[int, ...],
        num_outputs: int,
        *,
        hidden_sizes: tuple[int, ...] = (128, 128),
        rngs: nnx.Rngs,
    ) -> None:
        sizes = (math.prod(input_shape), *hidden_sizes)
        self.hidden = nnx.List(
            [nnx.Linear(n_in, n_out, rngs=rngs) for n_in, n_out in itertools.pairwise(sizes)]
        )
        self.output = nnx.Linear(sizes[-1], num_outputs, rngs=rngs)

    def __call__(
        self,
        inputs: jax.Array,
        *,
        dropout_rate: jax.Array | float = 0.0,
        rngs: nnx.Rngs | None = None,
    ) -> jax.Array:
        """Outputs [batch, num_outputs] for inputs [batch, *input_shape]."""
        x = inputs.reshape(len(inputs), -1)
        for layer in self.hidden:
            x = dropout(nnx.relu(layer(x)), dropout_rate, rngs)
        return self.output(x)
