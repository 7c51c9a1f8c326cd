import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from budgetflow.engine.models import MLP, ConvNet, ResNet, Transformer
from budgetflow.engine.models.dropout import dropout


@pytest.mark.parametrize("model_class", [MLP, ConvNet, ResNet])
def test_outputs_have_a_row_per_example(model_class):
    model = model_class((8, 8, 1), 10, rngs=nnx.Rngs(0))
    model.eval()
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


TOKENS = jnp.asarray(np.random.default_rng(0).integers(0, 11, (3, 16)))


def test_a_transformer_sees_only_the_past():
    model = Transformer((16,), 11, width=8, depth=2, heads=2, rngs=nnx.Rngs(0))
    before = model(TOKENS)
    assert before.shape == (3, 16, 11)
    after = model(TOKENS.at[:, 9].add(1))
    assert jnp.allclose(before[:, :9], after[:, :9], atol=1e-6)
    # Every later position sees the change.
    assert (jnp.abs(before[:, 9:] - after[:, 9:]).max(axis=-1) > 1e-6).all()


def test_a_transformer_drops_out_only_with_rngs():
    model = Transformer((16,), 11, width=8, depth=1, heads=2, rngs=nnx.Rngs(0))
    assert (model(TOKENS, dropout_rate=0.5) == model(TOKENS)).all()
    assert (model(TOKENS, dropout_rate=0.5, rngs=nnx.Rngs(1)) != model(TOKENS)).any()


def test_a_resnet_normalises_by_the_batch_in_training_and_by_its_statistics_in_evaluation():
    model = ResNet((8, 8, 1), 10, blocks=2, rngs=nnx.Rngs(0))
    images = jnp.asarray(np.random.default_rng(0).uniform(size=(4, 8, 8, 1)), jnp.float32)
    model.train()
    statistics = model.stem.norm.mean[...]
    in_batch = model(images)
    assert (model.stem.norm.mean[...] != statistics).any()
    # In a batch of its own an image is normalised differently.
    assert jnp.abs(model(images[:1]) - in_batch[:1]).max() > 1e-3
    model.eval()
    assert jnp.allclose(model(images[:1]), model(images)[:1], atol=1e-5)
