"""Starts workers on the nodes of a cluster: as many as there is room and work for."""

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
from budgetflow.cluster.worker import Worker, WorkerReport
from budgetflow.config.schema import RayConfig

# How often free room on the nodes is counted.
COUNT_SECONDS = 2.0
# How long a cluster may take to answer.
CONNECT_SECONDS = 10.0
# Prefixes of the environment variables that change what a worker computes, or how.
_PASSED_ON = ("JAX_", "XLA_", "TF_", "TFDS_", "PYTHONPATH")
_CACHE = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)


@dataclasses.dataclass(eq=False)
class WorkerHandle:
    """A worker as the launcher sees it: one actor, or several that train a trial together.

    Attributes:
        actors: their Ray handles, each on a node of its own.
        group: the placement group that keeps them on different nodes; None for a single actor.
        awaited: the Ray references of results that have not arrived yet.
        node: the name of the node, or of all of them; None until it has started.
        last_trial: the trial that it trained last, whose program it has compiled.
        results: of the actors that have answered the present call.
    """

    actors: list[Any]
    group: PlacementGroup | None
    awaited: list[Any]
    node: str | None = None
    last_trial: int | None = None
    results: list[Any] = dataclasses.field(default_factory=list)

    def ask(self, method: str, *arguments: Any) -> None:
        """Calls a method of every actor; :meth:`WorkerPool.wait` returns the result."""
        self.awaited = [getattr(actor, method).remote(*arguments) for actor in self.actors]

    def tell_to_stop(self) -> None:
        """Asks all actors to save the trial that they train, and to return."""
        for actor in self.actors:
            actor.stop.remote()


@dataclasses.dataclass(frozen=True)
class LostWorker:
    """The result of a worker that has died.

    Attributes:
        because: why, in words.
        process_only: whether its process died and its node did not: its trial may be the cause.
    """

    because: str
    process_only: bool


class WorkerPool:
    """Starts workers on the nodes of a cluster, and waits for their results.

    Args:
        config: what each worker needs.
        cpu_devices: how many virtual devices the CPU of each makes.

    Attributes:
        needs: what each worker needs, in words.

    Raises:
        ConfigError: Ray refuses these needs.
    """

    def __init__(self, config: RayConfig, cpu_devices: int) -> None:
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
        self._handles: list[WorkerHandle] = []
        self._counted_at, self._room = -math.inf, 0
        needs = ", ".join(f"{amount:g} {name}" for name, amount in self._resources.items())
        hosts = config.hosts
        self.needs = f"{hosts} nodes with {needs} each" if hosts > 1 else f"a node with {needs}"

    def grow(self, wanted: int) -> None:
        """Starts workers if more are wanted than there are.

        One that waits for room makes an autoscaling cluster grow.
        """
        if time.monotonic() - self._counted_at > COUNT_SECONDS:
            rooms = sum(map(self._room_on, ray.nodes()))
            self._room, self._counted_at = rooms // self._hosts, time.monotonic()
        while len(self._handles) < min(wanted, self._room):
            self._start_worker()
        if len(self._handles) < wanted and all(worker.node for worker in self._handles):
            self._start_worker()

    def _remote(self, **options: Any) -> Any:
        remote: Any = ray.remote(Worker)
        return remote.options(**self._options, **options)

    def _room_on(self, node: Mapping[str, Any]) -> int:
        """How many actors would fit on a node if nothing else ran there."""
        if not node["Alive"]:
            return 0
        there = node["Resources"]
        rooms = [int(there.get(name, 0) // amount) for name, amount in self._resources.items()]
        return min(rooms, default=1)

    def _start_worker(self) -> None:
        group: PlacementGroup | None = None
        remotes = [self._remote()] * self._hosts
        if self._hosts > 1:
            group = placement_group([self._resources] * self._hosts, strategy="STRICT_SPREAD")
            places = [PlacementGroupSchedulingStrategy(group, n) for n in range(self._hosts)]
            remotes = [self._remote(scheduling_strategy=place) for place in places]
        actors = [remote.remote(*self._arguments) for remote in remotes]
        address = actors[0].address.remote()
        started = [a.begin.remote(address, self._hosts, n) for n, a in enumerate(actors)]
        self._handles.append(WorkerHandle(actors, group, started))

    @property
    def started(self) -> list[WorkerHandle]:
        """The workers that run on a node by now."""
        return [worker for worker in self._handles if worker.node is not None]

    def idle(self, trial: int | None = None) -> WorkerHandle | None:
        """A worker that has nothing to do, preferably the one that had this trial last."""
        free = [worker for worker in self.started if not worker.awaited]
        return min(free, key=lambda worker: worker.last_trial != trial, default=None)

    def wait(self, seconds: float) -> list[tuple[WorkerHandle, Any]]:
        """Waits until a worker has a result, is lost, or has started.

        Args:
            seconds: how long at most.

        Returns:
            Workers with their results: a :class:`LostWorker` of one that died, None of one that has
            started. Empty if nothing happened.

        Raises:
            UserError: a worker cannot start on its node.
        """
        awaited = {reference: w for w in self._handles for reference in w.awaited}
        if not awaited:
            time.sleep(seconds)
            return []
        done, _ = ray.wait(list(awaited), num_returns=1, timeout=seconds)
        return [
            pair for reference in done for pair in self._completed(awaited[reference], reference)
        ]

    def _completed(
        self, worker: WorkerHandle, reference: Any
    ) -> Iterator[tuple[WorkerHandle, Any]]:
        """The result of a worker, once all of its actors have answered."""
        try:
            result = ray.get(reference)
        except ray.exceptions.RayActorError as error:
            yield worker, self._lost_worker(worker, error)
            return
        except ray.exceptions.RayError as error:
            raise UserError(_cannot_begin(error)) from error
        worker.awaited.remove(reference)
        worker.results.append(result)
        if isinstance(result, WorkerReport) and not result.is_complete and worker.awaited:
            self._end(worker)  # the others wait for this one
        elif worker.awaited:
            return
        results, worker.results = worker.results, []
        if worker.node is None:
            worker.node = " + ".join(sorted(results))
            yield worker, None
        else:
            yield worker, results[-1]

    def _lost_worker(self, worker: WorkerHandle, error: ray.exceptions.RayActorError) -> LostWorker:
        self._end(worker)
        message = " ".join(str(error).split())
        if worker.node is None and "creation task" in message:
            raise UserError(_cannot_begin(error)) from error
        if "worker process has died" in message:
            because = f"its process on {worker.node} died: killed, out of memory or crashed"
            return LostWorker(because, process_only=True)
        because = f"{worker.node or 'its node'} died or is out of reach"
        return LostWorker(because, process_only=False)

    def _end(self, worker: WorkerHandle) -> None:
        """Ends a worker, also one that is only out of reach."""
        self._handles.remove(worker)
        for actor in worker.actors:
            ray.kill(actor)
        if worker.group is not None:
            remove_placement_group(worker.group)

    def end_all(self) -> None:
        """Ends all workers."""
        for worker in [*self._handles]:
            self._end(worker)


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
        message = str(error).strip().splitlines()[0]
        raise UserError(f"--ray={address}: the cluster cannot be reached: {message}") from error


def _cannot_begin(error: Exception) -> str:
    """An error message for a worker that cannot start: the last line of Ray's, and the node."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    address = re.search(r"\bip=([^,)\s]+)", str(error))
    where = f"the node {address[1]}" if address else "a node"
    return f"a worker cannot begin on {where}: {lines[-1]}"
