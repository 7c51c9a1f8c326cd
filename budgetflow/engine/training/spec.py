"""What shapes a trial's program: the parts that a config names, as the compiled step calls them."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from budgetflow.base.errors import ConfigError, nearest
from budgetflow.base.import_path import check_arguments, import_object, keyword_names
from budgetflow.base.user_code import user_code
from budgetflow.engine.data.records import leaves
from budgetflow.engine.data.source import Dataset
from budgetflow.engine.metrics import Metric, as_metric
from budgetflow.engine.optimizers import OptimizerSpec, check_optimizer, optimizer_spec

if TYPE_CHECKING:
    from budgetflow.config import StudyConfig

Options = tuple[tuple[str, Any], ...]
# Shape and type of an array; of arrays by name.
Form = tuple[tuple[int, ...], str] | tuple[tuple[str, Any], ...]
# Of the keywords of a model's __call__ and a task's loss, those that are no regularization.
PROVIDED = {"inputs", "outputs", "batch", "rngs", "x", "self", "args", "kwargs"}
PROVIDED_TO_MODEL = {"input_shape", "num_outputs", "rngs"}


@dataclasses.dataclass(frozen=True)
class ProgramSpec:
    """All that shapes a program, hashable.

    Attributes:
        model, task: the config's sections.
        optimizer: what makes the optimizer.
        augmentation: the augmentation's import path, or None where all its strengths are off.
        model_regularization, task_regularization: keys of ``config.regularization`` that are on in
            this study, by who takes them.
        inputs, targets: shape and type of one example's, or these by name where it has several.
        scales_inputs: whether uint8 inputs are pixels, to be scaled to [0, 1].
        num_outputs: the size of the model's output.
        precision: "float32" or "bfloat16", the type to compute in.
        gradient_accumulation: the parts of a batch whose gradients are computed one after another.
        averages_params: whether a moving average of the parameters is kept.
        checks_fit: whether every step checks for a perfect fit of the training set.
    """

    model: Options
    task: Options
    optimizer: OptimizerSpec
    augmentation: str | None
    model_regularization: tuple[str, ...]
    task_regularization: tuple[str, ...]
    inputs: Form
    targets: Form
    scales_inputs: bool
    num_outputs: int
    precision: str
    gradient_accumulation: int
    averages_params: bool
    checks_fit: bool

    def build_model(self, key: jax.Array) -> nnx.Module:
        """A freshly initialised model."""
        name = dict(self.model)["name"]
        model_class = import_object(name, "config.model.name")
        options = _arguments(dict(self.model))
        shape = jax.tree.map(lambda a: a.shape, arrays_of(self.inputs))
        with user_code("config.model.name", name):
            model = model_class(shape, self.num_outputs, rngs=nnx.Rngs(key), **options)
        if not isinstance(model, nnx.Module):
            raise ConfigError(
                f"config.model.name = {name!r} gives {type(model).__name__}, not an nnx.Module"
            )
        for _, module in nnx.iter_modules(model):
            # Left to itself, BatchNorm computes in the type of its statistics, which is float32.
            if getattr(module, "dtype", "given") is None:
                setattr(module, "dtype", jnp.dtype(self.precision))  # noqa: B010
            # Left to itself, nnx takes a traced array that is no variable for a constant.
            for attribute, value in list(vars(module).items()):
                if isinstance(value, jax.Array):
                    setattr(module, attribute, nnx.data(value))
        return model

    def build_task(self) -> Task:
        """The task."""
        return Task(dict(self.task)["name"], make_task(dict(self.task)))

    def batch(self, size: int) -> dict[str, Any]:
        """The shapes and types of a batch of some size."""
        return {
            "inputs": arrays_of(self.inputs, (size,)),
            "targets": arrays_of(self.targets, (size,)),
        }


@dataclasses.dataclass(frozen=True)
class Task:
    """A task as the compiled step calls it: its figures are metrics, its errors are named.

    Attributes:
        name: its import path.
        task: the object itself.
    """

    name: str
    task: Any

    def loss(self, outputs: Any, batch: dict[str, Any], **smoothing: Any) -> Metric:
        """The training loss."""
        with user_code("config.task.name", self.name):
            return as_metric(self.task.loss(outputs, batch, **smoothing))

    def metrics(self, outputs: Any, batch: dict[str, Any]) -> dict[str, Metric]:
        """All that is measured, the loss among it."""
        with user_code("config.task.name", self.name):
            metrics = {"loss": self.loss(outputs, batch), **self.task.metrics(outputs, batch)}
            return {name: as_metric(value) for name, value in metrics.items()}

    def fitted(self, outputs: Any, batch: dict[str, Any]) -> jax.Array:
        """Whether each example is fitted, bool [batch]."""
        with user_code("config.task.name", self.name):
            return self.task.fitted(outputs, batch)


def make_task(section: dict[str, Any]) -> Any:
    """The object behind ``config.task``.

    Raises:
        ConfigError: there is no such class, or it does not take its arguments.
    """
    task_class = import_object(section["name"], "config.task.name")
    check_arguments(task_class, _arguments(section), "config.task", set())
    with user_code("config.task.name", section["name"]):
        return task_class(**_arguments(section))


def task_num_outputs(section: dict[str, Any], task: Any, num_classes: int | None) -> Any:
    """The size of the model's output, by the task.

    Raises:
        ConfigError: neither the task nor the data set says.
    """
    try:
        with user_code("config.task.name", section["name"]):
            return task.num_outputs(num_classes)
    except ConfigError as error:
        if isinstance(error.__cause__, ValueError):
            raise ConfigError(
                f"config.task: the number of outputs is unknown: {error.__cause__}"
            ) from error
        raise


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
    task = make_task(config.task)
    for method in ("num_outputs", "loss", "metrics"):
        if not callable(getattr(task, method, None)):
            raise ConfigError(
                f"config.task.name = {config.task['name']!r} has no method {method}; "
                "see budgetflow.tasks.Classification"
            )
    if checks_fit and not hasattr(task, "fitted"):
        raise ConfigError(
            f"a learning-rate sweep needs to know when an example is fitted, but the task "
            f"{config.task['name']} has no method fitted(outputs, batch); add one, or set "
            "config.sweep.fitted_train_loss"
        )
    check_optimizer(config.optimizer)
    num_outputs = task_num_outputs(config.task, task, dataset.num_classes)
    takers = {"model": model_class.__call__, "task": task.loss}
    taken = _regularization(config, varied, takers)
    example = dataset.train.example(0)
    return ProgramSpec(
        model=_options(config.model),
        task=_options(config.task),
        optimizer=optimizer_spec(
            config.optimizer, config.weight_decay_mask, config.clip_gradient_norm is not None
        ),
        augmentation=_augmentation(config, varied),
        model_regularization=taken["model"],
        task_regularization=taken["task"],
        inputs=_form(example["inputs"]),
        targets=_form(example["targets"]),
        scales_inputs=_scales_inputs(config, model_class, dataset, example["inputs"]),
        num_outputs=num_outputs,
        precision=config.precision,
        gradient_accumulation=config.gradient_accumulation,
        averages_params=config.ema_decay > 0,
        checks_fit=checks_fit,
    )


def traced_numbers(config: StudyConfig, spec: ProgramSpec) -> dict[str, Any]:
    """The numbers of a trial that enter its program as traced arrays, but for the learning rate.

    Those that the program does not use are left out: each costs time in every call.
    """

    def numbers(section: dict[str, Any], names: Iterable[str]) -> dict[str, np.float32]:
        return {name: np.float32(section[name]) for name in names if name in section}

    clips = {"clip_gradient_norm": np.float32(config.clip_gradient_norm or 0.0)}
    strengths = [*spec.model_regularization, *spec.task_regularization, "weight_decay"]
    augmentation = _arguments(config.augmentation) if spec.augmentation else ()
    return {
        "seed": np.uint32(config.seed),
        **({"ema_decay": np.float32(config.ema_decay)} if spec.averages_params else {}),
        **(clips if spec.optimizer.clips_gradient else {}),
        "optimizer": numbers(config.optimizer, spec.optimizer.traced),
        "regularization": numbers(config.regularization, strengths),
        "augmentation": numbers(config.augmentation, augmentation),
    }


def model_inputs(spec: ProgramSpec, batch: dict[str, Any]) -> Any:
    """A batch's inputs as the model takes them: pixels become float32 in [0, 1]."""

    def scaled(array: Any) -> jax.Array:
        array = jnp.asarray(array)
        is_pixels = spec.scales_inputs and array.dtype == jnp.uint8
        return array.astype(jnp.float32) / 255 if is_pixels else array

    return jax.tree.map(scaled, batch["inputs"])


