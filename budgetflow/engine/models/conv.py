"""A small convolutional network."""

import jax
from flax import nnx

from budgetflow.engine.models.dropout import dropout


class ConvNet(nnx.Module):
    """3x3 convolutions with ReLU, each followed by 2x2 max pooling, then one dense layer.

    Args:
        input_shape: height, width and channels of one image.
        num_outputs: size of the output, such as the number of classes.
        channels: output channels of each convolution.
        hidden_size: width of the dense layer before the output.
        rngs: random number generators for the initialisation.
    """

    scale_uint8 = True  # pixels

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        num_outputs: int,
        *,
        channels: tuple[int, ...] = (16, 32),
        hidden_size: int = 64,
        rngs: nnx.Rngs,
    ) -> None:
        height, width, channels_in = input_shape
        convolutions = []
        for channels_out in channels:
            convolutions.append(nnx.Conv(channels_in, channels_out, (3, 3), rngs=rngs))
            height, width, channels_in = (height + 1) // 2, (width + 1) // 2, channels_out
        self.convolutions = nnx.List(convolutions)
        self.dense = nnx.Linear(height * width * channels_in, hidden_size, rngs=rngs)
        self.output = nnx.Linear(hidden_size, num_outputs, rngs=rngs)

    def __call__(
        self,
        inputs: jax.Array,
        *,
        dropout_rate: jax.Array | float = 0.0,
        rngs: nnx.Rngs | None = None,
    ) -> jax.Array:
        """Outputs [batch, num_outputs] for images [batch, height, width, channels]."""
        x = inputs
        for convolution in self.convolutions:
            x = nnx.max_pool(nnx.relu(convolution(x)), (2, 2), strides=(2, 2), padding="SAME")
        x = nnx.relu(self.dense(x.reshape(len(x), -1)))
        return self.output(dropout(x, dropout_rate, rngs))
