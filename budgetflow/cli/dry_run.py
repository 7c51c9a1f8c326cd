"""What a launch would do: the plan that ``--dry_run`` prints, with the memory it needs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from etils import epath
from rich.filesize import decimal

from budgetflow.base import processes
from budgetflow.config import StudyConfig
from budgetflow.config.schema import to_json
from budgetflow.engine.training.mesh import make_mesh
from budgetflow.results.kind_views import longer_in_words
from budgetflow.results.reading import open_study
from budgetflow.studies.kinds import kind_of
from budgetflow.studies.plan.config_changes import changes_since_sweep
from budgetflow.studies.plan.trials import TrialPlan
from budgetflow.studies.store.folder import check_folder, is_complete
from budgetflow.studies.study import resolve, study_dataset, study_memory


def dry_run_rows(
    chain: list[StudyConfig], workdir: epath.Path, same_results: bool
) -> list[dict[str, Any]]:
    """What a launch would do, a row for each study.

    A study whose length depends on one that is not complete has that in words.

    Args:
        chain: the studies, each building on the one before.
        workdir: where their folders lie.
        same_results: see :func:`budgetflow.studies.study.resolve`.

    Raises:
        UserError: a study, or its folder, is refused.
    """
    rows: list[dict[str, Any]] = []
    previous: epath.Path | None = None
    is_next = True  # whether all studies before it are complete
    for config in chain:
        folder = workdir / config.name
        row: dict[str, Any] = {"study": config.name, "kind": config.kind}
        plans: tuple[TrialPlan, ...] = ()
        if is_next:
            study = resolve(config, folder, previous, same_results)
            processes.on_main(check_folder, study)
            row |= study.kind.in_rows(study)
            plans = study.plans
            is_next = processes.on_main(is_complete, study)
        else:
            factor = f"{config.max_train_steps_factor:g} x that of {chain[len(rows) - 1].name}"
            row |= {
                "trials": kind_of(config).num_trials(config),
                "steps a trial": config.max_train_steps or factor,
                "steps": "-",
            }
        mesh = make_mesh(config.mesh, kind_of(config).num_trials(config))
        row["trial x data x fsdp"] = " x ".join(map(str, mesh.shape.values()))
        row["memory a device"] = decimal(study_memory(config, mesh, plans).peak)
        if limit := (mesh.local_devices[0].memory_stats() or {}).get("bytes_limit"):
            row["memory a device"] += f" of {decimal(limit)}"
        row["status"] = "complete" if is_next else "to run"
        rows.append(row)
        previous = folder
    return rows


def dry_run_notes(
    chain: list[StudyConfig], rows: list[dict[str, Any]], workdir: epath.Path
) -> Iterator[str]:
    """Sentences about a chain that is to be run.

    They say how a study differs from the one that found its length, and what complete rounds
    forecast of longer ones, with their costs.

    Args:
        chain, workdir: as above.
        rows: by :func:`dry_run_rows`.
    """
    for previous, config in itertools.pairwise(chain):
        changes = changes_since_sweep(
            config, to_json(previous), kind_of(previous), study_dataset(config)
        )
        yield from (f"{config.name}: {sentence}" for sentence in changes)
    for row in rows:
        if row["status"] == "complete":
            study = open_study(workdir / row["study"])
            yield from (f"{study.name}: {sentence}" for sentence in longer_in_words(study))
