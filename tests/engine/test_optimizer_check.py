"""Optimizers that would train otherwise than the config says are refused by name."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
import optax.contrib
import pytest
from conftest import run, small_config, start_trial

from budgetflow.base.errors import ConfigError
from budgetflow.config import default_config
from budgetflow.engine.optimizers import optimizer_spec
from budgetflow.engine.schedules import Schedule
from budgetflow.engine.training.optimizer_check import check_update

PARAMS = {
    "kernel": jax.ShapeDtypeStruct((3, 2), "float32"),
    "bias": jax.ShapeDtypeStruct((2,), "float32"),
}
LABELS = {"kernel": "k", "bias": "b"}


def check(function, options=None, mask="all", decays=False, averages=False):
    spec = optimizer_spec({"name": f"{__name__}.{function}", **(options or {})}, mask, False)
    check_update(spec, PARAMS, decays, averages)


class RateState(NamedTuple):
    rate: jax.Array


def remembers(learning_rate):
    """Keeps the learning rate in a state of its own."""

    def update(updates, state, params=None):
        return jax.tree.map(lambda g: -state.rate * g, updates), state

    return optax.GradientTransformation(
        lambda params: RateState(jnp.asarray(learning_rate)), update
    )


def remembers_for_one(learning_rate):
    return optax.partition({"k": optax.sgd(learning_rate), "b": remembers(learning_rate)}, LABELS)


def injects_one_that_remembers(learning_rate):
    return optax.inject_hyperparams(optax.rprop)(learning_rate)


def ignores(learning_rate):
    return optax.adam(0.001)


def ignores_in_steps(learning_rate):
    return optax.MultiSteps(optax.adam(0.001), 2)


def injects_and_ignores(learning_rate):
    def inner(rate):
        return optax.sgd(0.1)

    return optax.inject_hyperparams(inner)(rate=learning_rate)


def only_in_state(learning_rate):
    """Notes the learning rate, to no effect."""

    def update(updates, state, params=None):
        return updates, RateState(learning_rate)

    return optax.GradientTransformation(lambda params: RateState(jnp.zeros(())), update)


def one_step_late(learning_rate):
    """Uses each learning rate a step later, which is odd, but not for us to say."""

    def update(updates, state, params=None):
        return jax.tree.map(lambda g: -state.rate * g, updates), RateState(learning_rate)

    return optax.GradientTransformation(lambda params: RateState(jnp.zeros(())), update)


def returns_none(learning_rate):
    optax.sgd(learning_rate)


def returns_a_pair(learning_rate):
    return optax.sgd(learning_rate), optax.sgd(learning_rate)


def raises(learning_rate):
    raise RuntimeError("no such\nthing")


def branches(learning_rate, momentum=0.9):
    return optax.sgd(learning_rate, momentum if momentum > 0.5 else None)


def needs_a_schedule(learning_rate):
    return optax.scale_by_schedule(learning_rate)


def schedule_of_number(learning_rate):
    return optax.scale_by_schedule(lambda count: -learning_rate)


def line_search(learning_rate):
    return optax.chain(optax.sgd(learning_rate), optax.scale_by_backtracking_linesearch(5))


def per_example(learning_rate):
    return optax.chain(
        optax.sgd(learning_rate),
        optax.stateless(lambda updates, params: jax.tree.map(lambda u: u[None], updates)),
    )


def other_tree(learning_rate):
    return optax.stateless(lambda updates, params: {"kernel": learning_rate * updates["kernel"]})


def grows(learning_rate):
    def update(updates, state, params=None):
        return optax.tree.scale(-learning_rate, updates), jnp.append(state, 1.0)

    return optax.GradientTransformation(lambda params: jnp.zeros(1), update)


def looks_ahead(learning_rate):
    return optax.lookahead(optax.sgd(learning_rate), 5, 0.5)


def free_in_part(learning_rate):
    free = optax.contrib.schedule_free(optax.sgd(learning_rate), learning_rate)
    return optax.partition({"k": free, "b": optax.sgd(learning_rate)}, LABELS)


def free(learning_rate):
    return optax.contrib.schedule_free(optax.sgd(learning_rate), learning_rate)


def takes_a_decay(learning_rate, weight_decay):
    return optax.sgd(learning_rate)


def decays_kernels(learning_rate, weight_decay):
    return optax.adamw(
        learning_rate, weight_decay=weight_decay, mask={"kernel": True, "bias": False}
    )


def decays_biases(learning_rate, weight_decay, mask=None):
    return optax.adamw(
        learning_rate, weight_decay=weight_decay, mask={"kernel": False, "bias": True}
    )


INJECTED = optax.inject_hyperparams(optax.adamw)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("remembers", "keeps the learning rate of its initialisation in its state"),
        ("remembers_for_one", "keeps the learning rate of its initialisation in its state"),
        ("injects_one_that_remembers", "keeps the learning rate of its initialisation"),
        ("ignores", "do not depend on learning_rate"),
        ("ignores_in_steps", "do not depend on learning_rate"),
        ("injects_and_ignores", "do not depend on learning_rate"),
        ("only_in_state", "do not depend on learning_rate"),
        ("returns_none", "returns None; should be an optax.GradientTransformation"),
        ("returns_a_pair", "returns a tuple; should be an optax.GradientTransformation"),
        ("raises", r"makes no state: RuntimeError: no such \("),
        (
            "needs_a_schedule",
            "makes no update: TypeError: .* not callable .*learning_rate .*number",
        ),
        ("line_search", "makes no update: TypeError: .*'value_fn'.*no function of the loss"),
        ("per_example", r"the updates at bias has shape \(1, 2\); should be \(2,\)"),
        ("other_tree", "the updates are no tree of the same structure"),
        ("grows", r"the state after an update at 1 has shape \(2,\)"),
        ("looks_ahead", "makes no update: AttributeError"),
        ("free_in_part", "schedule_free has to be around the optimizer of all parameters"),
    ],
)
def test_an_optimizer_that_does_otherwise_than_it_is_told_is_refused(function, message):
    with pytest.raises(ConfigError, match=message) as refusal:
        check(function)
    assert f"config.optimizer.name = '{__name__}.{function}'" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_branch_on_a_number_is_refused():
    with pytest.raises(ConfigError, match=r"TracerBoolConversionError.*traced numbers"):
        check("branches", {"momentum": 0.9})
    check("branches")


@pytest.mark.parametrize("function", ["one_step_late", "schedule_of_number", "free", "INJECTED"])
def test_others_are_not(function):
    check(function)


def test_an_average_of_an_average_is_refused():
    with pytest.raises(ConfigError, match=r"set config.ema_decay = 0"):
        check("free", averages=True)


def test_a_weight_decay_without_effect_is_refused():
    check("takes_a_decay")
    with pytest.raises(ConfigError, match=r"weight_decay has no effect on .*takes_a_decay"):
        check("takes_a_decay", decays=True)


def test_which_parameters_decay_an_optimizer_of_ones_own_may_say_where_the_config_does_not():
    for function in ("decays_kernels", "decays_biases"):
        check(function, decays=True)
    with pytest.raises(ConfigError, match="takes no mask"):
        check("decays_kernels", mask="matrices", decays=True)
    with pytest.raises(ConfigError, match="does not decay kernel"):
        check("decays_biases", mask="matrices", decays=True)
    # inject_hyperparams takes a rule for a schedule.
    with pytest.raises(ConfigError, match="INJECTED"):
        check("INJECTED", mask="matrices", decays=True)


def test_a_study_refuses_it_before_anything_is_compiled_or_written(tmp_path):
    compiled = []

    def listen(event, duration, **details):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    config = default_config("round")
    config.name = "refused"
    config.max_train_steps = 10
    config.model.hidden_sizes = (17,)
    config.optimizer = {"name": f"{__name__}.line_search"}
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        with pytest.raises(ConfigError, match=f"{__name__}.line_search.*'value_fn'"):
            run(config, tmp_path)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert compiled == []
    assert not any(tmp_path.iterdir())


def test_the_weight_decay_counts_where_it_is_on_or_varied(digits):
    fields = {"optimizer": {"name": f"{__name__}.takes_a_decay"}}
    schedule = Schedule(0.1, constant_steps=3)
    start_trial(digits, small_config(**fields), schedule)
    for varied, strength in (({"regularization.weight_decay"}, 0.0), (set(), 0.1)):
        config = small_config(regularization__weight_decay=strength, **fields)
        with pytest.raises(ConfigError, match="weight_decay has no effect"):
            start_trial(digits, config, schedule, frozenset(varied))
