"""What shapes a trial's program, and the check that every name in a config fits together."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from budgetflow.config import StudyConfig
from budgetflow.data.source import Dataset
from budgetflow.errors import ConfigError, nearest
from budgetflow.import_path import check_arguments, import_object, keyword_names
from budgetflow.optimizers import check_optimizer
from budgetflow.tasks import model_inputs

Options = tuple[tuple[str, Any], ...]
PROVIDED_TO_MODEL = {"input_shape", "num_outputs", "rngs"}


@dataclasses.dataclass(frozen=True)
class ProgramSpec:
    """All that shapes a program, hashable.

    Attributes:
        model, task, optimizer: the config's sections, without the optimizer's traced numbers.
        augmentation: the augmentation's import path, or None where all its strengths are off.
        model_regularization, task_regularization: keys of ``config.regularization`` that are on in
            this study, by who takes them.
        inputs, targets: shape and type of one example's.
        num_outputs: the size of the model's output.
        precision: "float32" or "bfloat16", the type to compute in.
        gradient_accumulation: the parts of a batch whose gradients are computed one after another.
        averages_params: whether a moving average of the parameters is kept.
        checks_fit: whether every step checks for a perfect fit of the training set.
    """

    model: Options
    task: Options
    optimizer: Options
    augmentation: str | None
    model_regularization: tuple[str, ...]
    task_regularization: tuple[str, ...]
    inputs: tuple[tuple[int, ...], str]
    targets: tuple[tuple[int, ...], str]
    num_outputs: int
    precision: str
    gradient_accumulation: int
    averages_params: bool
    checks_fit: bool

    def build_model(self, key: jax.Array) -> nnx.Module:
        """A freshly initialised model."""
        model_class = import_object(dict(self.model)["name"], "config.model.name")
        options = _arguments(dict(self.model))
        model = model_class(self.inputs[0], self.num_outputs, rngs=nnx.Rngs(key), **options)
        for _, module in nnx.iter_modules(model):
            # Left to itself, BatchNorm computes in the type of its statistics, which is float32.
            if getattr(module, "dtype", "given") is None:
                setattr(module, "dtype", jnp.dtype(self.precision))  # noqa: B010
        return model

    def build_task(self) -> Any:
        """The task."""
        task_class = import_object(dict(self.task)["name"], "config.task.name")
        return task_class(**_arguments(dict(self.task)))


def program_spec(
    config: StudyConfig, dataset: Dataset, varied: frozenset[str], checks_fit: bool
) -> ProgramSpec:
    """The spec of a trial's program, with every name in the config checked.

    Args:
        config: the trial's config, its hyperparameters filled in.
        dataset: for shapes and the number of classes.
        varied: the fields that the study's search space varies; a strength that is neither varied
            nor above 0 is left out of the program.
        checks_fit: whether to check for a perfect fit at every step.

    Raises:
        ConfigError: a name or argument does not fit.
    """
    model_class = import_object(config.model["name"], "config.model.name")
    check_arguments(model_class, _arguments(config.model), "config.model", PROVIDED_TO_MODEL)
    task_class = import_object(config.task["name"], "config.task.name")
    check_arguments(task_class, _arguments(config.task), "config.task", set())
    task = task_class(**_arguments(config.task))
    check_optimizer(config.optimizer)
    if checks_fit and not hasattr(task, "fitted"):
        raise ConfigError(
            f"a learning-rate sweep needs to know when an example is fitted, but the task "
            f"{config.task['name']} has no method fitted(outputs, batch); add one, or set "
            "config.sweep.fitted_train_loss"
        )
    try:
        num_outputs = task.num_outputs(dataset.num_classes)
    except ValueError as error:
        raise ConfigError(f"config.task: the number of outputs is unknown: {error}") from error
    takers = {"model": model_class.__call__, "task": task.loss}
    taken = _regularization(config, varied, takers)
    example = dataset.train.example(0)
    spec = ProgramSpec(
        model=_options(config.model),
        task=_options(config.task),
        # Numbers are traced; their names stay, since they are arguments of the optimizer.
        optimizer=_options(
            {k: "traced" if isinstance(v, float) else v for k, v in config.optimizer.items()}
        ),
        augmentation=_augmentation(config, varied),
        model_regularization=taken["model"],
        task_regularization=taken["task"],
        inputs=(example["inputs"].shape, str(example["inputs"].dtype)),
        targets=(example["targets"].shape, str(example["targets"].dtype)),
        num_outputs=num_outputs,
        precision=config.precision,
        gradient_accumulation=config.gradient_accumulation,
        averages_params=config.ema_decay > 0,
        checks_fit=checks_fit,
    )
    try:
        metrics = metric_names(spec)
    except TypeError as error:
        if "unhashable" not in str(error):
            raise
        raise ConfigError("config.model, task and optimizer take numbers, strings and tuples, "
                          "not dicts") from error  # fmt: skip
    if spec.gradient_accumulation > 1 and _has_batch_statistics(spec):
        raise ConfigError(
            f"config.gradient_accumulation = {spec.gradient_accumulation}, but "
            f"{config.model['name']} has batch statistics, which would be those of a part of the "
            "batch; use 1"
        )
    if (metric := config.evaluation.selection_metric) not in metrics:
        raise ConfigError(f"config.evaluation.selection_metric = {metric!r} is no metric of "
                          f"{config.task['name']}; {nearest(metric, metrics)}")  # fmt: skip
    return spec


def traced_numbers(config: StudyConfig, spec: ProgramSpec) -> dict[str, Any]:
    """The numbers of a trial that enter its program as traced arrays, but for the learning rate.

    Those that the program does not use are left out: each costs time in every call.
    """

    def numbers(section: dict[str, Any], names: Iterable[str]) -> dict[str, np.float32]:
        return {name: np.float32(section[name]) for name in names if name in section}

    optimizer = [name for name, value in spec.optimizer if value == "traced"]
    strengths = [*spec.model_regularization, *spec.task_regularization, "weight_decay"]
    augmentation = _arguments(config.augmentation) if spec.augmentation else ()
    return {
        "seed": np.uint32(config.seed),
        **({"ema_decay": np.float32(config.ema_decay)} if spec.averages_params else {}),
        "optimizer": numbers(config.optimizer, optimizer),
        "regularization": numbers(config.regularization, strengths),
        "augmentation": numbers(config.augmentation, augmentation),
    }


def apply_model(
    spec: ProgramSpec, model: Any, inputs: jax.Array, arguments: dict[str, Any]
) -> jax.Array:
    """A model's outputs, float32; its inputs are given in the precision to compute in."""
    return as_type(model(as_type(inputs, spec.precision), **arguments), "float32")


