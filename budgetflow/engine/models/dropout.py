"""Dropout whose rate may be a traced number, so that trials of all rates share one program."""

import jax
import jax.numpy as jnp
from flax import nnx


def dropout(inputs: jax.Array, rate: jax.Array | float, rngs: nnx.Rngs | None) -> jax.Array:
    """Zeroes elements with probability ``rate`` in [0, 1) and scales up the others.

    Without ``rngs``, as in evaluation, or with a rate that is no traced number but 0, the inputs
    come back unchanged.
    """
    if rngs is None or (isinstance(rate, float) and rate == 0.0):
        return inputs
    keep = 1.0 - rate
    mask = jax.random.bernoulli(rngs.dropout(), keep, inputs.shape)
    return jnp.where(mask, inputs / keep, jnp.zeros_like(inputs))
