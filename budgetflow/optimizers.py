"""Optimizers from optax, built inside the compiled step so that their numbers can be traced."""

from collections.abc import Callable
from typing import Any

import jax
import optax

from budgetflow.errors import ConfigError, nearest
from budgetflow.import_path import check_arguments, import_object, is_import_path, keyword_names
from budgetflow.user_code import user_code

Number = jax.Array | float


def optimizer_factory(name: str) -> Callable[..., optax.GradientTransformation]:
    """The function that makes an optimizer.

    Args:
        name: an optax optimizer ("sgd", "adamw", "lion"), or the import path of a function that
            takes ``learning_rate`` and returns a gradient transformation.

    Raises:
        ConfigError: there is no such optimizer.
    """
    if is_import_path(name):
        return import_object(name, "config.optimizer.name")
    known = [n for n in dir(optax) if _takes_learning_rate(getattr(optax, n))]
    if name not in known:
        raise ConfigError(
            f"config.optimizer.name = {name!r} is not in optax; {nearest(name, known)}"
        )
    return getattr(optax, name)


def _takes_learning_rate(candidate: Any) -> bool:
    return not isinstance(candidate, type) and "learning_rate" in keyword_names(candidate)


def check_optimizer(options: dict[str, Any]) -> None:
    """Checks ``config.optimizer``: its name, that its other keys are the optimizer's, and itself.

    Raises:
        ConfigError: a key does not fit, or no optimizer comes of them.
    """
    factory = optimizer_factory(options["name"])
    given = set(options) - {"name"}
    if "weight_decay" in given:
        raise ConfigError("weight decay is regularization: set config.regularization.weight_decay")
    check_arguments(factory, given, "config.optimizer", provided={"learning_rate", "weight_decay"})
    if "learning_rate" not in keyword_names(factory):
        raise ConfigError(f"config.optimizer.name = {options['name']!r} takes no learning_rate; it "
                          "should be a function as optax.adamw is")  # fmt: skip
    numbers = {name: value for name, value in options.items() if isinstance(value, float)}

    def make(traced: dict[str, Number], number: Number) -> None:
        make_optimizer(options | traced, number, number)

    with user_code("config.optimizer.name", options["name"]):
        jax.eval_shape(make, numbers, 0.1)


def make_optimizer(
    options: dict[str, Any], learning_rate: Number, weight_decay: Number
) -> optax.GradientTransformation:
    """The gradient transformation of one update.

    Its numbers may be traced: make it anew inside every compiled step, at that step's learning
    rate. The state it works on depends on none of them.

    Args:
        options: ``config.optimizer``, as :func:`check_optimizer` accepted it.
        learning_rate: this update's learning rate.
        weight_decay: handed to an optimizer that has weight decay of its own (adamw: decoupled); to
            any other it is added as L2 regularization of the gradient.
    """
    factory = optimizer_factory(options["name"])
    arguments = {key: value for key, value in options.items() if key != "name"}
    has_weight_decay = "weight_decay" in keyword_names(factory)
    if has_weight_decay:
        arguments["weight_decay"] = weight_decay
    optimizer = factory(learning_rate=learning_rate, **arguments)
    if not all(callable(getattr(optimizer, name, None)) for name in ("init", "update")):
        raise ConfigError(f"config.optimizer.name = {options['name']!r} should return an "
                          "optax.GradientTransformation, which has init and update, not "
                          f"{type(optimizer).__name__}")  # fmt: skip
    if has_weight_decay:
        return optimizer
    return optax.chain(optax.add_decayed_weights(weight_decay), optimizer)
