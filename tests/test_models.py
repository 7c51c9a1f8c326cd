import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from budgetflow.models import MLP, ConvNet
from budgetflow.models.dropout import dropout


@pytest.mark.parametrize("model_class", [MLP, ConvNet])
def test_outputs_have_a_row_per_example(model_class):
    model = model_class((8, 8, 1), 10, rngs=nnx.Rngs(0))
    images = jnp.asarray(np.random.default_rng(0).uniform(size=(3, 8, 8, 1)), jnp.float32)
    outputs = model(images)
    assert outputs.shape == (3, 10)
    # Each row depends on its own image alone.
    assert jnp.allclose(model(images[1:2])[0], outputs[1], atol=1e-6)


@pytest.mark.parametrize("model_class", [MLP, ConvNet])
def test_dropout_acts_only_with_rngs(model_class):
    model = model_class((8, 8, 1), 10, rngs=nnx.Rngs(0))
    images = jnp.ones((2, 8, 8, 1))
    plain = model(images)
    assert (model(images, dropout_rate=0.5) == plain).all()
    assert (model(images, dropout_rate=0.5, rngs=nnx.Rngs(1)) != plain).any()


def test_dropout_keeps_the_mean_and_takes_a_traced_rate():
    inputs = jnp.ones((200, 200))
    apply = jax.jit(lambda rate: dropout(inputs, rate, nnx.Rngs(0)))
    for rate in (0.0, 0.25, 0.8):
        outputs = apply(rate)
        assert abs((outputs == 0).mean() - rate) < 0.01
        assert abs(outputs.mean() - 1) < 0.03
    assert apply._cache_size() == 1
