import jax
import jax.numpy as jnp
import optax
import pytest

from budgetflow.errors import ConfigError
from budgetflow.optimizers import check_optimizer, make_optimizer

PARAMS = {"w": jnp.asarray([1.0, -2.0]), "b": jnp.asarray(0.5)}


def own_optimizer(learning_rate, slowness=1.0):
    """An optimizer of a user's own."""
    return optax.sgd(learning_rate / slowness)


def run(optimizers):
    """Three updates of a quadratic's parameters, each by its own transformation."""
    params, state = PARAMS, optimizers[0].init(PARAMS)
    for optimizer in optimizers:
        updates, state = optimizer.update(params, state, params)
        params = optax.apply_updates(params, updates)
    return params


@pytest.mark.parametrize(
    ("options", "weight_decay", "reference"),
    [
        ({"name": "sgd", "momentum": 0.9}, 0.0, lambda s: optax.sgd(s, momentum=0.9)),
        (
            {"name": "sgd", "momentum": 0.9, "nesterov": True},
            0.0,
            lambda s: optax.sgd(s, momentum=0.9, nesterov=True),
        ),
        ({"name": "adam", "b1": 0.8}, 0.0, lambda s: optax.adam(s, b1=0.8)),
        ({"name": "adamw"}, 0.02, lambda s: optax.adamw(s, weight_decay=0.02)),
        ({"name": "adamw"}, 0.0, lambda s: optax.adamw(s, weight_decay=0.0)),
        (
            {"name": "sgd", "momentum": 0.9},
            0.1,
            lambda s: optax.chain(optax.add_decayed_weights(0.1), optax.sgd(s, momentum=0.9)),
        ),
        (
            {"name": f"{__name__}.own_optimizer", "slowness": 2.0},
            0.0,
            lambda s: optax.sgd(lambda count: s(count) / 2),
        ),
    ],
)
def test_updates_are_optax_own_on_a_schedule(options, weight_decay, reference):
    check_optimizer(options)
    rates = [0.1, 0.05, 0.025]
    ours = run([make_optimizer(options, rate, weight_decay) for rate in rates])
    schedule = optax.piecewise_constant_schedule(0.1, {1: 0.5, 2: 0.5})
    theirs = run([reference(schedule)] * 3)
    jax.tree.map(
        lambda a, b: jnp.allclose(a, b, rtol=1e-6) or pytest.fail(f"{a} {b}"), ours, theirs
    )


def test_numbers_may_be_traced():
    @jax.jit
    def update(learning_rate, momentum, weight_decay):
        optimizer = make_optimizer(
            {"name": "sgd", "momentum": momentum}, learning_rate, weight_decay
        )
        return optimizer.update(PARAMS, optimizer.init(PARAMS), PARAMS)[0]

    assert update(0.1, 0.9, 0.0)["b"] == pytest.approx(-0.05)
    assert update(0.2, 0.5, 1.0)["b"] == pytest.approx(-0.2)
    assert update._cache_size() == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "sgdd"}, "did you mean 'sgd'"),
        ({"name": "sgd", "momentun": 0.9}, "did you mean 'momentum'"),
        ({"name": "adamw", "weight_decay": 0.1}, "config.regularization.weight_decay"),
        ({"name": "adam", "learning_rate": 0.1}, "not an option"),
    ],
)
def test_what_optax_does_not_take_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        check_optimizer(options)
