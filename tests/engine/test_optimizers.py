import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest
from test_optax_optimizers import OWN_DECAY, SCHEDULE, Ours, assert_same, theirs, written_out

from budgetflow.base.errors import ConfigError
from budgetflow.engine.optimizers import (
    DECAY_ARGUMENTS,
    check_optimizer,
    make_optimizer,
    matrices,
    optimizer_factory,
    optimizer_spec,
)

PARAMS = {"kernel": jnp.asarray([[1.0], [-2.0]]), "bias": jnp.asarray([0.5])}


def slowed(learning_rate, slowness=1.0):
    """An optimizer of a user's own."""
    return optax.sgd(learning_rate / slowness)


def plateau(learning_rate):
    return optax.chain(
        optax.sgd(learning_rate), optax.contrib.reduce_on_plateau(patience=1, rtol=0.5)
    )


def polyak(learning_rate):
    return optax.polyak_sgd(max_learning_rate=learning_rate)


def test_numbers_may_be_traced():
    @jax.jit
    def update(learning_rate, momentum, weight_decay):
        spec = optimizer_spec({"name": "sgd", "momentum": 0.1}, "all", False)
        numbers = {"optimizer": {"momentum": momentum}}
        numbers["regularization"] = {"weight_decay": weight_decay}
        optimizer = make_optimizer(spec, numbers, learning_rate)
        return optimizer.update(PARAMS, optimizer.init(PARAMS), PARAMS)[0]

    assert update(0.1, 0.9, 0.0)["bias"] == pytest.approx(-0.05)
    assert update(0.2, 0.5, 1.0)["bias"] == pytest.approx(-0.2)
    assert update._cache_size() == 1


@pytest.mark.parametrize(
    ("names", "factory"),
    [
        (("adamw", "optax.adamw"), optax.adamw),
        (("contrib.momo", "optax.contrib.momo"), optax.contrib.momo),
        ((f"{__name__}.slowed",), slowed),
    ],
)
def test_an_optimizer_is_found_by_its_name(names, factory):
    for name in names:
        assert optimizer_factory(name) is factory


# How one update goes that has a learning rate in its state, in whatever it is wrapped.
INJECTED = optax.inject_hyperparams(optax.adamw)


def injected(learning_rate, b1=0.9, weight_decay=0.0):
    return INJECTED(learning_rate, b1=b1, weight_decay=weight_decay)


def injected_in_chain(learning_rate):
    return optax.chain(optax.clip(0.5), optax.inject_hyperparams(optax.sgd)(learning_rate))


def injected_in_mask(learning_rate):
    plain = optax.masked(optax.sgd(learning_rate), {"kernel": False, "bias": True})
    inner = optax.inject_hyperparams(optax.adam)(learning_rate)
    return optax.chain(optax.masked(inner, {"kernel": True, "bias": False}), plain)


def injected_in_partition(learning_rate):
    transforms = {
        "k": optax.inject_hyperparams(optax.adam)(learning_rate),
        "b": optax.inject_hyperparams(optax.sgd)(learning_rate, momentum=0.5),
    }
    return optax.partition(transforms, {"kernel": "k", "bias": "b"})


def injected_in_injected(learning_rate):
    def inner(scale):
        return optax.inject_hyperparams(optax.sgd)(learning_rate * scale)

    return optax.inject_hyperparams(inner)(scale=0.5)


def injected_schedule(learning_rate):
    return optax.inject_hyperparams(optax.sgd)(lambda count: learning_rate)


def injected_in_steps(learning_rate):
    inner = optax.inject_hyperparams(optax.adam)(learning_rate)
    return optax.MultiSteps(inner, every_k_schedule=2)


@pytest.mark.parametrize(
    ("function", "on_schedule"),
    [
        (slowed, lambda s: optax.sgd(s)),
        (injected, lambda s: optax.adamw(s, weight_decay=0.0)),
        (injected_in_chain, lambda s: optax.chain(optax.clip(0.5), optax.sgd(s))),
        (
            injected_in_mask,
            lambda s: optax.partition(
                {"k": optax.chain(optax.adam(s)), "b": optax.chain(optax.sgd(s))},
                {"kernel": "k", "bias": "b"},
            ),
        ),
        (
            injected_in_partition,
            lambda s: optax.partition(
                {"k": optax.adam(s), "b": optax.sgd(s, momentum=0.5)}, {"kernel": "k", "bias": "b"}
            ),
        ),
        (injected_in_injected, lambda s: optax.sgd(lambda count: s(count) / 2)),
        (injected_schedule, optax.sgd),
        (
            plateau,
            lambda s: optax.chain(
                optax.sgd(s), optax.contrib.reduce_on_plateau(patience=1, rtol=0.5)
            ),
        ),
    ],
    ids=lambda f: f.__name__,
)
def test_an_optimizer_of_ones_own_is_at_this_steps_learning_rate(function, on_schedule):
    optimizer = on_schedule(SCHEDULE)
    ours = Ours({"name": f"{__name__}.{function.__name__}"}, decays=False)()
    assert_same(ours, written_out(lambda step: optimizer)[0])


def test_several_steps_for_an_update_are_at_the_last_ones_learning_rate():
    ours = Ours({"name": f"{__name__}.injected_in_steps"})()
    optimizer = optax.MultiSteps(optax.adam(lambda count: SCHEDULE(2 * count + 1)), 2)
    assert_same(ours, written_out(lambda step: optimizer.gradient_transformation())[0])


