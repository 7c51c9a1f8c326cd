"""The convolutional network of the benchmark."""

import jax
from flax import nnx


class StridedConvNet(nnx.Module):
    """Two 3x3 convolutions of stride 2 and a dense layer, each with ReLU, and the output."""

    def __init__(
        self, input_shape: tuple[int, int, int], num_outputs: int, *, rngs: nnx.Rngs
    ) -> None:
        height, width, channels = input_shape
        self.first = nnx.Conv(channels, 16, (3, 3), strides=2, rngs=rngs)
        self.second = nnx.Conv(16, 32, (3, 3), strides=2, rngs=rngs)
        self.dense = nnx.Linear(-(-height // 4) * -(-width // 4) * 32, 256, rngs=rngs)
        self.output = nnx.Linear(256, num_outputs, rngs=rngs)

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Outputs [batch, num_outputs] for images [batch, height, width, channels]."""
        x = nnx.relu(self.second(nnx.relu(self.first(inputs))))
        return self.output(nnx.relu(self.dense(x.reshape(len(x), -1))))
