"""The mesh of devices, and how a trial's arrays are laid out over it.

One mesh holds all devices of a run, on CPU, GPU and TPU alike, with three axes:

- ``trial``: trials run side by side, each on a slice of the mesh, a mesh of its own with the other
  two axes. Slices never talk to each other, so that a trial is bit for bit the same on any of them.
- ``data``: the examples of a batch are divided among the devices.
- ``fsdp``: so are they here, and parameters and optimizer state as well, which the compiler gathers
  where they are used (fully sharded data parallelism: Rajbhandari et al. 2020, ZeRO,
  arXiv:1910.02054).
"""

from __future__ import annotations

import functools
import math
import os
import platform
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from budgetflow.base.errors import ConfigError, nearest_numbers

if TYPE_CHECKING:
    from budgetflow.config import StudyConfig
    from budgetflow.config.schema import MeshConfig

AXES = ("trial", "data", "fsdp")
BATCH_AXES = ("data", "fsdp")


def mesh_sizes(
    config: MeshConfig, num_devices: int, num_trials: int | None = None
) -> tuple[int, int, int]:
    """The sizes of the axes ``trial``, ``data`` and ``fsdp``, with a number for each -1.

    The product of the three is the number of devices. What the given sizes leave of that is shared
    by the axes of size -1:

    - one such axis gets all of it;
    - ``trial``, beside others, gets its largest divisor that is no more than ``num_trials``; what
      that leaves goes to ``fsdp`` if it is -1, or else to ``data``;
    - ``fsdp``, beside ``data``, gets all of it, and ``data`` is 1.

    So 8 devices and 3 trials make trial 2, data 4 of -1 for both, with fsdp 1.

    Args:
        config: the mesh's config.
        num_devices: all that there are.
        num_trials: how many trials can run at the same time; None for any number.

    Raises:
        ConfigError: the sizes do not fit the number of devices.
    """
    sizes = {axis: getattr(config, axis) for axis in AXES}
    for axis, size in sizes.items():
        if size == 0:
            raise ConfigError(f"config.mesh.{axis} = 0: should be a size, or -1 for what is left")
    free = [axis for axis in ("trial", "fsdp", "data") if sizes[axis] == -1]
    sizes |= dict.fromkeys(free[1:], 1)
    product = math.prod(size for size in sizes.values() if size > 0)
    if num_devices % product or (not free and product != num_devices):
        asked = " x ".join(f"{axis} {size}" for axis, size in sizes.items() if size > 0)
        hint = nearest_numbers(product, lambda n: num_devices % n == 0)
        rest = "" if free or num_devices % product else "; set one of them to -1 to use all"
        raise ConfigError(
            f"config.mesh: {asked} makes {product}, which does not fit {num_devices} "
            f"device{'s' if num_devices > 1 else ''}{rest or f'; {hint}'}"
        )
    if free:
        left = num_devices // product
        if free[0] == "trial" and len(free) > 1:
            most = min(left, num_trials or left)
            sizes["trial"] = max(n for n in range(1, most + 1) if left % n == 0)
            sizes[free[1]] = left // sizes["trial"]
        else:
            sizes[free[0]] = left
    return sizes["trial"], sizes["data"], sizes["fsdp"]


def cpu_devices(config: MeshConfig, num_trials: int | None = None) -> int:
    """How many of the CPU's virtual devices a mesh asks for: the product of its sizes.

    A size of -1 counts as 1, but on the axis ``trial`` as the number of cores, or of trials if
    those are fewer.

    Args:
        config: the mesh's config.
        num_trials: how many trials can run at the same time; None for any number.
    """
    cores = os.cpu_count() or 1
    trials = config.trial if config.trial > 0 else min(cores, num_trials or cores)
    return trials * max(config.data, 1) * max(config.fsdp, 1)


@functools.cache  # The machine stays what it is.
def device_kind() -> str:
    """What computes: the accelerator's kind; of a CPU, its model and the number of its cores.

    XLA chooses instructions and cuts sums by these, and so the last bits of all results.
    """
    kind = jax.devices()[0].device_kind
    if jax.devices()[0].platform != "cpu":
        return kind
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    model = re.search(r"^model name\s*: (.*)", text, re.M)
    return f"{model[1] if model else platform.machine()} x {os.cpu_count()}"


