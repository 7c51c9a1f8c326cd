"""The compiled functions of a trial: pure, and shared by all trials that differ only in numbers.

Whatever is a number (learning rate, momentum, weight decay, dropout rate, seed…) enters as a traced
array, so that a study compiles once; whatever shapes the program (model, optimizer, batch size)
makes a :class:`ProgramSpec`, and specs that are equal share a :class:`Program`.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from budgetflow.config import StudyConfig
from budgetflow.data.source import Dataset
from budgetflow.errors import ConfigError, nearest
from budgetflow.import_path import check_arguments, import_object, keyword_names
from budgetflow.optimizers import check_optimizer, make_optimizer
from budgetflow.tasks import model_inputs

Arrays = dict[str, Any]
Options = tuple[tuple[str, Any], ...]
PROVIDED_TO_MODEL = {"input_shape", "num_outputs", "rngs"}
# Training examples that the fit check looks at between two chances to stop.
FIT_CHECK_EXAMPLES = 256


class TrainState(NamedTuple):
    """A trial's state at a step; all that a checkpoint holds.

    Attributes:
        step: updates made so far, int32 scalar.
        params: the model's parameters, nested dicts of arrays.
        model_state: its other variables, such as batch statistics.
        opt_state: the optimizer's state.
    """

    step: jax.Array
    params: Arrays
    model_state: Arrays
    opt_state: Any


class Progress(NamedTuple):
    """What the compiled step notices on its way, fetched when the trial is evaluated.

    Attributes:
        diverged_at_step: the first step whose update saw a loss that is not finite; -1 if none.
        fitted_at_step: the first step whose state fits the whole training set; -1 if none.
        refuting_block: where the fit check found a mistake last, and so looks first.
    """

    diverged_at_step: Any
    fitted_at_step: Any
    refuting_block: Any


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
    checks_fit: bool


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """The compiled functions of one spec.

    Attributes:
        init: seed -> TrainState at step 0.
        train_step: (state, progress, data, batch, learning_rate, numbers) -> (state, progress).
            ``data`` is the training set on the device and ``batch`` the indices into it, or
            ``data`` is None and ``batch`` the examples themselves. State and progress are donated.
        eval_step: (totals, params, model_state, batch, weights) -> totals: weighted sums of the
            task's metrics, and of the weights under "examples".
        is_fitted: (params, model_state, batch) -> whether every example of the batch is fitted.
    """

    init: Any
    train_step: Any
    eval_step: Any
    is_fitted: Any


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
    try:
        num_outputs = task.num_outputs(dataset.num_classes)
    except ValueError as error:
        raise ConfigError(f"config.task: the number of outputs is unknown: {error}") from error

    on = {
        name
        for name, strength in config.regularization.items()
        if strength > 0 or f"regularization.{name}" in varied
    }
    takes = {"model": keyword_names(model_class.__call__), "task": keyword_names(task.loss)}
    for name in on - takes["model"] - takes["task"] - {"weight_decay"}:
        raise ConfigError(
            f"config.regularization.{name} is on, but neither {config.model['name']}'s __call__ "
            "nor "
            f"{config.task['name']}'s loss takes it"
        )
    example = dataset.train.example(0)
    spec = ProgramSpec(
        model=_options(config.model),
        task=_options(config.task),
        # Numbers are traced; their names stay, since they are arguments of the optimizer.
        optimizer=_options(
            {k: "traced" if isinstance(v, float) else v for k, v in config.optimizer.items()}
        ),
        augmentation=_augmentation(config, varied),
        model_regularization=tuple(sorted(on & takes["model"])),
        task_regularization=tuple(sorted(on & takes["task"])),
        inputs=(example["inputs"].shape, str(example["inputs"].dtype)),
        targets=(example["targets"].shape, str(example["targets"].dtype)),
        num_outputs=num_outputs,
        checks_fit=checks_fit,
    )
    try:
        metrics = metric_names(spec)
    except TypeError as error:
        if "unhashable" not in str(error):
            raise
        raise ConfigError("config.model, task and optimizer take numbers, strings and tuples, "
                          "not dicts") from error  # fmt: skip
    if (metric := config.evaluation.selection_metric) not in metrics:
        raise ConfigError(f"config.evaluation.selection_metric = {metric!r} is no metric of "
                          f"{config.task['name']}; {nearest(metric, metrics)}")  # fmt: skip
    return spec


def traced_numbers(config: StudyConfig) -> dict[str, Any]:
    """The numbers of a trial that enter its program as traced arrays, but for the learning rate."""

    def numbers(section: dict[str, Any]) -> dict[str, np.float32]:
        return {k: np.float32(v) for k, v in section.items() if isinstance(v, int | float)}

    return {
        "seed": np.uint32(config.seed),
        "optimizer": {
            k: np.float32(v) for k, v in config.optimizer.items() if isinstance(v, float)
        },
        "regularization": numbers(config.regularization),
        "augmentation": numbers(config.augmentation),
    }


@functools.lru_cache(maxsize=32)
def make_program(spec: ProgramSpec) -> Program:
    """The compiled functions for a spec; equal specs get the same ones."""
    task = import_object(dict(spec.task)["name"], "config.task.name")(**_arguments(dict(spec.task)))

    def merge(params: Arrays, model_state: Arrays, train: bool) -> nnx.Module:
        graph = _graph_definitions(spec)[0 if train else 1]
        return nnx.merge(graph, params, model_state, copy=True)

    def init(seed: jax.Array) -> TrainState:
        params, model_state = _split(_build_model(spec, jax.random.key(seed)))[1:]
        opt_state = _optimizer(spec, {}, 0.0, 0.0).init(params)
        return TrainState(jnp.int32(0), params, model_state, opt_state)

    def predict(params: Arrays, model_state: Arrays, batch: Arrays) -> jax.Array:
        model: Any = merge(params, model_state, train=False)
        return model(model_inputs(batch))

    def train_step(
        state: TrainState,
        progress: Progress,
        data: Arrays | None,
        batch: Any,
        learning_rate: jax.Array,
        numbers: dict[str, Any],
    ) -> tuple[TrainState, Progress]:
        if data is not None:
            batch = jax.tree.map(lambda array: jnp.take(array, batch, axis=0), data)
        key = jax.random.fold_in(jax.random.key(numbers["seed"]), state.step)
        augment_key, model_key = jax.random.split(key)
        inputs = _augment(spec, augment_key, model_inputs(batch), numbers["augmentation"])
        strengths = numbers["regularization"]

        def loss(params: Arrays) -> tuple[jax.Array, Arrays]:
            model: Any = merge(params, state.model_state, train=True)
            arguments = {name: strengths[name] for name in spec.model_regularization}
            if "rngs" in keyword_names(type(model).__call__):
                arguments["rngs"] = nnx.Rngs(model_key)
            outputs = model(inputs, **arguments)
            smoothing = {name: strengths[name] for name in spec.task_regularization}
            return task.loss(outputs, batch, **smoothing).mean(), _split(model)[2]

        (value, model_state), gradients = jax.value_and_grad(loss, has_aux=True)(state.params)
        optimizer = _optimizer(
            spec, numbers["optimizer"], learning_rate, strengths.get("weight_decay", 0.0)
        )
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        after = TrainState(state.step + 1, params, model_state, opt_state)
        first_time = (progress.diverged_at_step < 0) & ~jnp.isfinite(value)
        progress = progress._replace(
            diverged_at_step=jnp.where(first_time, after.step, progress.diverged_at_step)
        )
        if spec.checks_fit and data is not None:
            progress = check_fit(after, progress, data)
        return after, progress

    def check_fit(state: TrainState, progress: Progress, data: Arrays) -> Progress:
        """Notes the step if the state fits every training example.

        Looks at blocks of the training set one by one, first at the one that refuted the fit last,
        and stops at the first mistake: far from a fit that is one block's cost. The first block is
        looked at outside the loop, since XLA runs convolutions inside loops slowly on the CPU.
        """
        examples = len(data["targets"])
        size = min(FIT_CHECK_EXAMPLES, examples)
        blocks = -(-examples // size)

        def fits(block: jax.Array) -> jax.Array:
            # The last slice is clamped to the end: it overlaps the one before, which is harmless.
            part = jax.tree.map(
                lambda array: jax.lax.dynamic_slice_in_dim(array, block * size, size), data
            )
            return task.fitted(predict(state.params, state.model_state, part), part).all()

        def look_at_others() -> jax.Array:
            def looking_at(offset: jax.Array) -> jax.Array:
                block = (progress.refuting_block + offset) % blocks
                return (offset < blocks) & fits(block)

            return jax.lax.while_loop(looking_at, lambda offset: offset + 1, jnp.int32(1))

        clean = jax.lax.cond(
            (progress.fitted_at_step < 0) & fits(progress.refuting_block),
            look_at_others,
            lambda: jnp.int32(0),
        )
        first_time = clean >= blocks
        return progress._replace(
            fitted_at_step=jnp.where(first_time, state.step, progress.fitted_at_step),
            refuting_block=(progress.refuting_block + clean) % blocks,
        )

    def eval_step(
        totals: Arrays, params: Arrays, model_state: Arrays, batch: Arrays, weights: jax.Array
    ) -> Arrays:
        metrics = task.metrics(predict(params, model_state, batch), batch)
        # Padding is left out by selection, not by multiplication: 0 times NaN would be NaN.
        sums = {name: jnp.where(weights > 0, value, 0.0).sum() for name, value in metrics.items()}
        sums["examples"] = weights.sum()
        return sums if not totals else jax.tree.map(jnp.add, totals, sums)

    def is_fitted(params: Arrays, model_state: Arrays, batch: Arrays) -> jax.Array:
        return task.fitted(predict(params, model_state, batch), batch).all()

    return Program(
        init=jax.jit(init),
        train_step=jax.jit(train_step, donate_argnums=(0, 1)),
        eval_step=jax.jit(eval_step),
        is_fitted=jax.jit(is_fitted),
    )


def _arguments(section: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in section.items() if key != "name"}


def _options(section: dict[str, Any]) -> Options:
    return tuple(sorted(section.items()))


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


def _augment(
    spec: ProgramSpec, key: jax.Array, inputs: jax.Array, strengths: dict[str, Any]
) -> jax.Array:
    if spec.augmentation is None:
        return inputs
    return import_object(spec.augmentation, "config.augmentation.name")(key, inputs, **strengths)


def _optimizer(
    spec: ProgramSpec, numbers: dict[str, Any], learning_rate: Any, weight_decay: Any
) -> optax.GradientTransformation:
    options = {k: numbers.get(k, 0.0) if v == "traced" else v for k, v in spec.optimizer}
    return make_optimizer(options, learning_rate, weight_decay)


def _build_model(spec: ProgramSpec, key: jax.Array) -> nnx.Module:
    options = dict(spec.model)
    model_class = import_object(options["name"], "config.model.name")
    return model_class(spec.inputs[0], spec.num_outputs, rngs=nnx.Rngs(key), **_arguments(options))


def _split(model: nnx.Module) -> tuple[Any, Arrays, Arrays]:
    graph, params, model_state = nnx.split(model, nnx.Param, ...)  # type: ignore[misc]
    return graph, nnx.to_pure_dict(params), nnx.to_pure_dict(model_state)


@functools.lru_cache(maxsize=32)
def _graph_definitions(spec: ProgramSpec) -> tuple[Any, Any]:
    """The model's structure for training and for evaluation."""
    model = nnx.eval_shape(lambda: _build_model(spec, jax.random.key(0)))
    model.train()
    train = nnx.split(model, nnx.Param, ...)[0]
    model.eval()
    return train, nnx.split(model, nnx.Param, ...)[0]


@functools.lru_cache(maxsize=32)
def metric_names(spec: ProgramSpec) -> tuple[str, ...]:
    """The names of the task's metrics, found by tracing one batch; nothing is compiled.

    Raises:
        ConfigError: the model or the task cannot be traced, or the output has a wrong shape.
    """
    task = import_object(dict(spec.task)["name"], "config.task.name")(**_arguments(dict(spec.task)))
    name = dict(spec.model)["name"]

    def apply(batch: Arrays) -> tuple[jax.Array, dict[str, jax.Array]]:
        model: Any = _build_model(spec, jax.random.key(0))
        model.eval()
        outputs = model(model_inputs(batch))
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
