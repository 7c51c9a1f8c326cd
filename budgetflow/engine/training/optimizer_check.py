"""The check that an optimizer does here what it does in optax, by tracing it before it runs.

The optimizer of every step is made from that step's learning rate
(:func:`budgetflow.engine.optimizers.make_optimizer`). One that would work all the same with another
number than the config's is refused: nobody would notice.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Jaxpr, Literal

from budgetflow.base.errors import ConfigError
from budgetflow.base.import_path import keyword_names
from budgetflow.base.user_code import location
from budgetflow.engine.optimizers import (
    DECAY_ARGUMENTS,
    MASK_ARGUMENTS,
    OptimizerSpec,
    example_numbers,
    make_optimizer,
    matrices,
    optimizer_factory,
    schedule_free_states,
)

_GIVEN = (
    "an update is given the gradient of the batch, the parameters and value=, the loss of the "
    "batch, but no function of the loss; it is compiled, with learning_rate and the floats of "
    "config.optimizer as traced numbers"
)
Outputs = set[int]


def check_update(
    spec: OptimizerSpec, params: Any, decays_weights: bool, averages_params: bool
) -> None:
    """Checks an optimizer on a model's parameters; nothing is compiled.

    Args:
        spec: what makes the optimizer.
        params: the model's parameters, or their shapes and types.
        decays_weights: whether the weight decay is on.
        averages_params: whether a moving average of the parameters is kept.

    Raises:
        ConfigError: the optimizer cannot be traced, needs more than it is given, is not at this
            step's learning rate, or does not apply the weight decay.
    """
    field, zero = f"config.optimizer.name = {spec.name!r}", np.float32(0)
    numbers = example_numbers(spec)

    def init(learning_rate: Any, numbers: Any, params: Any) -> Any:
        return make_optimizer(spec, numbers, learning_rate).init(params)

    # Of its traced program, input 0 is the learning rate, 1 the weight decay; from 2 on, the state.
    def update(
        learning_rate: Any, weight_decay: Any, state: Any, numbers: Any, params: Any, value: Any
    ) -> Any:
        numbers = {**numbers, "regularization": {"weight_decay": weight_decay}}
        optimizer = make_optimizer(spec, numbers, learning_rate)
        # Gradients are of the parameters' shapes and types.
        return optimizer.update(params, state, params, value=value)

    if decays_weights:
        _check_mask(field, spec)
    initialise, state = _traced(f"{field} makes no state", init, (zero, numbers, params))
    problem = f"{field} makes no update"
    if "linesearch" in keyword_names(optimizer_factory(spec.name)):
        problem += ", but may with config.optimizer.linesearch = None"
    arguments = (zero, zero, state, numbers, params, zero)
    step, (updates, after) = _traced(problem, update, arguments)
    _check_shapes(f"{field}: the updates", updates, params)
    _check_shapes(f"{field}: the state after an update", after, state)
    _check_learning_rate(field, initialise, step, state=state, updates=updates)
    if decays_weights:
        reached = _reached_in_time(step, 1, state, updates)
        _check_decay(field, spec.weight_decay_mask, reached, params)
    _check_schedule_free(field, state, params, averages_params)


def _check_mask(field: str, spec: OptimizerSpec) -> None:
    names = keyword_names(optimizer_factory(spec.name))
    own, masks = names & {*DECAY_ARGUMENTS}, names & {*MASK_ARGUMENTS}
    if spec.weight_decay_mask != "all" and own and not masks:
        raise ConfigError(
            f"config.weight_decay_mask = {spec.weight_decay_mask!r}, but the weight decay of "
            f"{field} takes no mask; set 'all', or an optimizer with {' or '.join(MASK_ARGUMENTS)}"
        )


def _traced(
    problem: str, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> tuple[Jaxpr, Any]:
    """A function's program, and the shapes of its results.

    Raises:
        ConfigError: it cannot be traced; the message begins with ``problem``.
    """
    try:
        closed, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
    except ConfigError:
        raise
    except Exception as error:  # whatever an optimizer does with arguments that do not suit it
        first_line = (str(error).splitlines() or [""])[0]
        where = location(error)
        raise ConfigError(
            f"{problem}: {type(error).__name__}: {first_line}{where} ({_GIVEN})"
        ) from error
    return closed.jaxpr, shapes


def _check_shapes(what: str, actual: Any, expected: Any) -> None:
    if not _alike(actual, expected):
        raise ConfigError(f"{what} are no tree of the same structure as before it")
    for (path, new), old in zip(
        jax.tree_util.tree_leaves_with_path(actual), jax.tree.leaves(expected), strict=True
    ):
        if new.shape != jnp.shape(old):
            raise ConfigError(
                f"{what} at {_name(path)} has shape {new.shape}; should be {jnp.shape(old)}"
            )


def _alike(tree: Any, other: Any) -> bool:
    structures: tuple[Any, Any] = jax.tree.structure(tree), jax.tree.structure(other)
    return structures[0] == structures[1]


def _check_learning_rate(
    field: str, initialise: Jaxpr, step: Jaxpr, state: Any, updates: Any
) -> None:
    kept = {2 + leaf for leaf in _reached(initialise, {0})}
    if kept and _reached(step, kept):
        raise ConfigError(
            f"{field} keeps the learning rate of its initialisation in its state, so "
            "config.schedule would have no effect on it; use an optimizer that takes the learning "
            "rate anew at every update, as those with optax.inject_hyperparams do"
        )
    if not _reached_in_time(step, 0, state, updates):
        raise ConfigError(
            f"{field} makes updates that do not depend on learning_rate, so config.schedule would "
            "have no effect on them"
        )


def _check_decay(field: str, weight_decay_mask: str, reached: Outputs, params: Any) -> None:
    masks_all = weight_decay_mask == "all"
    if not reached:
        raise ConfigError(
            f"config.regularization.weight_decay has no effect on {field} with "
            f"config.weight_decay_mask = {weight_decay_mask!r}"
        )
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    for leaf, decays in enumerate(jax.tree.leaves(matrices(params))):
        # Which parameters "all" are, an optimizer of a user's own may say.
        if decays and leaf not in reached and not masks_all:
            raise ConfigError(
                f"config.weight_decay_mask = {weight_decay_mask!r}, but {field} does not decay "
                f"{_name(paths[leaf])}; use 'all', or another optimizer"
            )


def _check_schedule_free(field: str, state: Any, params: Any, averages_params: bool) -> None:
    states = schedule_free_states(state)
    if states and averages_params:
        raise ConfigError(
            f"{field} evaluates an average of the parameters of its own; set config.ema_decay = 0"
        )
    if len(states) > 1 or (states and not _alike(states[0].z, params)):
        raise ConfigError(
            f"{field}: optax.contrib.schedule_free has to be around the optimizer of all "
            "parameters, or their average is not defined"
        )


def _reached_in_time(step: Jaxpr, source: int, state: Any, updates: Any) -> Outputs:
    """The updates that depend on an input, at once or in later steps by way of the state."""
    first_in, first_out = 2, len(jax.tree.leaves(updates))
    sources = {source}
    while True:
        outputs = _reached(step, sources)
        by_state = {first_in + leaf - first_out for leaf in outputs if leaf >= first_out}
        if by_state <= sources:
            return {leaf for leaf in outputs if leaf < first_out}
        sources |= by_state


def _reached(program: Jaxpr, inputs: Iterable[int]) -> Outputs:
    """Which outputs depend on some inputs, by number: those that do, and perhaps a few more."""
    reached = {program.invars[number] for number in inputs}
    for equation in program.eqns:
        if any(not isinstance(v, Literal) and v in reached for v in equation.invars):
            reached |= {*equation.outvars}
    return {
        number
        for number, v in enumerate(program.outvars)
        if not isinstance(v, Literal) and v in reached
    }


_name = functools.partial(jax.tree_util.keystr, simple=True, separator="/")
