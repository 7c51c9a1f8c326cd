"""A residual convolutional network with batch normalisation."""

import jax
from flax import nnx


class ResNet(nnx.Module):
    """Stages of basic residual blocks, each stage at half the resolution of the one before.

    The network for small images of He et al. 2016 (arXiv:1512.03385), section 4.2: a convolution,
    then the stages, global average pooling and one dense layer.

    Args:
        input_shape: height, width and channels of one image.
        num_outputs: size of the output, such as the number of classes.
        channels: output channels of each stage.
        blocks: residual blocks in each stage.
        rngs: random number generators for the initialisation.
    """

    scale_uint8 = True  # pixels

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        num_outputs: int,
        *,
        channels: tuple[int, ...] = (16, 32),
        blocks: int = 1,
        rngs: nnx.Rngs,
    ) -> None:
        self.stem = NormedConvolution(input_shape[-1], channels[0], 1, rngs=rngs)
        stages, channels_in = [], channels[0]
        for stage, channels_out in enumerate(channels):
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                stages.append(ResidualBlock(channels_in, channels_out, stride, rngs=rngs))
                channels_in = channels_out
        self.blocks = nnx.List(stages)
        self.output = nnx.Linear(channels_in, num_outputs, rngs=rngs)

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Outputs [batch, num_outputs] for images [batch, height, width, channels]."""
        x = nnx.relu(self.stem(inputs))
        for block in self.blocks:
            x = block(x)
        return self.output(x.mean(axis=(1, 2)))


class ResidualBlock(nnx.Module):
    """Two 3x3 convolutions, and a projection of the input where its shape changes."""

    def __init__(self, channels_in: int, channels_out: int, stride: int, *, rngs: nnx.Rngs) -> None:
        self.first = NormedConvolution(channels_in, channels_out, stride, rngs=rngs)
        self.second = NormedConvolution(channels_out, channels_out, 1, rngs=rngs)
        changes = stride != 1 or channels_in != channels_out
        self.projection = (
            NormedConvolution(channels_in, channels_out, stride, size=1, rngs=rngs)
            if changes
            else None
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """Features after the block."""
        residual = self.second(nnx.relu(self.first(x)))
        return nnx.relu(residual + (self.projection(x) if self.projection else x))


class NormedConvolution(nnx.Module):
    """A convolution without bias, then batch normalisation."""

    def __init__(
        self, channels_in: int, channels_out: int, stride: int, *, size: int = 3, rngs: nnx.Rngs
    ) -> None:
        self.convolution = nnx.Conv(
            channels_in, channels_out, (size, size), strides=stride, use_bias=False, rngs=rngs
        )
        self.norm = nnx.BatchNorm(channels_out, momentum=0.9, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalised features."""
        return self.norm(self.convolution(x))
