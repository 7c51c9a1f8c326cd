"""Every optimizer that optax has does here what it does there, or is refused by name.

A new one of a later optax is found by itself, and fails here if it does neither.
"""

import functools
import inspect

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

from budgetflow.base.errors import ConfigError
from budgetflow.engine.optimizers import (
    check_optimizer,
    make_optimizer,
    optimizer_spec,
    schedule_free_params,
)
from budgetflow.engine.training.optimizer_check import check_update

# optax's own: deprecated, or in want of a key.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*optimistic_adam.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Specifying a key:UserWarning"),
    pytest.mark.filterwarnings('ignore:"seed" is deprecated:DeprecationWarning'),
]


def parameters(factory):
    try:
        return inspect.signature(factory).parameters
    except (TypeError, ValueError):
        return {}


FACTORIES = {
    prefix + name: getattr(module, name)
    for prefix, module in (("", optax), ("contrib.", optax.contrib))
    for name in dir(module)
    if not name.startswith("_")
    and not isinstance(getattr(module, name), type)
    and "learning_rate" in parameters(getattr(module, name))
}
REFUSED = {
    "lbfgs": "may with config.optimizer.linesearch = None: TypeError: .*'grad' and 'value_fn'",
    "rprop": "keeps the learning rate of its initialisation in its state",
    "scale_by_rprop": "keeps the learning rate of its initialisation in its state",
    "contrib.dpsgd": "expects `grads` to have a batch dimension",
    "contrib.schedule_free": "config.optimizer.base_optimizer is missing",
    "contrib.sophia": "obj_fn must be provided",
}
REQUIRED = {"contrib.dpsgd": {"l2_norm_clip": 1.0, "noise_multiplier": 1.0, "seed": 0}}
# Those that take a number, and not a schedule: their reference is made anew for every step. The
# schedule-free ones take one, but look it up a step late for one of its two uses.
TAKES_NUMBER = {
    "sm3",
    "optimistic_adam",
    "contrib.schedule_free_adamw",
    "contrib.schedule_free_sgd",
}
# Every argument that has to do with weight decay, but for these two, of optimizers with one of
# their own; the others are handed an L2 term.
OWN_DECAY = {
    "adafactor": ["weight_decay_rate"],
    "contrib.muon": ["weight_decay", "adam_weight_decay"],
}
OWN_DECAY |= {
    name: ["weight_decay"]
    for name, factory in FACTORIES.items()
    if name not in OWN_DECAY and "weight_decay" in parameters(factory)
}
SUPPORTED = sorted(FACTORIES.keys() - REFUSED.keys())
# Compiled, since control flow is slow if it is not, or the last bits count (radam's 1 - b2**step).
COMPILED = {"contrib.muon", "contrib.galore", "novograd", "radam"}
OPTIONS = {"xla_backend_optimization_level": 0}
STEPS, WEIGHT_DECAY = 10, 0.25
SCHEDULE = optax.exponential_decay(0.0625, 1, 0.75)


def other_value(default):
    """A number that is another one than the default, and exact in float32 as its 1 - x is."""
    if default is None or default == 0:
        return 0.25
    return 2**-8 if default < 0.1 else 0.75 if default < 1 else 2.0 * default


def numbers_of(factory):
    """A value other than its default for each argument that is, or may be, a float."""
    hidden = {"learning_rate", "weight_decay", "weight_decay_rate", "adam_weight_decay", "key"}
    no_numbers = ("mask", "dimension_numbers", "base_optimizer")
    kinds = ("float", "ArrayLike", "ScalarOrSchedule")
    return {
        name: other_value(p.default)
        for name, p in parameters(factory).items()
        if name not in hidden
        and not name.endswith(no_numbers)
        and (
            isinstance(p.default, float)
            or (p.default is None and any(kind in str(p.annotation) for kind in kinds))
        )
    }


@functools.cache
def problem():
    """Parameters of a small model, and its loss and gradient on the batch of a step."""
    keys = iter(jax.random.split(jax.random.key(3), 6))

    def normal(*shape):
        return jax.random.normal(next(keys), shape) / 2

    params = {"kernel": normal(3, 2), "bias": normal(2)}
    inputs, targets = normal(STEPS, 8, 3), normal(STEPS, 8, 2)

    @jax.value_and_grad
    def loss(params, step):
        outputs = jnp.tanh(inputs[step] @ params["kernel"] + params["bias"])
        return jnp.mean((outputs - targets[step]) ** 2)

    return params, jax.jit(loss)