def apply_model(spec: ProgramSpec, model: Any, inputs: Any, arguments: dict[str, Any]) -> Any:
    """A model's outputs, float32; its inputs are given in the precision to compute in."""
    with user_code("config.model.name", dict(spec.model)["name"]):
        outputs = model(as_type(inputs, spec.precision), **arguments)
    return as_type(outputs, "float32")


def augmented(
    spec: ProgramSpec, key: jax.Array, inputs: Any, strengths: dict[str, jax.Array]
) -> Any:
    """A batch's inputs after the augmentation.

    Raises:
        ConfigError: they have another form.
    """
    assert spec.augmentation is not None
    augment = import_object(spec.augmentation, "config.augmentation.name")
    with user_code("config.augmentation.name", spec.augmentation):
        result = augment(key, inputs, **strengths)

    def form(tree: Any) -> Any:
        return jax.tree.map(lambda a: (jnp.shape(a), str(jnp.result_type(a))), tree)

    if form(result) != form(inputs):
        raise ConfigError(
            f"config.augmentation.name = {spec.augmentation!r} makes inputs {form(inputs)} into "
            f"{form(result)}; shape and type should stay"
        )
    return result


def arrays_of(form: Form, leading: tuple[int, ...] = ()) -> Any:
    """The shapes and types of a form's arrays, after some leading dimensions."""
    if isinstance(form[1], str):
        shape, dtype = form
        return jax.ShapeDtypeStruct((*leading, *shape), np.dtype(dtype))
    return {name: arrays_of(inner, leading) for name, inner in form}