def cpu_devices_are_given() -> bool:
    """Whether XLA_FLAGS say how many devices the CPU has."""
    return "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")


def make_mesh(config: MeshConfig, num_trials: int | None = None) -> Mesh:
    """The mesh of a study: all devices, or as many of the CPU's virtual ones as it asks for.

    Virtual devices that XLA_FLAGS ask for are all taken where a size is -1.

    Args:
        config: the mesh's config.
        num_trials: how many trials can run at the same time; None for any number.

    Raises:
        ConfigError: the sizes do not fit the devices there are.
    """
    devices = jax.devices()
    if devices[0].platform == "cpu" and jax.process_count() == 1:
        free = -1 in (config.trial, config.data, config.fsdp)
        if not (free and cpu_devices_are_given()):
            devices = devices[: cpu_devices(config, num_trials)]
    sizes = mesh_sizes(config, len(devices), num_trials)
    local = jax.local_device_count()
    per_trial = sizes[1] * sizes[2]
    if jax.process_count() > 1 and local % per_trial and per_trial % local:
        raise ConfigError(
            f"config.mesh: a trial's {per_trial} devices (data x fsdp) must be a part or a "
            f"multiple of a host's {local}; "
            + nearest_numbers(per_trial, lambda n: local % n == 0 or n % local == 0)
        )
    if sizes[0] == 1:
        return jax.make_mesh(sizes, AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)
    # Host by host, so that a slice has whole hosts or lies on one: on a host that shared several
    # slices with another, the order in which they communicate would not be the same.
    ordered = sorted(devices, key=lambda device: (device.process_index, device.id))
    return Mesh(np.array(ordered).reshape(sizes), AXES, axis_types=(AxisType.Auto,) * 3)


def trial_slices(mesh: Mesh) -> tuple[Mesh, ...]:
    """A study's mesh cut along ``trial``: one mesh of ``data`` and ``fsdp`` for each position."""
    return tuple(
        Mesh(devices, BATCH_AXES, axis_types=(AxisType.Auto,) * 2) for devices in mesh.devices
    )


def is_local(mesh: Mesh) -> bool:
    """Whether some of a mesh's devices belong to this process."""
    return any(device.process_index == jax.process_index() for device in mesh.devices.flat)


def check_batch_size(config: StudyConfig, mesh: Mesh) -> None:
    """Checks that a batch divides into equal parts.

    Raises:
        ConfigError: it does not.
    """
    data, fsdp = (mesh.shape[axis] for axis in BATCH_AXES)
    parts = data * fsdp * config.gradient_accumulation
    if config.data.batch_size % parts:
        hint = nearest_numbers(config.data.batch_size, lambda n: n % parts == 0)
        raise ConfigError(
            f"config.data.batch_size = {config.data.batch_size} does not divide into {parts} parts "
            f"(config.mesh: data {data} x fsdp {fsdp}; gradient_accumulation "
            f"{config.gradient_accumulation}); {hint}"
        )


def partition_spec(shape: tuple[int, ...], fsdp: int, min_sharded_size: int) -> PartitionSpec:
    """Which dimension of an array in the train state is cut over ``fsdp``: the sharding rule.

    The largest dimension that divides evenly, the first of equals; none for a small array, which is
    copied to every device.

    Args:
        shape: the array's shape.
        fsdp: the size of the axis.
        min_sharded_size: arrays of fewer elements are small.
    """
    divisible = [d for d, size in enumerate(shape) if size % fsdp == 0]
    if fsdp == 1 or not divisible or math.prod(shape) < min_sharded_size:
        return PartitionSpec()
    largest = max(divisible, key=lambda d: shape[d])
    return PartitionSpec(*[None] * largest, "fsdp")


