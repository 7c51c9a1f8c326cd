"""Trials on the nodes of a Ray cluster: who trains which one, and what if a node dies.

Ray is an extra, and imported where it is asked for only.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

from budgetflow.base.errors import UserError
from budgetflow.config import StudyConfig
from budgetflow.config.keys import replace_fields
from budgetflow.engine.training.mesh import cpu_devices
from budgetflow.studies.run.controller import Crew, Hire
from budgetflow.studies.study import Study


def for_cluster(config: StudyConfig) -> StudyConfig:
    """A config with one trial at a time on all devices of a worker."""
    return replace_fields(config, {"mesh.trial": 1})


def hiring(address: str) -> Hire:
    """Joins a cluster, to have its nodes carry decisions out.

    Args:
        address: of the cluster; empty for the one that this machine is a part of, or a new one of
            this machine alone.

    Raises:
        UserError: there is no such cluster, or Ray is not installed.
    """
    if importlib.util.find_spec("ray") is None:
        raise UserError("--ray needs Ray; install it with pip install 'budgetflow[ray]'")
    from budgetflow.cluster.dispatch import ClusterCrew
    from budgetflow.cluster.workers import Workers, join_cluster

    join_cluster(address)
    workers: list[Workers] = []

    def hire(
        study: Study, on_measured: Callable[[], None], on_phase: Callable[[str], None]
    ) -> Crew:
        wanted = study.config.ray, cpu_devices(study.config.mesh)
        if not workers or workers[0].made_for != wanted:
            for other in workers:
                other.dismiss()
            workers[:] = [Workers(*wanted)]
        return ClusterCrew(study, workers[0], on_measured, on_phase)

    return hire
