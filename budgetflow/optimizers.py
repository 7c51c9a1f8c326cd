"""Optimizers from optax, built inside the compiled step so that their numbers can be traced."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from budgetflow.errors import ConfigError, nearest
from budgetflow.import_path import check_arguments, import_object, is_import_path, keyword_names
from budgetflow.user_code import user_code

Number = jax.Array | float
WeightDecayMask = Literal["all", "matrices"]
# What optax's optimizers call their own weight decay, and the mask of it.
_DECAYS = ("weight_decay", "weight_decay_rate", "adam_weight_decay")
_MASKS = ("mask", "weight_decay_mask")


@dataclasses.dataclass(frozen=True)
class OptimizerSpec:
    """What an optimizer is, but for its numbers; hashable.

    Attributes:
        name: optax's name of it, or an import path.
        options: its arguments; "traced" in the place of a number that is handed over in each step.
        weight_decay_mask: what decays: "all" parameters, or "matrices" (arrays of two dimensions or
            more) and so neither biases nor the scales of normalisation.
        clips_gradients: whether gradients are clipped to a global norm.
    """

    name: str
    options: tuple[tuple[str, Any], ...] = ()
    weight_decay_mask: WeightDecayMask = "all"
    clips_gradients: bool = False

    @property
    def traced(self) -> tuple[str, ...]:
        """The arguments that are handed over in each step."""
        return tuple(name for name, value in self.options if value == "traced")


def optimizer_factory(name: str) -> Callable[..., optax.GradientTransformation]:
    """The function that makes an optimizer.

    Args:
        name: an optax optimizer ("sgd", "adamw", "contrib.muon"), or the import path of a function
            that takes ``learning_rate`` and returns a gradient transformation.

    Raises:
        ConfigError: there is no such optimizer.
    """
    inside, _, last = name.rpartition(".")
    if inside not in ("", "contrib") and is_import_path(name):
        factory = import_object(name, "config.optimizer.name")
        if not _takes_learning_rate(factory):
            raise ConfigError(
                f"config.optimizer.name = {name!r} is not a function that takes learning_rate"
            )
        return factory
    module = optax.contrib if inside == "contrib" else optax
    known = [n for n in dir(module) if n[0] != "_" and _takes_learning_rate(getattr(module, n))]
    if last not in known:
        raise ConfigError(
            f"config.optimizer.name = {name!r} is no optimizer of optax that takes learning_rate; "
            f"{nearest(last, known)}"
        )
    return getattr(module, last)


def _takes_learning_rate(candidate: Any) -> bool:
    try:
        return "learning_rate" in keyword_names(candidate)
    except (TypeError, ValueError):
        return False


def optimizer_spec(
    options: Mapping[str, Any], weight_decay_mask: WeightDecayMask = "all", clips: bool = False
) -> OptimizerSpec:
    """The spec of ``config.optimizer``, its name and other keys checked.

    Args:
        options: the name, and arguments, of which floats are traced.
        weight_decay_mask: see :class:`OptimizerSpec`.
        clips: whether gradients are clipped.

    Raises:
        ConfigError: a key does not fit.
    """
    factory = optimizer_factory(options["name"])
    given = set(options) - {"name"}
    provided = {"learning_rate", *_DECAYS, *_MASKS}
    for name in sorted(given & {*_DECAYS}):
        raise ConfigError(
            f"config.optimizer.{name}: weight decay is regularization; set "
            "config.regularization.weight_decay"
        )
    for name in sorted(given & {*_MASKS} & keyword_names(factory)):
        raise ConfigError(f"config.optimizer.{name}: set config.weight_decay_mask")
    check_arguments(factory, given, "config.optimizer", provided)
    names = keyword_names(factory)
    if weight_decay_mask != "all" and names & {*_DECAYS} and not names & {*_MASKS}:
        raise ConfigError(
            f"config.weight_decay_mask = {weight_decay_mask!r}: {options['name']} has a weight "
            "decay of its own that takes no mask; use 'all'"
        )
    arguments = {
        name: "traced" if isinstance(value, float) else value
        for name, value in sorted(options.items())
        if name != "name"
    }
    return OptimizerSpec(options["name"], tuple(arguments.items()), weight_decay_mask, clips)


def make_optimizer(
    spec: OptimizerSpec, numbers: Mapping[str, Any], learning_rate: Number
) -> optax.GradientTransformationExtraArgs:
    """The gradient transformation of one update.

    Its numbers may be traced: make it anew inside every compiled step, at that step's learning
    rate. Gradients are clipped first. Weight decay goes to an optimizer that has its own (adamw:
    decoupled); to any other it is added as L2 regularization of the gradient.

    Args:
        spec: the optimizer.
        numbers: its traced arguments under "optimizer", ``weight_decay`` under "regularization",
            and ``clip_gradient_norm`` where the spec clips.
        learning_rate: this update's learning rate.
    """
    factory = optimizer_factory(spec.name)
    names = keyword_names(factory)
    weight_decay = numbers["regularization"].get("weight_decay", 0.0)
    arguments = {
        name: numbers["optimizer"][name] if value == "traced" else value
        for name, value in spec.options
    }
    parts: list[optax.GradientTransformation] = []
    if spec.clips_gradients:
        parts.append(optax.clip_by_global_norm(numbers["clip_gradient_norm"]))
    mask = _matrices if spec.weight_decay_mask == "matrices" else None
    if own := names & {*_DECAYS}:
        arguments |= dict.fromkeys(own, weight_decay)
        if mask is not None:
            arguments |= dict.fromkeys(names & {*_MASKS}, mask)
            # Of muon, which hands what is no matrix to adam.
            arguments |= dict.fromkeys(own & {"adam_weight_decay"}, 0.0)
    else:
        parts.append(optax.add_decayed_weights(weight_decay, mask))
    with user_code("config.optimizer.name", spec.name):
        optimizer = factory(learning_rate=learning_rate, **arguments)
    if not isinstance(optimizer, optax.GradientTransformation):
        raise ConfigError(
            f"config.optimizer.name = {spec.name!r} gives {type(optimizer).__name__}, not an "
            "optax.GradientTransformation"
        )
    return optax.with_extra_args_support(optax.chain(*parts, optimizer))


def _matrices(params: Any) -> Any:
    return jax.tree.map(lambda array: array.ndim >= 2, params)


def update(
    spec: OptimizerSpec,
    numbers: Mapping[str, Any],
    learning_rate: Number,
    gradients: Any,
    state: Any,
    params: Any,
    loss: Any,
) -> tuple[Any, Any]:
    """One update: the parameters and the optimizer's state after it, in the types of those before.

    Args:
        spec, numbers, learning_rate: as for :func:`make_optimizer`.
        gradients: of the batch's loss.
        state: the optimizer's state.
        params: the parameters.
        loss: the batch's, for optimizers that take it as ``value``.

    Raises:
        ConfigError: while it is traced: the optimizer raises, or needs more than that.
    """
    optimizer = make_optimizer(spec, numbers, learning_rate)
    with user_code("config.optimizer.name", spec.name):
        state = _with_current_numbers(state, optimizer, params)
        updates, after = optimizer.update(gradients, state, params, value=loss)
        # Traced numbers are float32, and would make bfloat16 states so too.
        after = jax.tree.map(_in_type_of, after, state)
        return optax.apply_updates(params, updates), after


def _in_type_of(new: Any, old: Any) -> Any:
    new = jnp.asarray(new)
    return new if new.dtype == old.dtype else new.astype(old.dtype)


def _with_current_numbers(state: Any, optimizer: optax.GradientTransformation, params: Any) -> Any:
    """A state whose injected hyperparameters, such as the learning rate, are this step's.

    ``optax.inject_hyperparams`` keeps them in the state: they would stay what they were first.
    """
    if not any(map(_is_injected, jax.tree.leaves(state, is_leaf=_is_injected))):
        return state

    def renewed(old: Any, new: Any) -> Any:
        if not _is_injected(old):
            return old
        inner = jax.tree.map(renewed, old.inner_state, new.inner_state, is_leaf=_is_injected)
        return old._replace(hyperparams=new.hyperparams, inner_state=inner)

    # All but the hyperparameters of this state is left out of the compiled step.
    return jax.tree.map(renewed, state, optimizer.init(params), is_leaf=_is_injected)


def _is_injected(node: Any) -> bool:
    return hasattr(node, "hyperparams") and hasattr(node, "inner_state")


def averaged_params(state: Any, params: Any) -> Any | None:
    """The parameters to evaluate of an optimizer that averages them; None for any other.

    That is schedule-free optimization (Defazio et al. 2024, arXiv:2405.15682), which computes
    gradients at one point and is evaluated at another.
    """
    found = [n for n in jax.tree.leaves(state, is_leaf=_is_schedule_free) if _is_schedule_free(n)]
    return optax.contrib.schedule_free_eval_params(found[0], params) if found else None


def _is_schedule_free(node: Any) -> bool:
    return isinstance(node, optax.contrib.ScheduleFreeState)
