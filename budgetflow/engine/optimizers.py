"""Optimizers from optax, built inside the compiled step so that their numbers can be traced.

An optimizer is made anew for every update, from that update's learning rate. Whatever else it needs
to know lies in its state, so nothing of an earlier learning rate may stay there;
:mod:`budgetflow.engine.training.optimizer_check` holds every optimizer to that before it runs.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib

from budgetflow.base.errors import ConfigError, nearest
from budgetflow.base.import_path import (
    check_arguments,
    import_object,
    is_import_path,
    keyword_names,
)

# Stands for a traced number among an optimizer's options; no value of a config is a type.
TRACED = float
# The arguments by which optimizers take the weight decay, and which parameters to apply it to.
# muon's second one is for the parameters that it does not take for matrices.
DECAY_ARGUMENTS = ("weight_decay", "weight_decay_rate", "adam_weight_decay")
MASK_ARGUMENTS = ("mask", "weight_decay_mask")


@dataclasses.dataclass(frozen=True)
class OptimizerSpec:
    """All that shapes an optimizer, hashable: ``config.optimizer`` without its traced numbers.

    Attributes:
        options: the name and the arguments, sorted; ``TRACED`` stands for a number that is traced.
        weight_decay_mask: ``config.weight_decay_mask``.
        clips_gradient: whether ``config.clip_gradient_norm`` is set.
    """

    options: tuple[tuple[str, Any], ...]
    weight_decay_mask: str = "all"
    clips_gradient: bool = False

    @property
    def name(self) -> str:
        """``config.optimizer.name``."""
        return dict(self.options)["name"]

    @property
    def traced(self) -> tuple[str, ...]:
        """The options that are traced numbers."""
        return tuple(name for name, value in self.options if value is TRACED)


def optimizer_spec(
    options: Mapping[str, Any], weight_decay_mask: str = "all", clips_gradient: bool = False
) -> OptimizerSpec:
    """The spec of ``config.optimizer``: floats are traced, and all else shapes the program."""
    marked = {k: TRACED if isinstance(v, float) else v for k, v in options.items()}
    return OptimizerSpec(tuple(sorted(marked.items())), weight_decay_mask, clips_gradient)


def optimizer_factory(name: str) -> Callable[..., optax.GradientTransformation]:
    """The function that makes an optimizer.

    Args:
        name: an optax optimizer ("sgd", "adamw", "contrib.prodigy"), or the import path of a
            function that takes ``learning_rate`` and returns a gradient transformation.

    Raises:
        ConfigError: there is no such optimizer.
    """
    field = f"config.optimizer.name = {name!r}"
    module, _, attribute = name.rpartition(".")
    if module in ("", "contrib"):
        factory = getattr(optax.contrib if module else optax, attribute, None)
        if factory is None:
            names = _names_in_optax()
            elsewhere = next((n for n in names if n.rpartition(".")[2] == attribute), None)
            hint = f"did you mean {elsewhere!r}?" if elsewhere else nearest(name, names)
            raise ConfigError(f"{field} is not in optax; {hint}")
    elif is_import_path(name):
        factory = import_object(name, "config.optimizer.name")
    else:
        raise ConfigError(
            f"{field} is neither in optax nor an import path; {nearest(name, _names_in_optax())}"
        )
    if not callable(factory) or isinstance(factory, optax.GradientTransformation):
        raise ConfigError(
            f"{field} is a {type(factory).__name__}; should be a function that takes "
            "learning_rate and returns an optax.GradientTransformation"
        )
    if not {"learning_rate", "**"} & _names(factory):
        raise ConfigError(
            f"{field} has no argument learning_rate; name a function of your own that takes "
            "learning_rate and hands it to the argument that is meant"
        )
    return factory


@functools.cache  # The same as long as optax is.
def _names_in_optax() -> tuple[str, ...]:
    """What ``config.optimizer.name`` can be without an import path."""
    public = [
        (prefix + name, value)
        for prefix, module in (("", optax), ("contrib.", optax.contrib))
        for name, value in vars(module).items()
        if not (name.startswith("_") or isinstance(value, type))
    ]
    return tuple(name for name, value in public if "learning_rate" in _names(value))


def _names(candidate: Any) -> set[str]:
    """The arguments that something takes by keyword, with "**" for any; none of no function."""
    try:
        parameters = inspect.signature(candidate).parameters.values()
        takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
        return keyword_names(candidate) | ({"**"} if takes_any else set())
    except (TypeError, ValueError):
        return set()


def check_optimizer(options: Mapping[str, Any]) -> None:
    """Checks ``config.optimizer``: its name, and that its other keys are the optimizer's.

    Raises:
        ConfigError: a key does not fit.
    """
    factory = optimizer_factory(options["name"])
    given = set(options) - {"name"}
    for name in sorted(given & {*DECAY_ARGUMENTS}):
        raise ConfigError(
            f"config.optimizer.{name}: weight decay is regularization; set "
            "config.regularization.weight_decay"
        )
    for name in sorted(given & {*MASK_ARGUMENTS}):
        raise ConfigError(
            f"config.optimizer.{name}: set config.weight_decay_mask, which has the rules that "
            "there are"
        )
    provided = {"learning_rate", *DECAY_ARGUMENTS, *MASK_ARGUMENTS}
    check_arguments(factory, given, "config.optimizer", provided)


def example_numbers(spec: OptimizerSpec) -> dict[str, Any]:
    """Numbers of the kind that :func:`make_optimizer` takes, for tracing."""
    zero = np.float32(0)
    return {
        "optimizer": dict.fromkeys(spec.traced, zero),
        "regularization": {"weight_decay": zero},
        **({"clip_gradient_norm": zero} if spec.clips_gradient else {}),
    }


def make_optimizer(
    spec: OptimizerSpec, numbers: Mapping[str, Any], learning_rate: jax.Array | float
) -> optax.GradientTransformationExtraArgs:
    """The gradient transformation of one update.

    Its numbers may be traced: make it anew inside every compiled step, at that step's learning
    rate. States go from one step's to the next one's, and keep their types. Hyperparameters that
    ``optax.inject_hyperparams`` keeps in them are replaced by this step's.

    The gradient is clipped, if it is, before all else. Then comes the weight decay: an optimizer
    that has its own is handed it (adamw: decoupled); before any other, it is added as L2
    regularization of the gradient.

    Args:
        spec: of a config that :func:`check_optimizer` accepted.
        numbers: the trial's traced numbers, of which it takes "optimizer", the weight decay and
            "clip_gradient_norm".
        learning_rate: this update's learning rate.

    Raises:
        ConfigError: the function that should make the optimizer returns something else.
    """
    optimizer = optax.chain(*_parts(spec, numbers, learning_rate))

    def init(params: optax.Params) -> optax.OptState:
        # A copy, since an optimizer may keep the parameters in its state, and both are donated to
        # the train step.
        return jax.tree.map(lambda a: jnp.array(a, jnp.asarray(a).dtype), optimizer.init(params))

    def update(
        gradients: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        **extra: Any,
    ) -> tuple[optax.Updates, optax.OptState]:
        if _nodes(state, _holds_hyperparameters):
            # XLA drops the rest of the fresh state.
            state = _with_hyperparameters(state, optimizer.init(params))
        updates, after = optimizer.update(gradients, state, params, **extra)
        return updates, jax.tree.map(_as_type_of, after, state)

    return optax.GradientTransformationExtraArgs(init, update)


def _parts(
    spec: OptimizerSpec, numbers: Mapping[str, Any], learning_rate: jax.Array | float
) -> list[optax.GradientTransformation]:
    """What one update is a chain of."""
    factory = optimizer_factory(spec.name)
    names = keyword_names(factory)
    arguments = {k: v for k, v in spec.options if k != "name" and v is not TRACED}
    arguments |= {name: numbers["optimizer"][name] for name in spec.traced}
    weight_decay = numbers["regularization"].get("weight_decay", 0.0)
    mask = None if spec.weight_decay_mask == "all" else matrices
    parts = []
    if spec.clips_gradient:
        parts.append(_clip_by_norm(numbers["clip_gradient_norm"]))
    if own := names & {*DECAY_ARGUMENTS}:
        arguments |= dict.fromkeys(own, weight_decay)
        if mask is not None:
            arguments |= dict.fromkeys(names & {*MASK_ARGUMENTS}, mask)
            if "adam_weight_decay" in own:  # has no mask, and is for what is no matrix
                arguments["adam_weight_decay"] = 0.0
    else:
        parts.append(optax.add_decayed_weights(weight_decay, mask))
    made = factory(learning_rate=learning_rate, **arguments)
    if not (callable(getattr(made, "init", None)) and callable(getattr(made, "update", None))):
        returned = "None" if made is None else f"a {type(made).__name__}"
        raise ConfigError(
            f"config.optimizer.name = {spec.name!r} returns {returned}; should be an "
            "optax.GradientTransformation"
        )
    return [*parts, optax.with_extra_args_support(made)]


def _clip_by_norm(max_norm: jax.Array | float) -> optax.GradientTransformation:
    """``optax.clip_by_global_norm``, which takes no traced number for gradients in bfloat16."""

    def clipped(gradients: optax.Updates, params: optax.Params | None) -> optax.Updates:
        squares = [jnp.sum(g.astype(jnp.float32) ** 2) for g in jax.tree.leaves(gradients)]
        scale = jnp.minimum(1.0, max_norm / jnp.sqrt(sum(squares)))
        return jax.tree.map(lambda g: (scale * g).astype(g.dtype), gradients)

    return optax.stateless(clipped)


def matrices(params: optax.Params) -> Any:
    """Of every array whether ``config.weight_decay_mask = "matrices"`` lets it decay.

    Those of two or more dimensions do, but for biases, which attention shapes [heads, features].
    """

    def is_matrix(path: tuple[Any, ...], array: Any) -> bool:
        return jnp.ndim(array) >= 2 and jax.tree_util.keystr(path[-1:], simple=True) != "bias"

    return jax.tree_util.tree_map_with_path(is_matrix, params)


def schedule_free_params(state: optax.OptState, params: optax.Params) -> optax.Params:
    """The parameters to evaluate, where a schedule-free optimizer says so; else an empty dict."""
    for node in schedule_free_states(state):
        return optax.contrib.schedule_free_eval_params(node, params)
    return {}


def schedule_free_states(state: optax.OptState) -> list[Any]:
    """The states of ``optax.contrib.schedule_free`` within an optimizer's."""
    return _nodes(state, lambda node: isinstance(node, optax.contrib.ScheduleFreeState))


def _nodes(tree: Any, is_node: Callable[[Any], bool]) -> list[Any]:
    return [node for node in jax.tree.leaves(tree, is_leaf=is_node) if is_node(node)]


def _holds_hyperparameters(node: Any) -> bool:
    return "hyperparams" in getattr(node, "_fields", ())


def _with_hyperparameters(state: Any, fresh: Any) -> Any:
    """A state with the hyperparameters of another one, in whatever they are wrapped."""

    def replaced(old: Any, new: Any) -> Any:
        if not _holds_hyperparameters(old):
            return old
        inner = {
            name: _with_hyperparameters(getattr(old, name), getattr(new, name))
            for name in old._fields
            if name != "hyperparams"
        }
        return old._replace(hyperparams=new.hyperparams, **inner)

    return jax.tree.map(replaced, state, fresh, is_leaf=_holds_hyperparameters)


def _as_type_of(new: Any, old: Any) -> jax.Array:
    """An array in another one's type: float32 numbers promote a state in bfloat16."""
    old, new = jnp.asarray(old), jnp.asarray(new)
    return new if new.dtype == old.dtype and not new.weak_type else new.astype(old.dtype)