def as_type(tree: Any, dtype: str) -> Any:
    """A tree with its floating-point arrays in another type."""
    return jax.tree.map(
        lambda a: a.astype(dtype) if jnp.issubdtype(a.dtype, jnp.floating) else a, tree
    )


@functools.lru_cache(maxsize=32)
def has_convolutions(spec: ProgramSpec) -> bool:
    """Whether the model convolves, found by tracing it; nothing is compiled."""
    shape, dtype = spec.inputs
    inputs = jax.ShapeDtypeStruct((1, *shape), np.dtype(dtype))
    jaxpr = jax.make_jaxpr(functools.partial(_fresh_outputs, spec))({"inputs": inputs})
    return "conv_general_dilated" in str(jaxpr)


def _fresh_outputs(spec: ProgramSpec, batch: dict[str, Any]) -> jax.Array:
    """What a freshly initialised model gives for a batch."""
    graph, params, others = nnx.split(spec.build_model(jax.random.key(0)), nnx.Param, ...)  # type: ignore[misc]
    model: Any = nnx.merge(graph, as_type(params, spec.precision), others)
    model.eval()
    return apply_model(spec, model, model_inputs(batch), {})


def _has_batch_statistics(spec: ProgramSpec) -> bool:
    model = nnx.eval_shape(lambda: spec.build_model(jax.random.key(0)))
    return bool(jax.tree.leaves(nnx.state(model, nnx.BatchStat)))


@functools.lru_cache(maxsize=32)
def metric_names(spec: ProgramSpec) -> tuple[str, ...]:
    """The names of the task's metrics, found by tracing one batch; nothing is compiled.

    Raises:
        ConfigError: the model or the task cannot be traced, or the output has a wrong shape.
    """
    task = spec.build_task()
    name = dict(spec.model)["name"]

    def apply(batch: dict[str, Any]) -> tuple[jax.Array, dict[str, jax.Array]]:
        outputs = _fresh_outputs(spec, batch)
        return outputs, {"loss": task.loss(outputs, batch), **task.metrics(outputs, batch)}

    batch = {
        key: jax.ShapeDtypeStruct((2, *shape), np.dtype(dtype))
        for key, (shape, dtype) in (("inputs", spec.inputs), ("targets", spec.targets))
    }
    try:
        outputs, metrics = jax.eval_shape(apply, batch)
    except Exception as error:  # whatever a model does with arguments that do not suit it
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"config.model: {name} does not work on inputs {spec.inputs[0]}: {first_line}"
        ) from error
    if outputs.shape[0] != 2 or outputs.shape[-1] != spec.num_outputs:
        raise ConfigError(
            f"config.model: {name} gives outputs {outputs.shape} for a batch of 2; expected "
            f"(2, …, {spec.num_outputs})"
        )
    return tuple(metrics)


def _arguments(section: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in section.items() if key != "name"}


def _options(section: dict[str, Any]) -> Options:
    return tuple(sorted(section.items()))


def _regularization(
    config: StudyConfig, varied: frozenset[str], takers: dict[str, Any]
) -> dict[str, tuple[str, ...]]:
    """The keys of ``config.regularization`` that are on, by who takes them."""
    on = {
        name
        for name, strength in config.regularization.items()
        if strength > 0 or f"regularization.{name}" in varied
    }
    taken = {owner: on & keyword_names(function) for owner, function in takers.items()}
    for name in on - set().union(*taken.values()) - {"weight_decay"}:
        raise ConfigError(
            f"config.regularization.{name} is on, but neither the __call__ of "
            f"{config.model['name']} nor the loss of {config.task['name']} takes it"
        )
    return {owner: tuple(sorted(names)) for owner, names in taken.items()}


def _augmentation(config: StudyConfig, varied: frozenset[str]) -> str | None:
    function = import_object(config.augmentation["name"], "config.augmentation.name")
    strengths = _arguments(config.augmentation)
    check_arguments(
        function,
        strengths,
        "config.augmentation",
        set(list(inspect.signature(function).parameters)[:2]),
    )
    for name, value in strengths.items():
        if not isinstance(value, int | float):
            raise ConfigError(
                f"config.augmentation.{name} = {value!r}: should be a number, 0 for off"
            )
        if value or f"augmentation.{name}" in varied:
            return config.augmentation["name"]
    return None
