"""A trial's model with the weights of a checkpoint, and its predictions; on one device."""

from __future__ import annotations

import dataclasses
import functools
import operator
import warnings
from typing import Any, NamedTuple

import jax
import numpy as np
import pydantic
from etils import epath
from flax import nnx
from jax.sharding import AxisType, Mesh

from budgetflow.base.errors import UserError
from budgetflow.base.source_code import source_digests
from budgetflow.config.schema import StudyConfig
from budgetflow.config.values import plain
from budgetflow.engine.checkpoints import TrialCheckpoints
from budgetflow.engine.data.source import Dataset, load_dataset
from budgetflow.engine.training.apply import merged_model, predict
from budgetflow.engine.training.evaluation_size import evaluation_batch_size
from budgetflow.engine.training.mesh import BATCH_AXES
from budgetflow.engine.training.spec import ProgramSpec, arrays_of
from budgetflow.engine.training.step import TrainState
from budgetflow.engine.training.trial_run import trial_program
from budgetflow.studies.store.recorded_code import renewed


class Restored(NamedTuple):
    """A trial at the step of a checkpoint.

    Attributes:
        spec: its model, and what this takes.
        mesh: the device that it is on.
        state: parameters and batch statistics.
        batch_size: how many examples to compute at a time.
    """

    spec: ProgramSpec
    mesh: Mesh
    state: TrainState
    batch_size: int

    def model(self) -> nnx.Module:
        """The model in evaluation mode, in the precision that it was evaluated in."""
        state = self.state
        return merged_model(self.spec, state.evaluated_params, state.model_state, train=False)

    def predict(self, inputs: Any) -> Any:
        """The model's outputs as float32 NumPy arrays, [examples, ...].

        Args:
            inputs: as the data set holds them, after ``config.data.transform``: an array
                [examples, ...], or a dict of these. Pixels in uint8 are scaled as in training.

        Raises:
            UserError: they are of another shape or type.
        """
        inputs, count = _checked(self.spec, inputs)
        model = _compiled(self.spec, self.mesh)
        params, model_state = self.state.evaluated_params, self.state.model_state
        outputs = []
        for start in range(0, count, self.batch_size):
            part = jax.tree.map(operator.itemgetter(slice(start, start + self.batch_size)), inputs)
            outputs.append(jax.device_get(model(params, model_state, {"inputs": part})))
        return jax.tree.map(lambda *parts: np.concatenate(parts), *outputs)


def restore(folder: epath.Path, step: int, key: dict[str, Any], data: dict[str, Any]) -> Restored:
    """A trial's model, put together from its config and a checkpoint, on this machine's device.

    Warns where the model's code is not what it was trained with.

    Args:
        folder: the trial's folder.
        step: of the checkpoint.
        key: the trial's ``reuse_key``, which holds all that its states depend on.
        data: the study's ``config.data``: where the data lies, which says the inputs' shape.

    Raises:
        ConfigError: the model or the data cannot be found or made.
        DamagedFileError: the checkpoint is not what was saved.
    """
    if "model" not in key:
        raise UserError(f"{folder} was written by an earlier version: restore_params() reads it")
    fields = {field.name for field in dataclasses.fields(StudyConfig)} - {"mesh", "data"}
    sections = {name: value for name, value in key.items() if name in fields}
    sections["data"] = {**data, **key["data"]}
    config = pydantic.TypeAdapter(StudyConfig).validate_python({"kind": "round", **plain(sections)})
    _warn_of_changed_code(config.model["name"], key)
    program = trial_program(
        config=config,
        dataset=_dataset(config),
        varied=frozenset(key["varied"]),
        checks_fit=False,
        mesh=_first_device(),
    )
    state = TrialCheckpoints(folder).restore(step, program.state)
    return Restored(program.spec, program.mesh, state, evaluation_batch_size(config, program))


@functools.lru_cache(maxsize=8)  # A compiled function, which holds no weights.
def _compiled(spec: ProgramSpec, mesh: Mesh) -> Any:
    return jax.jit(functools.partial(predict, spec, mesh))


def _first_device() -> Mesh:
    """Checkpoints of any number of devices are read on one."""
    device = np.array(jax.local_devices()[:1]).reshape(1, 1)
    return Mesh(device, BATCH_AXES, axis_types=(AxisType.Auto,) * 2)


def _dataset(config: StudyConfig) -> Dataset:
    """The data, for the form of an example and the number of classes; none is held in memory."""
    data = config.data
    return load_dataset(
        name=data.name,
        train_split=data.train_split,
        validation_split=data.train_split,
        test_split=None,
        data_dir=data.data_dir,
        input_key=data.input_key,
        target_key=data.target_key,
        transform=data.transform,
        in_memory_bytes=0,
    )


def _warn_of_changed_code(model: str, key: dict[str, Any]) -> None:
    """Warns if the model's code is not what the weights were trained with."""
    then = renewed(key.get("code", {}).get("model.name", {}))
    now = source_digests(model, "config.model.name") if then else {}
    if changed := sorted(name for name in then if then[name] != now.get(name)):
        warnings.warn(
            f"{', '.join(changed)} changed since the trial was trained: what {model} computes from "
            "the same weights may be something else",
            stacklevel=4,
        )


def _checked(spec: ProgramSpec, inputs: Any) -> tuple[Any, int]:
    """Inputs in the types that the model was trained with, and how many examples they are."""
    wanted = arrays_of(spec.inputs)
    if isinstance(wanted, dict) and set(wanted) != set(inputs if isinstance(inputs, dict) else ()):
        raise UserError(f"the inputs should be a dict of {', '.join(map(repr, sorted(wanted)))}")
    arrays = jax.tree.map(_as_trained, wanted, inputs)
    counts = {len(array) for array in jax.tree.leaves(arrays)}
    if len(counts) > 1 or 0 in counts:
        shown = " and ".join(map(str, sorted(counts)))
        raise UserError(f"the inputs hold {shown} examples; give one or more, as many of each")
    return arrays, counts.pop()


def _as_trained(wanted: jax.ShapeDtypeStruct, given: Any) -> np.ndarray:
    """An input [examples, ...] in the type that was trained on, if it loses nothing by it."""
    array = np.asarray(given)
    shape = f"[examples, {', '.join(map(str, wanted.shape))}]"
    if array.shape[1:] != wanted.shape or array.ndim != len(wanted.shape) + 1:
        raise UserError(f"inputs of shape {list(array.shape)}: should be {shape}")
    kinds = {array.dtype.kind, wanted.dtype.kind}
    same_kind = len(kinds) == 1 or kinds == {"i", "u"}
    narrow = array.astype(wanted.dtype) if same_kind else array
    is_exact = array.dtype.kind == "f" or (narrow == array).all()
    if not same_kind or not is_exact:
        raise UserError(
            f"inputs of type {array.dtype}: should be {wanted.dtype} {shape}, as the data set "
            "holds them (what training scales is scaled here, too)"
        )
    return narrow