def test_a_polyak_step_size_is_given_the_loss():
    ours = Ours({"name": f"{__name__}.polyak"})()
    made = [optax.polyak_sgd(max_learning_rate=SCHEDULE(step)) for step in range(10)]
    assert_same(ours, written_out(made.__getitem__)[0])


def test_numbers_of_an_injected_optimizer_are_the_trials():
    ours = Ours({"name": f"{__name__}.injected", "b1": 0.9})(weight_decay=0.25, b1=0.5)
    optimizer = optax.adamw(SCHEDULE, b1=0.5, weight_decay=0.25)
    assert_same(ours, written_out(lambda step: optimizer)[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "sgdd"}, "did you mean 'sgd'"),
        ({"name": "prodigy"}, r"not in optax; did you mean 'contrib.prodigy'\?"),
        ({"name": "contrib.adamw"}, "not in optax; did you mean 'adamw'"),
        ({"name": "optax.contrib"}, "is of type module, not a class or function"),
        ({"name": f"{__name__}.PARAMS"}, "is of type dict, not a class or function"),
        ({"name": f"{__name__}.MADE"}, "is of type GradientTransformationExtraArgs, not a class"),
        ({"name": "my lab.sgd"}, "is neither in optax nor an import path"),
        ({"name": "polyak_sgd"}, "polyak_sgd' has no argument learning_rate; name a function of"),
        ({"name": f"{__name__}.assert_same"}, "has no argument learning_rate"),
        ({"name": "sgd", "momentun": 0.9}, "did you mean 'momentum'"),
        ({"name": "nadam", "momentum": 0.9}, "is not an option of optax._src.alias.adam"),
        ({"name": "adamw", "weight_decay": 0.1}, "set config.regularization.weight_decay"),
        ({"name": "contrib.muon", "adam_weight_decay": 0.1}, "set config.regularization.weight_de"),
        ({"name": "adamw", "mask": "matrices"}, "set config.weight_decay_mask"),
        ({"name": "adam", "learning_rate": 0.1}, "not an option"),
    ],
)
def test_what_an_optimizer_does_not_take_is_refused(options, message):
    with pytest.raises(ConfigError, match=message) as refusal:
        check_optimizer(options)
    assert "\n" not in str(refusal.value)


MADE = optax.sgd(0.1)


def test_matrices_are_neither_biases_nor_scales():
    params = {
        "embedding": jnp.ones((5, 4)),
        "query": {"kernel": jnp.ones((4, 2, 2)), "bias": jnp.ones((2, 2))},
        "norm": {"scale": jnp.ones(4), "bias": jnp.ones(4)},
        "layers": [{"kernel": jnp.ones((4, 4)), "bias": jnp.ones(4)}],
    }
    assert matrices(params) == {
        "embedding": True,
        "query": {"kernel": True, "bias": False},
        "norm": {"scale": False, "bias": False},
        "layers": [{"kernel": True, "bias": False}],
    }


def masked_decay(learning_rate):
    """Decoupled, by optax's parts."""
    return optax.chain(
        optax.scale_by_adam(),
        optax.add_decayed_weights(0.25, {"kernel": True, "bias": False}),
        optax.scale_by_learning_rate(learning_rate),
    )


@pytest.mark.parametrize(
    "name", ["sgd", "adamw", "lars", "adafactor", "adadelta", "contrib.muon", "contrib.cocob"]
)
def test_only_matrices_decay(name):
    mask = {"kernel": True, "bias": False}
    ours = Ours({"name": name}, "matrices")(weight_decay=0.25)
    if name == "adamw":
        optimizer = masked_decay(SCHEDULE)
    elif name == "sgd":
        optimizer = optax.chain(optax.add_decayed_weights(0.25, mask), optax.sgd(SCHEDULE))
    elif name == "contrib.muon":  # whose matrices are these, and are all that has this decay
        optimizer = optax.contrib.muon(SCHEDULE, weight_decay=0.25)
    else:
        factory = optimizer_factory(name)
        argument = "mask" if name == "contrib.cocob" else "weight_decay_mask"
        optimizer = factory(SCHEDULE, **{OWN_DECAY[name][0]: 0.25, argument: mask})
    expected = written_out(lambda step: optimizer, compiled=True)[0]
    assert_same(ours, expected)
    if name != "contrib.cocob":  # to which the two parameters are one vector
        np.testing.assert_allclose(ours["bias"], theirs(name, 0.0)["bias"], rtol=0.1)


WITHOUT_MASK = [
    "novograd",
    "contrib.dadapt_adamw",
    "contrib.madgrad",
    "contrib.momo",
    "contrib.momo_adam",
    "contrib.prodigy",
    "contrib.schedule_free_adamw",
    "contrib.schedule_free_sgd",
]


@pytest.mark.parametrize("name", WITHOUT_MASK)
def test_a_weight_decay_without_a_mask_is_not_masked(name):
    message = f"weight_decay_mask = 'matrices', but the weight decay of .*'{name}' takes no mask"
    with pytest.raises(ConfigError, match=message):
        Ours({"name": name}, "matrices")
    Ours({"name": name}, "matrices", decays=False)


def test_every_other_optimizer_takes_the_mask():
    for name in OWN_DECAY.keys() - {*WITHOUT_MASK, "contrib.sophia"}:
        Ours({"name": name}, "matrices")
    assert {argument for own in OWN_DECAY.values() for argument in own} == {*DECAY_ARGUMENTS}
