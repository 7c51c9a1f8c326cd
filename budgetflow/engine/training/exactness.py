"""The same bits in every process: how XLA is to compile, and the settings that change results."""

from __future__ import annotations

import os
from typing import Any

import jax

# XLA on GPUs times kernels against each other, anew in each process, and takes the one that was
# faster this time; some kernels add in the order in which their threads come. With it, neither.
DETERMINISTIC = "xla_gpu_deterministic_ops"
# Flags of XLA that change no number, by how they begin.
_HARMLESS_FLAGS = ("xla_force_host_platform_device_count", "xla_dump")
# Settings of JAX that change numbers, and their defaults.
_DEFAULTS = {
    "jax_default_matmul_precision": None,
    "jax_default_prng_impl": "threefry2x32",
    "jax_enable_x64": False,
    "jax_numpy_dtype_promotion": "standard",
    "jax_random_seed_offset": 0,
    "jax_threefry_partitionable": True,
}


def compiler_options(platform: str) -> dict[str, bool] | None:
    """What XLA is told of each program that makes or measures states.

    Without it a run that is resumed, or continues another one, is not the undisturbed one on a GPU.
    Who sets the flag in XLA_FLAGS, to either value, has chosen.

    Args:
        platform: of the devices, such as "gpu".
    """
    is_chosen = any(flag.startswith(DETERMINISTIC) for flag in _flags())
    return {DETERMINISTIC: True} if platform == "gpu" and not is_chosen else None


def settings() -> dict[str, Any]:
    """The settings of XLA and JAX that change results, where they are not the default."""
    values = {name: getattr(jax.config, name) for name in _DEFAULTS}
    changed = {name: value for name, value in values.items() if value != _DEFAULTS[name]}
    flags = sorted(flag for flag in _flags() if not flag.startswith(_HARMLESS_FLAGS))
    return changed | ({"XLA_FLAGS": flags} if flags else {})


def _flags() -> list[str]:
    return [flag.lstrip("-") for flag in os.environ.get("XLA_FLAGS", "").split()]
