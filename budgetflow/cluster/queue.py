"""Where the trials of a study ran: ``queue/NNNN.json`` in its folder, written by the launcher.

The files outlive launches. By the attempt in them a worker knows whether its trial is still its.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from etils import epath

from budgetflow.base.files import read_json, write_json
from budgetflow.playbook.common.outcomes import Queue


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where a trial ran, and how often it was restarted.

    Attributes:
        attempt: from 1; one more each time that it was taken from a worker.
        nodes: the nodes that trained it, in their order.
        errors: the trial's own errors; nodes that died are no such errors.
        steps_trained_twice: the recorded steps after the last save, over all restarts.
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
    content = read_json(path)
    lists = {name: tuple(content[name]) for name in ("nodes", "errors")}
    return Placement(**{**content, **lists})


def write_placement(study_folder: epath.Path, trial: int, placement: Placement) -> None:
    """Records where a trial ran."""
    write_json(_path(study_folder, trial), dataclasses.asdict(placement))


def queue_of(placements: Mapping[int, Placement]) -> Queue:
    """Where all trials of a study ran, by number."""
    nodes = sorted({node for placement in placements.values() for node in placement.nodes})
    return Queue(
        nodes={node: sorted(n for n, p in placements.items() if node in p.nodes) for node in nodes},
        restarts=sum(placement.attempt - 1 for placement in placements.values()),
        steps_trained_twice=sum(p.steps_trained_twice for p in placements.values()),
    )


def _path(study_folder: epath.Path, trial: int) -> epath.Path:
    return study_folder / "queue" / f"{trial:04d}.json"
