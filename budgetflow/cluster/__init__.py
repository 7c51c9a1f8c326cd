"""Trials on the nodes of a Ray cluster. Ray is an extra, imported only where it is asked for.

- ``dispatch``: hands trials to workers and takes them back; what the controller calls.
- ``workers``: starts workers on the nodes, as many as there is room and work for.
- ``worker``: the actor on a node, which trains one trial at a time.
- ``queue``: where each trial ran, as it is written into the study's folder.

The workers train by :class:`budgetflow.studies.run.own_devices.OwnDevices`, as a launch without a
cluster does: a new kind of study needs nothing here. Another scheduler would be a class like
:class:`budgetflow.cluster.dispatch.ClusterExecutor`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

from budgetflow.base.errors import UserError
from budgetflow.config import StudyConfig
from budgetflow.config.keys import replace_fields
from budgetflow.config.schema import RayConfig
from budgetflow.engine.training.mesh import cpu_devices
from budgetflow.studies.run.controller import ExecutorFactory, TrialExecutor
from budgetflow.studies.study import Study


def for_cluster(config: StudyConfig) -> StudyConfig:
    """A config with one trial at a time on all devices of a worker."""
    return replace_fields(config, {"mesh.trial": 1})


def cluster_executors(address: str) -> ExecutorFactory:
    """Joins a cluster; returns what makes a study's trials train on its nodes.

    Args:
        address: of the cluster; empty for the one that this machine is a part of, or a new one of
            this machine alone.

    Raises:
        UserError: there is no such cluster, or Ray is not installed.
    """
    if importlib.util.find_spec("ray") is None:
        raise UserError("--ray needs Ray; install it with pip install 'budgetflow[ray]'")
    from budgetflow.cluster.dispatch import ClusterExecutor
    from budgetflow.cluster.workers import WorkerPool, join_cluster

    join_cluster(address)
    pools: dict[tuple[RayConfig, int], WorkerPool] = {}

    def new_executor(
        study: Study, on_measured: Callable[[], None], on_phase: Callable[[str], None]
    ) -> TrialExecutor:
        wanted = study.config.ray, cpu_devices(study.config.mesh)
        if wanted not in pools:
            while pools:
                pools.popitem()[1].end_all()
            pools[wanted] = WorkerPool(*wanted)
        return ClusterExecutor(study, pools[wanted], on_measured, on_phase)

    return new_executor
