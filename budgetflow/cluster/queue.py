"""Where the trials of a study run: ``queue/NNNN.json`` in its folder, written by the launcher.

It outlives launches, and it is what tells a worker that another one has taken its place.
"""

from __future__ import annotations

import dataclasses

from etils import epath

from budgetflow.base.files import read_json, write_json
from budgetflow.playbook.common.outcomes import Queue


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where a trial ran, and how that went.

    Attributes:
        attempt: from 1; one more each time that it was taken from a worker.
        nodes: those that had a part in it, in their order.
        errors: those of its own, as opposed to nodes that died.
        steps_trained_twice: each time that it was taken up anew, the steps after its last save, as
            far as they were recorded.
    """

    attempt: int = 1
    nodes: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    steps_trained_twice: int = 0


def read_placement(study_folder: epath.Path, trial: int) -> Placement:
    """Where a trial ran."""
    path = _path(study_folder, trial)
    if not path.exists():
        return Placement()
    found = Placement(**read_json(path))
    return dataclasses.replace(found, nodes=tuple(found.nodes), errors=tuple(found.errors))


def write_placement(study_folder: epath.Path, trial: int, placement: Placement) -> None:
    """Records where a trial ran."""
    write_json(_path(study_folder, trial), dataclasses.asdict(placement))


def queue_of(study_folder: epath.Path, trials: list[int]) -> Queue:
    """Where the trials of a study ran, all in all."""
    placements = {trial: read_placement(study_folder, trial) for trial in trials}
    nodes = sorted({node for placement in placements.values() for node in placement.nodes})
    return Queue(
        nodes={
            node: [t for t, placement in placements.items() if node in placement.nodes]
            for node in nodes
        },
        restarts=sum(placement.attempt - 1 for placement in placements.values()),
        steps_trained_twice=sum(p.steps_trained_twice for p in placements.values()),
    )


def _path(study_folder: epath.Path, trial: int) -> epath.Path:
    return study_folder / "queue" / f"{trial:04d}.json"
