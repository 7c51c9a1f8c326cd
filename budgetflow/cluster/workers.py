"""The workers of a launch: as many as the cluster has room for and there is work for."""

from __future__ import annotations

import dataclasses
import logging
import math
import os
import re
import socket
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import ray
import ray.exceptions
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from budgetflow.base.errors import ConfigError, UserError
from budgetflow.cluster.worker import Report, Worker
from budgetflow.config.schema import RayConfig

# How often the nodes of the cluster are counted.
COUNT_SECONDS = 2.0
# How long a cluster may take to answer.
CONNECT_SECONDS = 10.0
# What of the environment changes what a worker computes, or how.
_PASSED_ON = ("JAX_", "XLA_", "TF_", "TFDS_", "PYTHONPATH")
_CACHE = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)


@dataclasses.dataclass(eq=False)
class Hired:
    """A worker: one actor, or several on as many nodes that train one trial together.

    Attributes:
        actors: their handles.
        group: what keeps them on different nodes; None for one alone.
        awaited, came: what they do at the moment: what is yet to come, and what has.
        node: the name of the node, or of all of them; None until it has begun.
        last_trial: which one it had last, the program of which it has compiled.
    """

    actors: list[Any]
    group: PlacementGroup | None
    awaited: list[Any]
    node: str | None = None
    last_trial: int | None = None
    came: list[Any] = dataclasses.field(default_factory=list)

    def ask(self, method: str, *arguments: Any) -> None:
        """Has all actors do something; what comes of it, :meth:`Workers.wait` tells."""
        self.awaited = [getattr(actor, method).remote(*arguments) for actor in self.actors]

    def tell_to_stop(self) -> None:
        """Has all actors save their trial and come back, while they train it."""
        for actor in self.actors:
            actor.stop.remote()


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

    Raises:
        ConfigError: no node can have that.
    """

    def __init__(self, config: RayConfig, cpu_devices: int) -> None:
        self.made_for = config, cpu_devices
        custom = {name: float(amount) for name, amount in config.resources}
        amounts = {"CPU": config.cpus, "GPU": config.gpus, **custom}
        self._resources = {name: amount for name, amount in amounts.items() if amount}
        passed_on = {k: v for k, v in os.environ.items() if k.startswith(_PASSED_ON)}
        self._options: dict[str, Any] = {
            "num_cpus": config.cpus,
            "num_gpus": config.gpus,
            "resources": custom,
            "max_concurrency": 2,  # it can be told to stop while it trains
            "runtime_env": {"env_vars": passed_on} if passed_on else None,
        }
        try:
            self._remote()
        except ValueError as error:
            raise ConfigError(f"config.ray: {error}") from error
        self._hosts = config.hosts
        cache = {name: getattr(jax.config, name) for name in _CACHE}
        self._arguments = max(1, cpu_devices // config.hosts), cache
        self._hired: list[Hired] = []
        self._counted_at, self._room = -math.inf, 0
        needs = ", ".join(f"{amount:g} {name}" for name, amount in self._resources.items())
        on = (
            f"{config.hosts} nodes with {needs} each"
            if config.hosts > 1
            else f"a node with {needs}"
        )
        self.needs = on

    def tend(self, wanted: int) -> None:
        """Hires workers if more are wanted than there are; one that waits has the cluster grow."""
        if time.monotonic() - self._counted_at > COUNT_SECONDS:
            rooms = sum(map(self._room_on, ray.nodes()))
            self._room, self._counted_at = rooms // self._hosts, time.monotonic()
        while len(self._hired) < min(wanted, self._room):
            self._hire()
        if len(self._hired) < wanted and all(worker.node for worker in self._hired):
            self._hire()

    def _remote(self, **options: Any) -> Any:
        remote: Any = ray.remote(Worker)
        return remote.options(**self._options, **options)

    def _room_on(self, node: Mapping[str, Any]) -> int:
        """How many actors a node has room for, were there nobody else."""
        if not node["Alive"]:
            return 0
        there = node["Resources"]
        rooms = [int(there.get(name, 0) // amount) for name, amount in self._resources.items()]
        return min(rooms, default=1)

    def _hire(self) -> None:
        group: PlacementGroup | None = None
        remotes = [self._remote()] * self._hosts
        if self._hosts > 1:
            group = placement_group([self._resources] * self._hosts, strategy="STRICT_SPREAD")
            places = [PlacementGroupSchedulingStrategy(group, n) for n in range(self._hosts)]
            remotes = [self._remote(scheduling_strategy=place) for place in places]
        actors = [remote.remote(*self._arguments) for remote in remotes]
        address = actors[0].address.remote()
        begun = [a.begin.remote(address, self._hosts, n) for n, a in enumerate(actors)]
        self._hired.append(Hired(actors, group, begun))

    @property
    def begun(self) -> list[Hired]:
        """Those that are there."""
        return [worker for worker in self._hired if worker.node is not None]

    def idle(self, trial: int | None = None) -> Hired | None:
        """One that has nothing to do; the one that had a trial last, if there is a choice."""
        free = [worker for worker in self.begun if not worker.awaited]
        return min(free, key=lambda worker: worker.last_trial != trial, default=None)

    def wait(self, seconds: float) -> list[tuple[Hired, Any]]:
        """Waits until something comes of what a worker does: its result, or that it is lost.

        Args:
            seconds: how long at most.

        Returns:
            The worker and what came; of one that has begun, None. Or nothing.

        Raises:
            UserError: one cannot begin on its node.
        """
        awaited = {reference: w for w in self._hired for reference in w.awaited}
        if not awaited:
            time.sleep(seconds)
            return []
        done, _ = ray.wait(list(awaited), num_returns=1, timeout=seconds)
        return [pair for reference in done for pair in self._came(awaited[reference], reference)]

    def _came(self, worker: Hired, reference: Any) -> Iterator[tuple[Hired, Any]]:
        """What came of what all of a worker's actors do, once it has of each."""
        try:
            found = ray.get(reference)
        except ray.exceptions.RayActorError as error:
            yield worker, self._lost(worker, error)
            return
        except ray.exceptions.RayError as error:
            raise UserError(_cannot_begin(error)) from error
        worker.awaited.remove(reference)
        worker.came.append(found)
        if isinstance(found, Report) and not found.is_complete and worker.awaited:
            self._let_go(worker)  # the others wait for this one
        elif worker.awaited:
            return
        first, worker.came = worker.came, []
        if worker.node is None:
            worker.node = " + ".join(sorted(first))
            yield worker, None
        else:
            yield worker, first[-1]

    def _lost(self, worker: Hired, error: ray.exceptions.RayActorError) -> Lost:
        self._let_go(worker)
        said = " ".join(str(error).split())
        if worker.node is None and "creation task" in said:
            raise UserError(_cannot_begin(error)) from error
        if alone := "worker process has died" in said:
            return Lost(
                f"its process on {worker.node} died: killed, out of memory or crashed", alone
            )
        return Lost(f"{worker.node or 'its node'} died or is out of reach", alone)

    def _let_go(self, worker: Hired) -> None:
        """Ends a worker; one that is only out of reach must not go on."""
        self._hired.remove(worker)
        for actor in worker.actors:
            ray.kill(actor)
        if worker.group is not None:
            remove_placement_group(worker.group)

    def dismiss(self) -> None:
        """Lets all of them go."""
        for worker in [*self._hired]:
            self._let_go(worker)


def join_cluster(address: str) -> None:
    """Joins a cluster; without an address, the one that this machine is a part of, or a new one.

    Raises:
        UserError: there is none, or it cannot be reached.
    """
    if address and not re.fullmatch(r"[^/]+:\d+", address):
        raise UserError(f"--ray={address}: should be host:port, as `ray status` has it")
    try:
        if address:  # Ray itself would look for it for minutes
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
        ray.init(address=address or None, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError) as error:
        said = str(error).strip().splitlines()[0]
        raise UserError(f"--ray={address}: the cluster cannot be reached: {said}") from error


def _cannot_begin(error: Exception) -> str:
    """What Ray says of an error on a node: the last line of its traceback, and where it was."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    found = re.search(r"\bip=([^,)\s]+)", str(error))
    where = f"the node {found[1]}" if found else "a node"
    return f"a worker cannot begin on {where}: {lines[-1]}"
