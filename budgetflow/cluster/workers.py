"""The workers of a launch: as many as the cluster has room for and there is work for."""

from __future__ import annotations

import dataclasses
import logging
import math
import os
import re
import time
from collections.abc import Mapping
from typing import Any

import jax
import ray
import ray.exceptions

from budgetflow.cluster.worker import Worker
from budgetflow.config.schema import RayConfig
from budgetflow.errors import UserError

# How often the nodes of the cluster are counted.
COUNT_SECONDS = 2.0
# What of the environment changes what a worker computes, or how.
_PASSED_ON = ("JAX_", "XLA_", "TF_", "TFDS_", "PYTHONPATH")
_CACHE = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)


@dataclasses.dataclass(eq=False)
class Hired:
    """A worker, which says on which node it is once it has begun.

    Attributes:
        actor: the handle of the actor.
        node: its name; None until it has begun.
        awaited: what it does at the moment; None if nothing.
        last_trial: which one it had last, the program of which it has compiled.
    """

    actor: Any
    awaited: Any
    node: str | None = None
    last_trial: int | None = None


@dataclasses.dataclass(frozen=True)
class Lost:
    """That a worker has died.

    Attributes:
        because: why, in words.
        alone: whether its process has, and not its node: it may be what it was doing.
    """

    because: str
    alone: bool


class Workers:
    """Hires workers on the nodes of a cluster, and tells what comes of what they do.

    Args:
        config: what each of them needs.
        cpu_devices: how many virtual devices the CPU of each makes.

    Attributes:
        made_for: these two.
        needs: what each needs, in words.
    """

    def __init__(self, config: RayConfig, cpu_devices: int) -> None:
        self.made_for = config, cpu_devices
        custom = {name: float(amount) for name, amount in config.resources}
        self._resources = {"CPU": config.cpus, "GPU": config.gpus, **custom}
        passed_on = {k: v for k, v in os.environ.items() if k.startswith(_PASSED_ON)}
        self._options: dict[str, Any] = {
            "num_cpus": config.cpus,
            "num_gpus": config.gpus,
            "resources": custom,
            "max_concurrency": 2,  # it can be told to stop while it trains
            **({"runtime_env": {"env_vars": passed_on}} if passed_on else {}),
        }
        cache = {name: getattr(jax.config, name) for name in _CACHE}
        self._arguments = cpu_devices, cache
        self._hired: list[Hired] = []
        self._counted_at, self._room = -math.inf, 0
        amounts = {name: amount for name, amount in self._resources.items() if amount}
        self.needs = ", ".join(f"{amount:g} {name}" for name, amount in amounts.items())

    def tend(self, wanted: int) -> None:
        """Hires workers if more are wanted than there are; one that waits has the cluster grow."""
        if time.monotonic() - self._counted_at > COUNT_SECONDS:
            self._room, self._counted_at = sum(map(self._room_on, ray.nodes())), time.monotonic()
        while len(self._hired) < min(wanted, self._room):
            self._hire()
        if len(self._hired) < wanted and all(worker.node for worker in self._hired):
            self._hire()

    def _room_on(self, node: Mapping[str, Any]) -> int:
        """How many workers a node has room for, were there nobody else."""
        if not node["Alive"]:
            return 0
        needs = {name: amount for name, amount in self._resources.items() if amount}
        there = node["Resources"]
        return min(
            (int(there.get(n, 0) // a) for n, a in needs.items()), default=os.cpu_count() or 1
        )

    def _hire(self) -> None:
        remote: Any = ray.remote(Worker)
        actor = remote.options(**self._options).remote(*self._arguments)
        self._hired.append(Hired(actor, actor.node.remote()))

    @property
    def begun(self) -> list[Hired]:
        """Those that are there."""
        return [worker for worker in self._hired if worker.node is not None]

    def idle(self, trial: int | None = None) -> Hired | None:
        """One that has nothing to do; the one that had a trial last, if there is a choice."""
        free = [worker for worker in self.begun if worker.awaited is None]
        return min(free, key=lambda worker: worker.last_trial != trial, default=None)

    def wait(self, seconds: float) -> list[tuple[Hired, Any]]:
        """Waits until something comes of what they do: its result, or that they are lost.

        Args:
            seconds: how long at most.

        Returns:
            What came; of one that has begun, None.

        Raises:
            UserError: one cannot begin on its node.
        """
        awaited = {worker.awaited: worker for worker in self._hired if worker.awaited is not None}
        if not awaited:
            time.sleep(seconds)
            return []
        done, _ = ray.wait(list(awaited), num_returns=1, timeout=seconds)
        return [(awaited[reference], self._came(awaited[reference])) for reference in done]

    def _came(self, worker: Hired) -> Any:
        reference, worker.awaited = worker.awaited, None
        try:
            found = ray.get(reference)
        except ray.exceptions.RayActorError as error:
            return self._lost(worker, error)
        except ray.exceptions.RayError as error:
            raise UserError(_cannot_begin(error)) from error
        if worker.node is None:
            worker.node, found = found, None
        return found

    def _lost(self, worker: Hired, error: ray.exceptions.RayActorError) -> Lost:
        self._hired.remove(worker)
        ray.kill(worker.actor)  # if it is only out of reach, it must not go on
        said = " ".join(str(error).split())
        if worker.node is None and "creation task" in said:
            raise UserError(_cannot_begin(error)) from error
        if alone := "worker process has died" in said:
            return Lost(
                f"its process on {worker.node} died: killed, out of memory or crashed", alone
            )
        return Lost(f"{worker.node or 'its node'} died or is out of reach", alone)

    def dismiss(self) -> None:
        """Lets all of them go."""
        for worker in self._hired:
            ray.kill(worker.actor)
        self._hired = []


def join_cluster(address: str) -> None:
    """Joins a cluster; without an address, the one that this machine is a part of, or a new one.

    Raises:
        UserError: there is none, or it cannot be reached.
    """
    try:
        ray.init(address=address or None, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        said = str(error).strip().splitlines()[0]
        raise UserError(f"--ray={address}: the cluster cannot be reached: {said}") from error


def _cannot_begin(error: Exception) -> str:
    """What Ray says of an error on a node: the last line of its traceback, and where it was."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    found = re.search(r"\bip=([^,)\s]+)", str(error))
    where = f"the node {found[1]}" if found else "a node"
    return f"a worker cannot begin on {where}: {lines[-1]}"