def _form(value: Any) -> Form:
    if isinstance(value, dict):
        return tuple((name, _form(item)) for name, item in sorted(value.items()))
    return value.shape, value.dtype.name


def _scales_inputs(config: StudyConfig, model_class: Any, dataset: Dataset, inputs: Any) -> bool:
    """Whether uint8 inputs are pixels: as the config says, or else the model, or else the data."""
    if not any(array.dtype == np.uint8 for _, array in leaves({"inputs": inputs})):
        return False
    of_model = getattr(model_class, "scale_uint8", None)
    says = (config.data.scale_uint8, of_model, dataset.scale_uint8)
    decided = next((answer for answer in says if answer is not None), None)
    if decided is None:
        raise ConfigError(
            "config.data.scale_uint8 is missing: the inputs are uint8, and neither "
            f"{config.model['name']} nor the data set says (by an attribute scale_uint8) what they "
            "mean; set True for pixels, to scale them to [0, 1], False to leave them as they are"
        )
    return bool(decided)


def as_type(tree: Any, dtype: str) -> Any:
    """A tree with its floating-point arrays in another type."""
    return jax.tree.map(
        lambda a: a.astype(dtype) if jnp.issubdtype(a.dtype, jnp.floating) else a, tree
    )


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
    takes = {owner: keyword_names(function) for owner, function in takers.items()}
    taken = {owner: on & names for owner, names in takes.items()}
    valid = {"weight_decay"}.union(*takes.values())
    # Those of the default config may be off for a model that does not take them.
    off = {"dropout_rate", "label_smoothing"} - on
    for name in {*config.regularization} - valid - off:
        raise ConfigError(
            f"config.regularization.{name} = {config.regularization[name]}: neither the __call__ "
            f"of {config.model['name']} nor the loss of {config.task['name']} takes it; "
            f"{nearest(name, valid - PROVIDED)}"
        )
    return {owner: tuple(sorted(names)) for owner, names in taken.items()}


def _augmentation(config: StudyConfig, varied: frozenset[str]) -> str | None:
    function = import_object(config.augmentation["name"], "config.augmentation.name")
    strengths = _arguments(config.augmentation)
    key_and_inputs = {*list(inspect.signature(function).parameters)[:2]}
    check_arguments(function, strengths, "config.augmentation", key_and_inputs)
    for name, value in strengths.items():
        if not isinstance(value, int | float):
            raise ConfigError(
                f"config.augmentation.{name} = {value!r}: should be a number, 0 for off"
            )
        if value or f"augmentation.{name}" in varied:
            return config.augmentation["name"]
    return None
