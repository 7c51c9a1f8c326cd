"""Models of a user's own that do unusual but valid things: they train, and the right numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import small_config, start_trial
from flax import nnx

from budgetflow.engine.data.batches import batch_indices
from budgetflow.engine.schedules import Schedule

STEPS, RATE, SIZE = 6, 0.1, 64


class Plain(nnx.Module):
    def __init__(self, input_shape, num_outputs, *, rngs, param_dtype=jnp.float32):
        self.linear = nnx.Linear(64, num_outputs, param_dtype=param_dtype, rngs=rngs)

    def __call__(self, inputs):
        return self.linear(inputs.reshape(len(inputs), -1))


class Sowing(Plain):
    """Sows its features, as for a probe."""

    def __call__(self, inputs):
        self.sow(nnx.Intermediate, "features", inputs)
        return super().__call__(inputs)


class WithArrays(Plain):
    """Holds arrays that are no parameters, from JAX and from NumPy, and a key."""

    def __init__(self, input_shape, num_outputs, *, rngs):
        super().__init__(input_shape, num_outputs, rngs=rngs)
        self.scale = jnp.full((8, 8, 1), 0.5)
        self.offset = np.linspace(0, 1, 8, dtype=np.float32)[:, None, None]
        self.key = jax.random.key(3)

    def __call__(self, inputs):
        return super().__call__(inputs * self.scale + self.offset)


class Bfloat16(Plain):
    """Keeps its parameters in bfloat16."""

    def __init__(self, input_shape, num_outputs, *, rngs):
        super().__init__(input_shape, num_outputs, rngs=rngs, param_dtype=jnp.bfloat16)


def plain_loop(digits, model_class):
    """The same training without any of budgetflow's code but the order of examples."""
    model = model_class((8, 8, 1), 10, rngs=nnx.Rngs(jax.random.key(0)))
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    optimizer = optax.adam(RATE)
    state = optimizer.init(params)
    arrays = digits.train.arrays

    def loss(params, images, labels):
        outputs = nnx.merge(graph, params, rest, copy=True)(images).astype(jnp.float32)
        return optax.softmax_cross_entropy_with_integer_labels(outputs, labels).mean()

    for indices in batch_indices(0, 0, STEPS, SIZE, digits.train.num_examples):
        images = jnp.asarray(arrays["inputs"][indices], jnp.float32) / 255
        gradients = jax.grad(loss)(params, images, jnp.asarray(arrays["targets"][indices]))
        updates, state = optimizer.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
    return nnx.to_pure_dict(params)


@pytest.mark.filterwarnings("ignore:Using 'Module.sow")
@pytest.mark.parametrize(
    ("model_class", "rtol"), [(Sowing, 1e-4), (WithArrays, 1e-4), (Bfloat16, 0.1)]
)
def test_they_train_as_in_a_plain_loop(digits, model_class, rtol):
    config = small_config(
        model={"name": f"{__name__}.{model_class.__name__}"}, optimizer={"name": "adam"}
    )
    run = start_trial(digits, config, Schedule(RATE, constant_steps=STEPS))
    types = jax.tree.map(lambda leaf: leaf.dtype, run.state)
    measurement = run.advance(STEPS)
    assert jax.tree.map(lambda leaf: leaf.dtype, run.state) == types
    assert not measurement.diverged
    expected = plain_loop(digits, model_class)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(
            np.asarray(a, np.float32), np.asarray(b, np.float32), rtol=rtol, atol=rtol / 10
        ),
        run.state.params, expected,
    )  # fmt: skip
