"""The model inside a compiled function: put together from its state, and applied to a batch."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from budgetflow.engine.training.mesh import batch_sharding
from budgetflow.engine.training.spec import ProgramSpec, apply_model, as_type, model_inputs

Arrays = dict[str, Any]


def predict(
    spec: ProgramSpec, mesh: Mesh, params: Arrays, model_state: Arrays, batch: Arrays
) -> jax.Array:
    """The model's outputs in evaluation."""
    model = merged_model(spec, params, model_state, train=False)
    return apply_model(spec, model, model_inputs(spec, divided(batch, mesh)), {})


def divided(batch: Arrays, mesh: Mesh) -> Arrays:
    """A batch, divided among the mesh's devices if it divides evenly."""
    if mesh.size == 1 or num_examples(batch) % mesh.size:
        return dict(batch)
    return jax.lax.with_sharding_constraint(batch, batch_sharding(mesh))


def num_examples(batch: Arrays) -> int:
    """How many examples a batch holds."""
    return len(jax.tree.leaves(batch)[0])


def examples_at(data: Arrays, indices: jax.Array) -> Arrays:
    """Some examples of a data set on the device."""
    return jax.tree.map(lambda array: jnp.take(array, indices, axis=0), data)


def examples_of(data: Arrays | None, batch: Any) -> Arrays:
    """A batch's examples: itself; or, of a data set on the device, those of its indices."""
    if data is None:
        return batch
    return examples_at({name: data[name] for name in ("inputs", "targets")}, batch)


def as_before(before: Any, after: Any) -> Any:
    """Variables after a call in the form of those before: without what it only sowed."""
    if isinstance(before, dict):
        return {name: as_before(value, after[name]) for name, value in before.items()}
    return jax.tree.map(lambda old, new: new.astype(old.dtype), before, after)


def on_cpu(mesh: Mesh) -> bool:
    """Whether a mesh is of the CPU."""
    return mesh.devices.flat[0].platform == "cpu"


def split_model(model: nnx.Module) -> tuple[Any, Arrays, Arrays]:
    """A model's structure, its parameters, and its other variables."""
    graph, params, model_state = nnx.split(model, nnx.Param, ...)  # type: ignore[misc]
    return graph, nnx.to_pure_dict(params), nnx.to_pure_dict(model_state)


def merged_model(spec: ProgramSpec, params: Arrays, model_state: Arrays, train: bool) -> Any:
    """The model of some variables, for training or for evaluation."""
    graph = _graph_definitions(spec)[0 if train else 1]
    return nnx.merge(graph, as_type(params, spec.precision), model_state, copy=True)


@functools.lru_cache(maxsize=32)  # Structure alone, without arrays; models are slow to make.
def _graph_definitions(spec: ProgramSpec) -> tuple[Any, Any]:
    """The model's structure for training and for evaluation."""
    model = nnx.eval_shape(lambda: spec.build_model(jax.random.key(0)))
    model.train()
    train = nnx.split(model, nnx.Param, ...)[0]
    model.eval()
    return train, nnx.split(model, nnx.Param, ...)[0]
