"""A decoder-only transformer."""

import jax
import jax.numpy as jnp
from flax import nnx

from budgetflow.engine.models.dropout import dropout


class Transformer(nnx.Module):
    """Predicts the next token at every position from the tokens up to it.

    Pre-normalised blocks of causal self-attention and a two-layer perceptron of four times the
    width, with learned positions (Radford et al. 2019, GPT-2).

    Args:
        input_shape: (sequence length,).
        num_outputs: size of the vocabulary.
        width: size of the residual stream.
        depth: number of blocks.
        heads: attention heads of each block.
        remat: whether to compute each block's activations anew for its gradient instead of keeping
            them: less memory, about a third more computation.
        rngs: random number generators for the initialisation.
    """

    scale_uint8 = False  # tokens

    def __init__(
        self,
        input_shape: tuple[int],
        num_outputs: int,
        *,
        width: int = 64,
        depth: int = 2,
        heads: int = 4,
        remat: bool = False,
        rngs: nnx.Rngs,
    ) -> None:
        self.remat = remat
        small = nnx.initializers.normal(0.02)
        self.tokens = nnx.Embed(num_outputs, width, embedding_init=small, rngs=rngs)
        self.positions = nnx.Embed(input_shape[0], width, embedding_init=small, rngs=rngs)
        self.blocks = nnx.List([Block(width, heads, rngs=rngs) for _ in range(depth)])
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.output = nnx.Linear(width, num_outputs, use_bias=False, rngs=rngs)

    def __call__(
        self,
        inputs: jax.Array,
        *,
        dropout_rate: jax.Array | float = 0.0,
        rngs: nnx.Rngs | None = None,
    ) -> jax.Array:
        """Outputs [batch, length, num_outputs] for tokens [batch, length]."""
        x = self.tokens(inputs) + self.positions(jnp.arange(inputs.shape[1]))
        x = dropout(x, dropout_rate, rngs)
        apply = nnx.remat(Block.__call__) if self.remat else Block.__call__
        for block in self.blocks:
            x = apply(block, x, dropout_rate, rngs)
        return self.output(self.norm(x))


class Block(nnx.Module):
    """Attention and perceptron, each normalised before and added to the residual stream."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs) -> None:
        self.attention_norm = nnx.LayerNorm(width, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(heads, width, decode=False, rngs=rngs)
        self.perceptron_norm = nnx.LayerNorm(width, rngs=rngs)
        self.expand = nnx.Linear(width, 4 * width, rngs=rngs)
        self.contract = nnx.Linear(4 * width, width, rngs=rngs)

    def __call__(
        self, x: jax.Array, dropout_rate: jax.Array | float, rngs: nnx.Rngs | None
    ) -> jax.Array:
        """The residual stream [batch, length, width] after the block."""
        mask = nnx.make_causal_mask(x[..., 0])
        attended = self.attention(self.attention_norm(x), mask=mask)
        x = x + dropout(attended, dropout_rate, rngs)
        expanded = nnx.gelu(self.expand(self.perceptron_norm(x)))
        return x + dropout(self.contract(expanded), dropout_rate, rngs)
