"""What tracing shows of a model and a task before anything is compiled: do they fit together?"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

import jax
from flax import nnx

from budgetflow.base.errors import ConfigError, nearest
from budgetflow.engine.metrics import Metric
from budgetflow.engine.training.optimizer_check import check_update
from budgetflow.engine.training.spec import ProgramSpec, apply_model, as_type, model_inputs

if TYPE_CHECKING:
    from budgetflow.config import StudyConfig

# Sizes of a traced batch, one of which is no other dimension of its arrays.
_BATCH_SIZES = (1009, 1013, 1019, 1021)


def check_parts(spec: ProgramSpec, config: StudyConfig, varied: Collection[str]) -> None:
    """Checks by tracing that model, task, data and optimizer fit together; nothing is compiled.

    Args:
        spec: the program's.
        config: the trial's config.
        varied: the fields that the study's search space varies.

    Raises:
        ConfigError: one of them cannot be traced, or gives what has a wrong shape.
    """
    try:
        metrics = task_metrics(spec)
    except TypeError as error:
        if "unhashable" not in str(error):
            raise
        raise ConfigError(
            "config.model, task and optimizer take numbers, strings and tuples, not dicts"
        ) from error
    if spec.gradient_accumulation > 1 and _has_batch_statistics(spec):
        raise ConfigError(
            f"config.gradient_accumulation = {spec.gradient_accumulation}, but "
            f"{config.model['name']} has batch statistics, which would be those of a part of the "
            "batch; use 1"
        )
    if (metric := config.evaluation.selection_metric) not in metrics:
        raise ConfigError(
            f"config.evaluation.selection_metric = {metric!r} is no metric of "
            f"{config.task['name']}; {nearest(metric, metrics)}"
        )
    weight_decay = config.regularization.get("weight_decay", 0.0)
    _check_update(spec, weight_decay > 0 or "regularization.weight_decay" in varied)


@functools.lru_cache(maxsize=32)  # Traced once for all trials; holds nothing.
def _check_update(spec: ProgramSpec, decays_weights: bool) -> None:
    model = nnx.eval_shape(lambda: spec.build_model(jax.random.key(0)))
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    check_update(spec.optimizer, params, decays_weights, spec.averages_params)


@functools.lru_cache(maxsize=32)  # Traced once for all trials; shapes alone.
def task_metrics(spec: ProgramSpec) -> dict[str, Metric]:
    """The task's metrics, with shapes in the place of arrays.

    Raises:
        ConfigError: model or task cannot be traced, or what they give has a wrong shape.
    """
    name, task = dict(spec.task)["name"], spec.build_task()
    size = next(n for n in _BATCH_SIZES if str(n) not in f"{spec.inputs} {spec.targets}")
    batch = spec.batch(size)

    def measure(outputs: Any, batch: dict[str, Any]) -> Any:
        fitted = task.fitted(outputs, batch) if spec.checks_fit else None
        return task.loss(outputs, batch), task.metrics(outputs, batch), fitted

    try:
        outputs = jax.eval_shape(functools.partial(_fresh_outputs, spec), batch)
        _check_outputs(spec, outputs, size)
        jaxpr, (loss, metrics, fitted) = jax.make_jaxpr(measure, return_shape=True)(outputs, batch)
    except ConfigError as error:
        raise ConfigError(str(error).replace(str(size), "batch")) from error.__cause__
    for figure, metric in {"loss": loss, **metrics}.items():
        for part in (metric.total, metric.weight):
            if part.shape != (size,):
                raise ConfigError(
                    f"config.task.name = {name!r} gives {figure} of shape {_shape(part, size)}; it "
                    f"should be (batch,), a number for each example: {_given(outputs, batch, size)}"
                )
    if fitted is not None and (fitted.shape, fitted.dtype) != ((size,), bool):
        raise ConfigError(
            f"config.task.name = {name!r}: fitted gives {fitted.dtype} of shape "
            f"{_shape(fitted, size)}; it should be bool, (batch,)"
        )
    if not getattr(task.task, "compares_examples", False) and (
        crossed := next(_crossing(jaxpr.jaxpr, size), None)
    ):
        raise ConfigError(
            f"config.task.name = {name!r} makes an array of shape {_shape(crossed, size)}, every "
            "example with every other: a shape that broadcast? "
            f"{_given(outputs, batch, size)}. A task that means it sets compares_examples = True"
        )
    return metrics


def _check_outputs(spec: ProgramSpec, outputs: Any, size: int) -> None:
    name = dict(spec.model)["name"]
    arrays = jax.tree.leaves(outputs)
    is_one = isinstance(outputs, jax.ShapeDtypeStruct)
    fits = all(array.shape[:1] == (size,) for array in arrays) and arrays
    if not fits or (is_one and outputs.shape[-1] != spec.num_outputs):
        expected = f"(batch, …, {spec.num_outputs})" if is_one else "arrays of shape (batch, …)"
        given = jax.tree.map(lambda array: _shape(array, size), outputs)
        raise ConfigError(
            f"config.model.name = {name!r} gives outputs {given} for inputs "
            f"{_shapes(spec.batch(size)['inputs'], size)}; expected {expected}"
        )


def _crossing(jaxpr: Any, size: int) -> Iterator[Any]:
    """Arrays in which a dimension of the batch's size occurs twice, in nested functions too."""
    for equation in equations(jaxpr):
        for variable in equation.outvars:
            if getattr(variable.aval, "shape", ()).count(size) > 1:
                yield variable.aval


def equations(jaxpr: Any) -> Iterator[Any]:
    """The equations of a traced function, each before those of the functions nested in it."""
    for equation in jaxpr.eqns:
        yield equation
        yield from nested_equations(equation)


def nested_equations(equation: Any) -> Iterator[Any]:
    """The equations of the functions that one equation calls, such as the body of a loop."""
    for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_jaxpr):
        if _is_jaxpr(inner):
            yield from equations(getattr(inner, "jaxpr", inner))


def _is_jaxpr(value: Any) -> bool:
    return hasattr(getattr(value, "jaxpr", value), "eqns")


def _given(outputs: Any, batch: dict[str, Any], size: int) -> str:
    return f"outputs are {_shapes(outputs, size)}, targets {_shapes(batch['targets'], size)}"


def _shapes(tree: Any, size: int) -> Any:
    return jax.tree.map(lambda array: _shape(array, size), tree)


def _shape(array: Any, size: int) -> str:
    """A shape with the batch's size as a word."""
    return f"({', '.join('batch' if n == size else str(n) for n in array.shape)})"


@functools.lru_cache(maxsize=32)  # Traced once for all trials.
def has_convolutions(spec: ProgramSpec) -> bool:
    """Whether the model convolves, found by tracing it; nothing is compiled."""
    jaxpr = jax.make_jaxpr(functools.partial(_fresh_outputs, spec))(spec.batch(1))
    return "conv_general_dilated" in str(jaxpr)


def _fresh_outputs(spec: ProgramSpec, batch: dict[str, Any]) -> jax.Array:
    """What a freshly initialised model gives for a batch."""
    graph, params, others = nnx.split(spec.build_model(jax.random.key(0)), nnx.Param, ...)  # type: ignore[misc]
    model: Any = nnx.merge(graph, as_type(params, spec.precision), others)
    model.eval()
    return apply_model(spec, model, model_inputs(spec, batch), {})


def _has_batch_statistics(spec: ProgramSpec) -> bool:
    model = nnx.eval_shape(lambda: spec.build_model(jax.random.key(0)))
    return bool(jax.tree.leaves(nnx.state(model, nnx.BatchStat)))