class Ours:
    """An optimizer as the train step uses it, compiled once for all numbers."""

    def __init__(self, options, mask="all", decays=True):
        check_optimizer(options)
        self.spec = optimizer_spec(options, mask, False)
        check_update(self.spec, problem()[0], decays, averages_params=False)
        self.train = jax.jit(self._train, compiler_options=OPTIONS)

    def __call__(self, weight_decay=0.0, **options):
        numbers = {"optimizer": options, "regularization": {"weight_decay": weight_decay}}
        numbers = jax.tree.map(np.float32, numbers)
        rates = np.asarray([SCHEDULE(step) for step in range(STEPS)])
        params = self.train(numbers, rates)
        assert self.train._cache_size() == 1
        return params

    def _train(self, numbers, rates):
        params, loss = problem()

        def step(carry, step_and_rate):
            params, state = carry
            value, gradients = loss(params, step_and_rate[0])
            optimizer = make_optimizer(self.spec, numbers, step_and_rate[1])
            updates, state = optimizer.update(gradients, state, params, value=value)
            params = optax.apply_updates(params, updates)
            return (params, state), None

        state = make_optimizer(self.spec, numbers, rates[0]).init(params)
        (params, state), _ = jax.lax.scan(step, (params, state), (jnp.arange(STEPS), rates))
        return schedule_free_params(state, params) or params


def written_out(optimizer_of_step, compiled=False):
    """The same with optax alone; the parameters and the state after the last step."""
    params, loss = problem()
    state = optimizer_of_step(0).init(params)
    for step in range(STEPS):
        value, gradients = loss(params, step)
        update = optax.with_extra_args_support(optimizer_of_step(step)).update
        if compiled:
            update = jax.jit(update, compiler_options=OPTIONS)
        updates, state = update(gradients, state, params, value=value)
        params = optax.apply_updates(params, updates)
    return params, state


def theirs(name, weight_decay=0.0, **options):
    """What an optimizer of optax's gives, at optax's own schedule if it takes one."""
    own = OWN_DECAY.get(name, ())
    factory = functools.partial(FACTORIES[name], **dict.fromkeys(own, weight_decay), **options)

    def optimizer(rate):
        made = factory(learning_rate=rate)
        return made if own else optax.chain(optax.add_decayed_weights(weight_decay), made)

    if name in TAKES_NUMBER:
        params, state = written_out(lambda step: optimizer(SCHEDULE(step)))
    else:
        on_schedule = optimizer(SCHEDULE)
        params, state = written_out(lambda step: on_schedule, name in COMPILED)
    if name.startswith("contrib.schedule_free"):
        params = optax.contrib.schedule_free_eval_params(state, params)
    return params


def assert_same(ours, theirs):
    ours, theirs, start = (
        jax.flatten_util.ravel_pytree(tree)[0] for tree in (ours, theirs, problem()[0])
    )
    moved = np.abs(theirs - start).max()
    assert 0 < moved < np.inf
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * moved + 3e-7)


@pytest.mark.parametrize("name", SUPPORTED)
def test_an_optimizer_is_optax_own_whatever_its_numbers(name):
    ours = Ours({"name": name})
    for weight_decay in (0.0, WEIGHT_DECAY):
        assert_same(ours(weight_decay), theirs(name, weight_decay))
    if changed := numbers_of(FACTORIES[name]):
        assert_same(Ours({"name": name, **changed})(**changed), theirs(name, **changed))


@pytest.mark.parametrize("name", sorted(REFUSED.keys() & FACTORIES.keys()))
def test_an_optimizer_that_cannot_work_is_refused(name):
    with pytest.raises(ConfigError, match=REFUSED[name]) as refusal:
        Ours({"name": name, **REQUIRED.get(name, {})})
    assert "\n" not in str(refusal.value)
    assert name in str(refusal.value) or "schedule_free" in name


def test_every_weight_decay_is_known():
    found = {
        argument
        for factory in FACTORIES.values()
        for argument in parameters(factory)
        if "decay" in argument
    }
    assert found == {
        "weight_decay",
        "weight_decay_rate",
        "adam_weight_decay",
        "weight_decay_mask",
        # Of averages, not of weights.
        "decay",
        "decay_rate",
        "decay_offset",
    }