def state_shardings(shapes: Any, mesh: Mesh, min_sharded_size: int) -> Any:
    """The sharding of every array of a train state, by :func:`partition_spec`."""

    def sharding(leaf: Any) -> NamedSharding:
        return NamedSharding(mesh, partition_spec(leaf.shape, mesh.shape["fsdp"], min_sharded_size))

    return jax.tree.map(sharding, shapes)


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of an array that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh, leading_dimensions: int = 0) -> NamedSharding:
    """The sharding of a batch: its examples are cut over ``data`` and ``fsdp``.

    Args:
        mesh: the devices of one trial.
        leading_dimensions: how many dimensions come before that of the examples; they stay whole.
    """
    return NamedSharding(mesh, PartitionSpec(*[None] * leading_dimensions, BATCH_AXES))


def local_rows(mesh: Mesh, batch_size: int) -> np.ndarray:
    """The positions within a batch whose examples this process has to read, ascending."""
    ranges = batch_sharding(mesh).addressable_devices_indices_map((batch_size,)).values()
    starts_and_stops = {rows[0].indices(batch_size)[:2] for rows in ranges if rows is not None}
    return np.concatenate([np.arange(*ends) for ends in sorted(starts_and_stops)])


def place(local: Any, sharding: NamedSharding) -> Any:
    """Arrays on the devices of a sharding.

    Args:
        local: arrays; on several processes, of a batch this one's rows, by :func:`local_rows`.
        sharding: how all of the batch is laid out, or :func:`replicated`.
    """
    if sharding.is_fully_addressable:
        return jax.device_put(local, sharding)
    return jax.make_array_from_process_local_data(sharding, local)


def to_all_processes(state: Any, mesh: Mesh, position: int) -> Any:
    """A state that lies on one slice of a mesh, as copies on all of its slices.

    Where all processes have a part of the state already, it is returned as it is.

    Args:
        state: the train state; on processes that have no part of it, its shapes and shardings.
        mesh: the whole mesh; every process must call this.
        position: the slice's position on the axis ``trial``.
    """
    owners = {device.process_index for device in mesh.devices[position].flat}
    if len(owners) == jax.process_count():
        return state
    slices = mesh.shape["trial"]

    def stack(leaf: Any) -> jax.Array:
        """[trial, ...], with the state at ``position`` and zeros elsewhere."""
        shards = {str(s.index): s.data for s in getattr(leaf, "addressable_shards", ())}

        def part(index: Any) -> np.ndarray:
            if range(slices)[index[0]][0] == position:
                return np.asarray(shards[str(index[1:])])[None]
            sizes = (len(range(n)[i]) for n, i in zip(leaf.shape, index[1:], strict=True))
            return np.zeros((1, *sizes), leaf.dtype)

        sharding = NamedSharding(mesh, PartitionSpec("trial", *leaf.sharding.spec))
        return jax.make_array_from_callback((slices, *leaf.shape), sharding, part)

    leaves = jax.tree.leaves(state)
    numbers = [_without_key(leaf) for leaf in leaves]
    choose = _choose(tuple(NamedSharding(mesh, leaf.sharding.spec) for leaf in numbers))
    chosen = choose([stack(leaf) for leaf in numbers], np.int32(position))
    return jax.tree.unflatten(
        jax.tree.structure(state),
        [_with_key_of(c, leaf) for c, leaf in zip(chosen, leaves, strict=True)],
    )


@functools.lru_cache(maxsize=8)  # A compiled function, which holds no data.
def _choose(shardings: tuple[NamedSharding, ...]) -> Any:
    """(stacked arrays, position) -> the arrays at that position."""
    return jax.jit(
        lambda arrays, position: [array[position] for array in arrays],
        out_shardings=list(shardings),
    )


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _without_key(leaf: Any) -> Any:
    """A random key as the numbers it is made of; any other array as it is."""
    if not _is_key(leaf):
        return leaf
    everywhere = replicated(leaf.sharding.mesh)
    if isinstance(leaf, jax.Array):
        return jax.device_put(jax.random.key_data(leaf), everywhere)
    shape = jax.eval_shape(jax.random.key_data, jax.ShapeDtypeStruct(leaf.shape, leaf.dtype))
    return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=everywhere)


def _with_key_of(array: jax.Array, like: Any) -> jax.Array:
    if not _is_key(like):
        return array
    return jax.random.wrap_key_data(array, impl=jax.random.key_impl(like))
